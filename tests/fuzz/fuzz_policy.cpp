// A policy from anywhere: read, checked, and where it is in order compiled against a small tailnet and asked
// everything.
#include "policy/check.hpp"
#include "policy/compile.hpp"

#include <cstdlib>

using namespace tailrace;

namespace {

Tailnet small_tailnet() {
    Tailnet tailnet;
    tailnet.users = {{1, "alice@example.com", UserRole::Owner}, {2, "bob@example.com", UserRole::Member}};
    const auto add = [&](PolicyUserId user, std::vector<std::string> tags, const char* v4, const char* v6,
                         const char* route) {
        TailnetNode node;
        node.id = static_cast<PolicyNodeId>(tailnet.nodes.size() + 1);
        node.user = user;
        node.tags = std::move(tags);
        node.addresses = {*IpAddress::parse(v4), *IpAddress::parse(v6)};
        if (route != nullptr) node.routes = {*IpPrefix::parse(route)};
        tailnet.nodes.push_back(std::move(node));
    };
    add(1, {}, "100.64.0.1", "fd7a:115c:a1e0::1", nullptr);
    add(2, {}, "100.64.0.2", "fd7a:115c:a1e0::2", nullptr);
    add(0, {"tag:a"}, "100.64.0.3", "fd7a:115c:a1e0::3", "10.0.0.0/8");
    add(0, {"tag:a", "tag:b"}, "100.64.0.4", "fd7a:115c:a1e0::4", "10.0.0.0/8");
    add(0, {"tag:b"}, "100.64.0.5", "fd7a:115c:a1e0::5", "0.0.0.0/0");
    choose_primaries(tailnet);
    return tailnet;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    static const Tailnet tailnet = small_tailnet();
    const std::string_view text{reinterpret_cast<const char*>(data), size};
    auto document = check(text, tailnet);
    if (!document) return 0;
    const auto policy = CompiledPolicy::compile(std::make_shared<const Document>(std::move(*document)), tailnet);
    for (const auto& a : tailnet.nodes) {
        (void)policy->rules_for(a.id);
        (void)policy->ssh_rules_for(a.id);
        (void)policy->self_capabilities(a.id);
        for (const auto& b : tailnet.nodes) {
            if (policy->visible(a.id, b.id) != policy->visible(b.id, a.id)) std::abort();
            // A route is only given to those who see its router.
            if (a.id != b.id && !policy->allowed_routes(a.id, b.id).empty() && !policy->visible(a.id, b.id))
                std::abort();
            (void)policy->capabilities_for(a.id, b.id);
        }
    }
    return 0;
}
