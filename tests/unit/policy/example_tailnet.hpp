// tests/unit/policy/example_tailnet.hpp - one tailnet for all examples: three users, servers, routers, an exit node.
#pragma once
#include "policy/compile.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace tailrace {

// odin owns odin-pc and is in group:admins; thor owns thor-pc; the others are tagged after their names.
constexpr PolicyNodeId kOdinPc = 1, kThorPc = 2, kServer = 3, kProd = 4, kClient = 5, kRouter = 6, kRouter2 = 7,
                       kExit = 8;

inline TailnetNode make_node(PolicyNodeId id, PolicyUserId user, const char* tag, const char* v4, const char* v6,
                             std::vector<std::string> routes = {}) {
    TailnetNode node;
    node.id = id;
    node.user = user;
    if (tag != nullptr) node.tags = {tag};
    node.addresses = {*IpAddress::parse(v4), *IpAddress::parse(v6)};
    for (const auto& route : routes) node.routes.push_back(*IpPrefix::parse(route));
    return node;
}

inline Tailnet example_tailnet() {
    Tailnet tailnet;
    tailnet.users = {{1, "odin@example.com", UserRole::Owner},
                     {2, "thor@example.org", UserRole::Member},
                     {3, "freya@example.com", UserRole::Member}};
    tailnet.nodes = {make_node(kOdinPc, 1, nullptr, "100.64.0.19", "fd7a:115c:a1e0::13"),
                     make_node(kThorPc, 2, nullptr, "100.64.0.17", "fd7a:115c:a1e0::11"),
                     make_node(kServer, 0, "tag:server", "100.64.0.16", "fd7a:115c:a1e0::10"),
                     make_node(kProd, 0, "tag:prod", "100.64.0.15", "fd7a:115c:a1e0::f"),
                     make_node(kClient, 0, "tag:client", "100.64.0.14", "fd7a:115c:a1e0::e"),
                     make_node(kRouter, 0, "tag:router", "100.64.0.13", "fd7a:115c:a1e0::d", {"10.33.0.0/16"}),
                     make_node(kRouter2, 0, "tag:backup", "100.64.0.12", "fd7a:115c:a1e0::c", {"10.33.0.0/16"}),
                     make_node(kExit, 0, "tag:exit", "100.64.0.4", "fd7a:115c:a1e0::4", {"0.0.0.0/0", "::/0"})};
    choose_primaries(tailnet);
    return tailnet;
}

/// Sections that every example has; `rules` stands between them.
inline std::string example_policy(const std::string& rules) {
    return R"({
  "groups": {"group:admins": ["odin@example.com"], "group:empty": []},
  "hosts": {"webserver": "100.64.0.16", "site": "10.33.0.0/16"},
  "tagOwners": {"tag:server": [], "tag:prod": [], "tag:client": [], "tag:router": [], "tag:backup": [], "tag:exit": []},
  )" + rules +
           "\n}\n";
}

inline std::shared_ptr<const CompiledPolicy> compile(const std::string& text, Tailnet tailnet = example_tailnet()) {
    auto document = Document::parse(text);
    EXPECT_TRUE(document) << (document ? std::string{} : document.error().message());
    if (!document) return CompiledPolicy::compile(std::make_shared<const Document>(), {});
    return CompiledPolicy::compile(std::make_shared<const Document>(std::move(*document)), std::move(tailnet));
}

inline std::shared_ptr<const CompiledPolicy> compile_rules(const std::string& rules) {
    return compile(example_policy(rules));
}

/// A filter in short: "100.64.0.14 fd7a::e [6] > 100.64.0.16:22 ...", a line a rule.
inline std::string brief(const std::vector<FilterRule>& rules) {
    std::string out;
    for (const auto& rule : rules) {
        for (const auto& source : rule.src_ips) out += source + " ";
        for (const auto protocol : rule.ip_proto) out += fmt::format("[{}] ", protocol);
        out += ">";
        for (const auto& destination : rule.dst_ports) {
            out += " " + destination.ip;
            if (destination.ports.is_all())
                out += " *";
            else if (destination.ports.first == destination.ports.last)
                out += fmt::format(" {}", destination.ports.first);
            else
                out += fmt::format(" {}-{}", destination.ports.first, destination.ports.last);
        }
        for (const auto& grant : rule.cap_grant) {
            for (const auto& dst : grant.dsts) out += " " + dst;
            for (const auto& [name, values] : grant.cap_map)
                out += " " + name + (values ? fmt::format("({})", fmt::join(*values, ",")) : "");
        }
        out += "\n";
    }
    return out;
}

inline std::string filter_of(const std::shared_ptr<const CompiledPolicy>& policy, PolicyNodeId node) {
    return brief(*policy->rules_for(node));
}

inline std::string texts(const std::vector<IpPrefix>& prefixes) {
    std::string out;
    for (const auto& prefix : prefixes) out += (out.empty() ? "" : " ") + prefix.text();
    return out;
}

} // namespace tailrace
