#include "policy/bit_set.hpp"
#include "tests/unit/policy/example_tailnet.hpp"

#include <gtest/gtest.h>

#include <random>

namespace tailrace {
namespace {

/// Makes policies, tailnets and changes by chance, but the same every time.
class Chance {
public:
    explicit Chance(unsigned seed) : engine_(seed) {}

    std::size_t below(std::size_t limit) { return std::uniform_int_distribution<std::size_t>{0, limit - 1}(engine_); }

    std::string one_of(std::initializer_list<const char*> words) { return *(words.begin() + below(words.size())); }

    std::string source() {
        return one_of({"u1@example.com", "u2@example.com", "u3@example.org", "group:a", "group:b", "tag:x", "tag:y",
                       "autogroup:member", "autogroup:tagged", "autogroup:admin", "100.64.0.3", "10.0.0.0/8", "*"});
    }

    std::string rule() {
        if (below(3) == 0) {
            const auto via = below(3) == 0 ? R"(, "via": ["tag:x"])" : "";
            const auto app = below(3) == 0 ? R"(, "app": {"tailscale.com/cap/drive": [{}]})" : "";
            return fmt::format(R"({{"src": ["{}"], "dst": ["{}"], "ip": ["tcp:{}", "udp:53"]{}{}}})", source(),
                               one_of({"tag:x", "tag:y", "group:a", "10.0.0.0/8", "10.0.1.0/24", "100.64.0.4"}),
                               1 + below(3), via, app);
        }
        return {};
    }

    std::string acl() {
        if (below(4) == 0)
            return fmt::format(R"({{"action": "accept", "src": ["{}"], "dst": ["autogroup:self:{}", "tag:y:1"]}})",
                               one_of({"u1@example.com", "group:a", "group:b", "autogroup:member"}), 1 + below(3));
        return fmt::format(R"({{"action": "accept", "src": ["{}", "{}"], "dst": ["{}:{}"]{}}})", source(), source(),
                           one_of({"tag:x", "tag:y", "group:a", "10.0.0.0/8", "10.0.1.7", "100.64.0.4",
                                   "u2@example.com", "autogroup:internet", "*", "100.64.0.0/29"}),
                           1 + below(3), below(4) == 0 ? R"(, "srcPosture": ["posture:p"])" : "");
    }

    std::string policy() {
        std::string grants, acls;
        for (std::size_t i = below(4); i > 0; --i) {
            const auto one = rule();
            if (!one.empty()) grants += one + ",";
        }
        for (std::size_t i = 1 + below(5); i > 0; --i) acls += acl() + ",";
        return R"({"groups": {"group:a": ["u1@example.com", "u2@example.com"], "group:b": ["u3@example.org"]},
            "tagOwners": {"tag:x": [], "tag:y": []}, "postures": {"posture:p": ["node:os == 'linux'"]},
            "nodeAttrs": [{"target": ["group:b"], "attr": ["disable-ipv4"]},
                          {"target": ["*"], "app": {"tailscale.com/app-connectors": [{"connectors": ["tag:x"]}]}}],
            "grants": [)" +
               grants + R"(], "acls": [)" + acls + "]}";
    }

    TailnetNode node(PolicyNodeId id) {
        TailnetNode made;
        made.id = id;
        change(made);
        made.addresses = {IpAddress::v4(0x64400000U + static_cast<std::uint32_t>(id)),
                          *IpAddress::parse(fmt::format("fd7a:115c:a1e0::{:x}", id))};
        return made;
    }

    void change(TailnetNode& node) {
        node.user = static_cast<PolicyUserId>(1 + below(4));
        node.tags.clear();
        node.routes.clear();
        node.attributes.clear();
        if (below(2) == 0) node.tags.push_back(one_of({"tag:x", "tag:y"}));
        if (below(3) == 0)
            node.routes.push_back(*IpPrefix::parse(one_of({"10.0.0.0/16", "10.0.1.0/24", "0.0.0.0/0", "8.8.8.8/32"})));
        node.app_connector = below(3) == 0;
        if (below(12) == 0) node.routes.push_back(*IpPrefix::parse("100.64.0.0/30")); // over nodes: it happens
        if (below(2) == 0) node.attributes["node:os"] = std::string{"linux"};
    }

    Tailnet tailnet() {
        Tailnet made;
        made.domain = "example.com";
        made.users = {{1, "u1@example.com", UserRole::Owner},
                      {2, "u2@example.com", UserRole::Member},
                      {3, "u3@example.org", UserRole::Member},
                      {4, "u4@example.com", UserRole::Member}};
        for (std::size_t i = 2 + below(12); i > 0; --i)
            made.nodes.push_back(
                node(made.nodes.empty() ? 1 : made.nodes.back().id + 1 + static_cast<PolicyNodeId>(below(2))));
        choose_primaries(made);
        return made;
    }

    void change(Tailnet& tailnet) {
        switch (below(6)) {
        case 0:
            tailnet.nodes.push_back(node(tailnet.nodes.back().id + 1));
            break;
        case 1:
            if (tailnet.nodes.size() > 1)
                tailnet.nodes.erase(tailnet.nodes.begin() + static_cast<long>(below(tailnet.nodes.size())));
            break;
        case 2:
            tailnet.users[below(4)].role = below(2) == 0 ? UserRole::Admin : UserRole::Member;
            break;
        case 3: {
            const auto taken = tailnet.nodes.back().id;
            const auto at = below(tailnet.nodes.size());
            const auto id = at == 0 ? taken + 2 : tailnet.nodes[at - 1].id + 1;
            if (at != 0 && id != tailnet.nodes[at].id)
                tailnet.nodes.insert(tailnet.nodes.begin() + static_cast<long>(at), node(id));
            break;
        }
        default:
            change(tailnet.nodes[below(tailnet.nodes.size())]);
        }
        choose_primaries(tailnet);
    }

private:
    std::mt19937 engine_;
};

void ask_everything(const CompiledPolicy& policy) {
    for (const auto& node : policy.tailnet().nodes) {
        (void)policy.filter_id(node.id);
        (void)policy.view_of(node.id);
    }
}

/// Of each rule, how many destinations its lines are for, and how many it has.
std::vector<std::size_t> covered(const std::vector<RuleLines>& lines) {
    std::vector<std::size_t> out;
    for (const auto& rule : lines) {
        out.push_back(0);
        for (const auto& span : rule) out.back() += span.line == 0 ? 1'000'000 : span.destinations;
    }
    return out;
}
std::vector<std::size_t> sizes(const std::vector<FilterRule>& rules) {
    std::vector<std::size_t> out;
    for (const auto& rule : rules) out.push_back(rule.dst_ports.size());
    return out;
}

TEST(CompiledPolicy, AnswersAfterAChangeAsIfCompiledAnew) {
    for (unsigned seed = 0; seed < 60; ++seed) {
        Chance chance{seed};
        const auto text = chance.policy();
        auto parsed = Document::parse(text);
        ASSERT_TRUE(parsed) << text << parsed.error().message();
        const auto document = std::make_shared<const Document>(std::move(*parsed));
        auto before = CompiledPolicy::compile(document, chance.tailnet());
        for (int step = 0; step < 4; ++step) {
            ask_everything(*before);
            auto tailnet = before->tailnet();
            for (std::size_t i = 1 + chance.below(2); i > 0; --i) chance.change(tailnet);
            const auto fresh = CompiledPolicy::compile(document, tailnet);
            const auto after = CompiledPolicy::compile(document, tailnet, before.get());
            for (const auto& node : after->tailnet().nodes) {
                ASSERT_EQ(after->filter_id(node.id), fresh->filter_id(node.id)) << seed << " " << node.id << "\n"
                                                                                << text;
                ASSERT_EQ(brief(*after->rules_for(node.id)), brief(*fresh->rules_for(node.id)))
                    << seed << " " << node.id;
                ASSERT_EQ(after->lines_id(node.id), fresh->lines_id(node.id)) << seed << " " << node.id << "\n" << text;
                ASSERT_EQ(after->lines_for(node.id), fresh->lines_for(node.id)) << seed << " " << node.id;
                ASSERT_EQ(covered(after->lines_for(node.id)), sizes(*after->rules_for(node.id))) << text;
                ASSERT_EQ(*after->view_of(node.id), *fresh->view_of(node.id)) << seed << " " << node.id << "\n" << text;
                for (const auto& other : after->tailnet().nodes)
                    ASSERT_EQ(after->visible(node.id, other.id), after->visible(other.id, node.id)) << seed;
            }
            before = after;
        }
    }
}

TEST(CompiledPolicy, KeepsTheAnswersThatAChangeDoesNotConcern) {
    const auto rules = R"("acls": [{"action": "accept", "src": ["group:admins"], "dst": ["tag:server:22"]},
        {"action": "accept", "src": ["tag:client"], "dst": ["tag:prod:80"]}])";
    const auto before = compile_rules(rules);
    ask_everything(*before);
    auto tailnet = before->tailnet();
    tailnet.nodes[1].tags = {"tag:client"}; // thor-pc
    const auto after = CompiledPolicy::compile(before->shared_document(), tailnet, before.get());
    EXPECT_EQ(after->view_of(kServer), before->view_of(kServer));
    EXPECT_EQ(after->view_of(kOdinPc), before->view_of(kOdinPc));
    EXPECT_EQ(after->filter_id(kServer), before->filter_id(kServer));
    EXPECT_NE(after->view_of(kProd), before->view_of(kProd));
    EXPECT_NE(after->filter_id(kProd), before->filter_id(kProd));
    EXPECT_TRUE(after->visible(kThorPc, kProd));
}

TEST(CompiledPolicy, GivesEqualFiltersOneId) {
    const auto one =
        compile_rules(R"("acls": [{"action": "accept", "src": ["group:admins"], "dst": ["10.33.0.0/16:22"]}])");
    EXPECT_EQ(one->filter_id(kRouter), one->filter_id(kRouter2));
    EXPECT_NE(one->filter_id(kRouter), one->filter_id(kServer));
    const auto other =
        compile_rules(R"("acls": [{"action": "accept", "src": ["odin@example.com"], "dst": ["10.33.0.0/16:22"]}])");
    EXPECT_EQ(one->filter_id(kRouter), other->filter_id(kRouter)) << "also of another policy";
    const auto wider =
        compile_rules(R"("acls": [{"action": "accept", "src": ["odin@example.com"], "dst": ["10.33.0.0/16:23"]}])");
    EXPECT_NE(one->filter_id(kRouter), wider->filter_id(kRouter));
}

TEST(CompiledPolicy, KnowsTheLinesOfItsRules) {
    // The rules begin in line 5; the acls of lines 6 and 9 have the same sources.
    const auto text = example_policy(R"("acls": [
        {"action": "accept", "src": ["group:admins"], "dst": ["tag:server:22,80"]},
        {"action": "accept", "src": ["thor@example.org"],
         "dst": ["*:53"]},
        {"action": "accept", "src": ["odin@example.com"], "dst": ["10.33.0.0/16:*", "tag:server:443"]}
    ],
    "grants": [
        {"src": ["tag:client"], "dst": ["autogroup:internet"], "ip": ["*"]},
        {"src": ["tag:client"], "dst": ["tag:server"], "ip": ["tcp:1", "udp:2"], "app": {"example.com/cap": [{}]}}
    ])");
    const auto policy = compile(text);
    using Lines = std::vector<RuleLines>;
    // Of a server both addresses, of the internet as many ranges as there are.
    EXPECT_EQ(policy->lines_for(kServer), (Lines{{{13, 2}}, {{13, 2}}, {{13, 0}}, {{6, 4}, {9, 2}}, {{7, 1}}}))
        << filter_of(policy, kServer);
    EXPECT_EQ(policy->lines_for(kRouter), (Lines{{{9, 1}}, {{7, 1}}}));
    ASSERT_EQ(policy->lines_for(kExit).size(), 2u);
    EXPECT_EQ(policy->lines_for(kExit)[0][0].line, 12u);
    EXPECT_EQ(policy->lines_for(kExit)[0][0].destinations, policy->rules_for(kExit)->front().dst_ports.size());

    // Lines that move are no news of the filter.
    const auto moved = compile("// a comment\n" + text);
    EXPECT_EQ(moved->filter_id(kServer), policy->filter_id(kServer));
    EXPECT_NE(moved->lines_id(kServer), policy->lines_id(kServer));
    EXPECT_EQ(moved->lines_for(kRouter), (Lines{{{10, 1}}, {{8, 1}}}));
    const auto longer = compile(text + "// a comment\n");
    EXPECT_EQ(longer->lines_id(kServer), policy->lines_id(kServer));

    EXPECT_EQ(compile("")->lines_for(kServer), (Lines{{{0, 1}}})) << "what is not written has no line";
    EXPECT_TRUE(policy->lines_for(99).empty());
}

TEST(BitSet, MovesNumbers) {
    BitSet set{130};
    for (const auto i : {0U, 63U, 64U, 127U, 129U}) set.insert(i);
    auto removed = set;
    removed.remove_number(63);
    std::string numbers;
    removed.for_each([&](std::size_t i) { numbers += fmt::format("{} ", i); });
    EXPECT_EQ(numbers, "0 63 126 128 ");
    removed.add_number(63);
    BitSet expected = set;
    expected.erase(63);
    EXPECT_EQ(removed, expected);
    BitSet full{64};
    full.insert(63);
    full.add_number(0);
    EXPECT_TRUE(full.contains(64));
    EXPECT_EQ(full.count(), 1U);
}

} // namespace
} // namespace tailrace
