#include "bench/policy/company.hpp"

#include <fmt/format.h>

#include <random>

namespace tailrace {
namespace {

constexpr std::size_t kTags = 250;
constexpr std::size_t kGroups = 200;
constexpr std::size_t kHosts = 100;
constexpr std::size_t kRouters = 40;
constexpr std::size_t kExits = 6;

std::size_t users_of(std::size_t nodes) {
    return nodes / 4 + 1;
}

std::string login(std::size_t user) {
    return fmt::format("user{}@example.com", user);
}

class Random {
public:
    std::size_t below(std::size_t limit) { return std::uniform_int_distribution<std::size_t>{0, limit - 1}(engine_); }

private:
    std::mt19937_64 engine_{20260801};
};

IpAddress v6_of(std::size_t node) {
    std::array<std::byte, 16> bytes{std::byte{0xfd}, std::byte{0x7a}, std::byte{0x11},
                                    std::byte{0x5c}, std::byte{0xa1}, std::byte{0xe0}};
    bytes[13] = static_cast<std::byte>(node >> 16);
    bytes[14] = static_cast<std::byte>(node >> 8);
    bytes[15] = static_cast<std::byte>(node);
    return IpAddress::v6(bytes);
}

std::string subnet(std::size_t number) {
    return fmt::format("10.{}.{}.0/24", number / 250, number % 250);
}

} // namespace

Tailnet bench_tailnet(std::size_t nodes) {
    Random random;
    Tailnet tailnet;
    tailnet.domain = "example.com";
    for (std::size_t i = 0; i < users_of(nodes); ++i)
        tailnet.users.push_back(
            {static_cast<PolicyUserId>(i + 1), login(i), i == 0 ? UserRole::Owner : UserRole::Member});
    for (std::size_t i = 0; i < nodes; ++i) {
        auto& node = tailnet.nodes.emplace_back();
        node.id = static_cast<PolicyNodeId>(i + 1);
        node.addresses = {IpAddress::v4(0x64400000U + static_cast<std::uint32_t>(i) + 10), v6_of(i + 10)};
        if (i % 3 != 0) {
            node.user = static_cast<PolicyUserId>(random.below(users_of(nodes)) + 1);
            continue;
        }
        node.tags = {fmt::format("tag:t{}", random.below(kTags))};
        if (random.below(4) == 0) node.tags.push_back(fmt::format("tag:t{}", random.below(kTags)));
        const auto server = i / 3;
        if (server < kRouters) { // each subnet has two routers
            for (std::size_t k = 0; k < 5; ++k) node.routes.push_back(*IpPrefix::parse(subnet(server / 2 * 5 + k)));
        } else if (server < kRouters + kExits) {
            node.routes = {*IpPrefix::parse("0.0.0.0/0"), *IpPrefix::parse("::/0")};
        }
    }
    choose_primaries(tailnet);
    return tailnet;
}

std::string bench_policy(std::size_t nodes, std::size_t rules) {
    Random random;
    std::string out = "// made by bench/policy\n{\n\"groups\": {\n";
    for (std::size_t i = 0; i < kGroups; ++i) {
        out += fmt::format("  \"group:g{}\": [", i);
        const auto members = 5 + random.below(60);
        for (std::size_t k = 0; k < members; ++k)
            out += fmt::format("{}\"{}\"", k == 0 ? "" : ", ", login(random.below(users_of(nodes))));
        out += "],\n";
    }
    out += "},\n\"hosts\": {\n";
    for (std::size_t i = 0; i < kHosts; ++i) out += fmt::format("  \"h{}\": \"10.0.{}.{}\",\n", i, i, 5 + i);
    out += "},\n\"tagOwners\": {\n";
    for (std::size_t i = 0; i < kTags; ++i) out += fmt::format("  \"tag:t{}\": [\"group:g{}\"],\n", i, i % kGroups);
    out += "},\n";

    const auto group = [&] { return fmt::format("group:g{}", random.below(kGroups)); };
    const auto tag = [&] { return fmt::format("tag:t{}", random.below(kTags)); };
    const auto user = [&] { return login(random.below(users_of(nodes))); };
    const auto port = [&] { return 1 + random.below(20000); };
    std::string acls =
        "\"acls\": [\n"
        "  {\"action\": \"accept\", \"src\": [\"autogroup:member\"], \"dst\": [\"autogroup:self:*\"]},\n"
        "  {\"action\": \"accept\", \"src\": [\"autogroup:member\"], \"dst\": [\"autogroup:internet:*\"]},\n"
        "  {\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"tag:t0:53\"]},\n";
    std::string grants = "\"grants\": [\n";
    for (std::size_t i = 3; i < rules; ++i) {
        const auto kind = random.below(100);
        const auto acl = [&](const std::string& src, const std::string& dst) {
            acls += fmt::format("  {{\"action\": \"accept\", \"src\": [\"{}\"], \"dst\": [\"{}\"]}},\n", src, dst);
        };
        if (kind < 45) {
            acl(group(), fmt::format("{}:{}", tag(), port()));
        } else if (kind < 58) {
            acl(user(), fmt::format("{}:22,{}", tag(), port()));
        } else if (kind < 70) {
            acl(tag(), fmt::format("{}:{}-{}", tag(), 30000, 30001 + random.below(100)));
        } else if (kind < 80) {
            acl(group(), fmt::format("{}:443", subnet(random.below(100))));
        } else if (kind < 85) {
            acl(user(), fmt::format("{}:*", user()));
        } else if (kind < 90) {
            acl(group(), fmt::format("h{}:{}", random.below(kHosts), port()));
        } else if (kind < 96) {
            grants += fmt::format("  {{\"src\": [\"{}\"], \"dst\": [\"{}\"], \"ip\": [\"tcp:{}\"], \"app\": "
                                  "{{\"example.com/cap/x\": [{{\"n\": {}}}]}}}},\n",
                                  group(), tag(), port(), i);
        } else if (kind < 98) {
            grants += fmt::format("  {{\"src\": [\"{}\"], \"dst\": [\"{}\"], \"ip\": [\"*\"], \"via\": [\"{}\"]}},\n",
                                  group(), subnet(random.below(100)), tag());
        } else {
            grants += fmt::format("  {{\"src\": [\"{}\"], \"dst\": [\"{}\"], \"ip\": [\"udp:{}\"]}},\n", tag(), group(),
                                  port());
        }
    }
    return out + acls + "],\n" + grants + "],\n}\n";
}

} // namespace tailrace
