// tests/bpf/random_policy.hpp - packet filters and packets by chance, with a taste for the edges of the rules.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"
#include "policy/tables.hpp"
#include "tests/bpf/packet.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace tailrace::test {

/// Seeded, or thrown by the bytes of a fuzzer.
class Dice {
public:
    explicit Dice(std::uint64_t seed) : state_(seed) {}
    explicit Dice(BytesView bytes) : bytes_(bytes), from_bytes_(true) {}

    std::uint32_t below(std::uint32_t limit); ///< 0 <= n < limit; limit > 0
    bool chance(std::uint32_t percent) { return below(100) < percent; }
    template <typename List>
    const auto& pick(const List& list) {
        return list[below(static_cast<std::uint32_t>(std::size(list)))];
    }

private:
    std::uint64_t state_ = 0;
    BytesView bytes_;
    bool from_bytes_ = false;
};

/// A node with its peers, routes, settings, and rules that make sense or not.
FilterInput random_policy(Dice& dice);
/// Only the rules.
std::vector<FilterRule> random_rules(Dice& dice);

/// The address before or after, or so.
IpAddress near(Dice& dice, const IpAddress& address);
/// An address of that family to ask a policy about.
IpAddress random_address(Dice& dice, bool v4, const std::vector<IpAddress>& edges);
std::uint16_t random_port(Dice& dice, const FilterInput& policy);
std::uint8_t random_protocol(Dice& dice, const FilterInput& policy);

/// Traffic of the node with this policy. `edges`: addresses where something begins or ends.
class RandomTraffic {
public:
    RandomTraffic(Dice& dice, const FilterInput& policy, std::vector<IpAddress> edges)
        : dice_(dice), policy_(policy), edges_(std::move(edges)) {}

    Bytes inbound();
    Bytes outbound();

private:
    struct Flow {
        IpAddress ours, theirs;
        std::uint16_t our_port = 0, their_port = 0;
        std::uint8_t proto = 0;
    };
    /// A packet that a rule may be about, or just not.
    Bytes aimed(const FilterRule& rule);
    IpAddress source(bool v4);
    IpAddress destination(bool v4);
    Bytes finish(Packet packet, bool v4);
    Packet with_transport(const Packet& packet, std::uint8_t proto, bool v4, std::uint16_t dst_port,
                          std::uint16_t src_port);

    Dice& dice_;
    const FilterInput& policy_;
    std::vector<IpAddress> edges_;
    std::vector<Flow> sent_;
};

} // namespace tailrace::test
