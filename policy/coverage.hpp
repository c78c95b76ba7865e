// policy/coverage.hpp - is all that one rule allows allowed by several others together? Internal to policy/.
#pragma once
#include "policy/containment.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace tailrace {

/// Packets as a box: any of the sources to any of the destinations, by one protocol, to any of the ports.
struct PacketBox {
    struct Side {
        BitSet nodes;        ///< numbers of Directory::addresses()
        AddressSet ranges;   ///< what words mean
        AddressSet internet; ///< by way of exit nodes

        bool empty() const { return nodes.empty() && ranges.empty() && internet.empty(); }
    };
    Side source, destination;
    int protocol = 0;
    std::vector<PortRange> ports; ///< disjoint, in order, without port 0
};

/// Of rules about ports whose sources do not depend on the receiver, and without `via`. Pings are not counted: they
/// pass wherever anything passes.
std::optional<std::vector<PacketBox>> boxes_of(const Rule& rule, const Directory& directory);

/// What is left of some boxes when others are taken away.
struct BoxRemainder {
    std::vector<PacketBox> boxes;
    bool touched = false;  ///< something was taken
    bool too_many = false; ///< to say what is left: nothing was taken
};
BoxRemainder without(const std::vector<PacketBox>& boxes, const std::vector<PacketBox>& others);

} // namespace tailrace
