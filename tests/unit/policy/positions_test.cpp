// Which selector may stand where: the whole table, cell by cell.
#include "policy/check.hpp"
#include "tests/unit/policy/example_tailnet.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

/// A policy that knows every name below, with one more section; `owner` owns tag:mine.
bool is_accepted(const std::string& section, const std::string& owner = {}) {
    const auto text = R"({
  "groups": {"group:ops": ["odin@example.com"]},
  "hosts": {"webserver": "100.64.0.16", "site": "10.33.0.0/16"},
  "ipsets": {"ipset:prod": ["10.33.0.0/16"]},
  "tagOwners": {"tag:server": [], "tag:mine": [)" +
                      owner + "]}, " + section + "}";
    return static_cast<bool>(Document::parse(text));
}

std::string ssh_rule(const std::string& source, const std::string& destination) {
    return R"("ssh": [{"action": "accept", "users": ["ubuntu"], "src": [")" + source + R"("], "dst": [")" +
           destination + "\"]}]";
}

/// The columns, in the order of the signs below; tagOwners comes last.
const std::pair<const char*, std::string (*)(const std::string&)> kPositions[] = {
    {"acls src",
     [](const std::string& who) {
         return R"("acls": [{"action": "accept", "src": [")" + who + R"("], "dst": ["tag:server:22"]}])";
     }},
    {"acls dst",
     [](const std::string& who) {
         return R"("acls": [{"action": "accept", "src": ["odin@example.com"], "dst": [")" + who + ":22\"]}]";
     }},
    {"grants src",
     [](const std::string& who) {
         return R"("grants": [{"src": [")" + who + R"("], "dst": ["tag:server"], "ip": ["22"]}])";
     }},
    {"grants dst",
     [](const std::string& who) {
         return R"("grants": [{"src": ["odin@example.com"], "dst": [")" + who + R"("], "ip": ["22"]}])";
     }},
    {"ssh src", [](const std::string& who) { return ssh_rule(who, "tag:server"); }},
    {"ssh dst", [](const std::string& who) { return ssh_rule("odin@example.com", who); }},
    {"nodeAttrs target",
     [](const std::string& who) { return R"("nodeAttrs": [{"target": [")" + who + R"("], "attr": ["funnel"]}])"; }},
    {"autoApprovers.exitNode",
     [](const std::string& who) { return R"("autoApprovers": {"exitNode": [")" + who + "\"]}"; }},
    {"autoApprovers.routes",
     [](const std::string& who) { return R"("autoApprovers": {"routes": {"10.0.0.0/8": [")" + who + "\"]}}"; }},
};

TEST(Positions, EverySelectorStandsWhereItMay) {
    struct Row {
        const char* selector;
        const char* allowed; ///< by column: + or -
    };
    // acls src, dst; grants src, dst; ssh src, dst; nodeAttrs; exitNode; routes; tagOwners
    constexpr Row kRows[] = {
        {"*", "++++--+---"},
        {"odin@example.com", "++++++++++"},
        {"group:ops", "+++++-++++"},
        {"tag:server", "++++++++++"},
        {"webserver", "++++--+---"},
        {"100.64.0.16", "++++--+---"},
        {"site", "++++--+---"},
        {"10.33.0.0/16", "++++--+---"},
        {"ipset:prod", "++++------"},
        {"svc:web", "-+-+------"},
        {"autogroup:member", "++++++++++"},
        {"autogroup:members", "++++++++++"},
        {"autogroup:tagged", "+++++++---"},
        {"autogroup:self", "-+-+-+----"},
        {"autogroup:internet", "-+-+------"},
        {"autogroup:danger-all", "+-+-------"},
        {"autogroup:shared", "+-+-------"},
        {"autogroup:admin", "+++++?++++"},
        {"autogroup:owner", "+++++?++++"},
        {"autogroup:it-admin", "+++++?++++"},
        {"autogroup:network-admin", "+++++?++++"},
        {"autogroup:billing-admin", "+++++?++++"},
        {"autogroup:auditor", "+++++?++++"},
        {"autogroup:nonroot", "----------"},
        {"user:*@example.com", "+++++?????"},
        {"10.0.0.1-10.0.0.9", "----------"},
        {"localpart:*@example.com", "??????????"}, // an odd login
        {"autogroup:nobody", "----------"},
        {"group:unknown", "----------"},
        {"tag:unknown", "----------"},
        {"ipset:unknown", "----------"},
        {"unknown", "----------"},
    };
    for (const auto& row : kRows) {
        constexpr std::size_t kTagOwners = std::size(kPositions);
        if (row.allowed[kTagOwners] != '?')
            EXPECT_EQ(is_accepted("", fmt::format("\"{}\"", row.selector)), row.allowed[kTagOwners] == '+')
                << row.selector << " in tagOwners";
        for (std::size_t column = 0; column < std::size(kPositions); ++column) {
            if (row.allowed[column] == '?') continue; // not established
            // A user is a destination of ssh for himself alone, which ssh dst is.
            EXPECT_EQ(is_accepted(kPositions[column].second(row.selector)), row.allowed[column] == '+')
                << row.selector << " in " << kPositions[column].first;
        }
    }
}

TEST(Positions, TestsTakeOneSideAndOneHost) {
    const auto holds = [](const std::string& source, const std::string& destination) {
        const auto text =
            example_policy(R"("acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], "tests": [{"src": ")" +
                           source + R"(", "accept": [")" + destination + "\"]}]");
        return static_cast<bool>(check(text, example_tailnet()));
    };
    for (const char* source : {"odin@example.com", "group:admins", "tag:server", "webserver", "100.64.0.16",
                               "autogroup:member", "autogroup:tagged", "autogroup:owner"})
        EXPECT_TRUE(holds(source, "tag:prod:22")) << source;
    for (const char* source : {"*", "10.33.0.0/16", "site", "autogroup:internet", "autogroup:self", "svc:web",
                               "autogroup:danger-all", "autogroup:nonroot", "group:none", "tag:none", "", "nobody"})
        EXPECT_FALSE(holds(source, "tag:prod:22")) << source;
    for (const char* destination : {"odin@example.com:22", "group:admins:22", "tag:prod:22", "webserver:22",
                                    "100.64.0.15:22", "[fd7a:115c:a1e0::f]:22"})
        EXPECT_TRUE(holds("tag:client", destination)) << destination;
    for (const char* destination :
         {"*:22", "10.33.0.0/16:22", "100.64.0.15/32:22", "site:22", "autogroup:internet:22", "autogroup:self:22",
          "tag:prod:*", "tag:prod:22,80", "tag:prod:22-80", "tag:prod:ssh", "tag:prod:-1", "tag:prod:65536",
          "tag:prod:18446744073709551638", "tag:none:22", "group:none:22", "nobody:22"})
        EXPECT_FALSE(holds("tag:client", destination)) << destination;
}

} // namespace
} // namespace tailrace
