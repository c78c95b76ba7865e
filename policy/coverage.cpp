// policy/coverage.cpp - subtracts boxes.
#include "policy/coverage.hpp"

#include "policy/address_set.hpp"

#include <algorithm>

namespace tailrace {
namespace {

using Side = PacketBox::Side;
constexpr std::size_t kMostBoxes = 512;

const std::vector<IpRange>& everywhere() {
    static const std::vector<IpRange> kAll = {IpRange::of(*IpPrefix::parse("0.0.0.0/0")),
                                              IpRange::of(*IpPrefix::parse("::/0"))};
    return kAll;
}

void insert_nodes_in(const std::vector<IpRange>& ranges, const Directory& directory, BitSet& nodes) {
    for (const auto& range : ranges)
        directory.for_each_address_in(range, [&](std::uint32_t address) { nodes.insert(address); });
}

Side side_of(const SourceSet& sources, const Directory& directory) {
    Side side{sources.addresses, AddressSet{sources.everything ? everywhere() : sources.ranges.ranges()}, {}};
    if (sources.everything)
        side.nodes = BitSet::full(directory.addresses().size());
    else
        insert_nodes_in(side.ranges.ranges(), directory, side.nodes);
    return side;
}

Side side_of(const RuleDestination& destination, const Directory& directory) {
    Side side{BitSet{directory.addresses().size()}, {}, {}};
    switch (destination.kind) {
    case RuleDestination::Kind::Everything:
        return {BitSet::full(directory.addresses().size()), AddressSet{everywhere()}, AddressSet{internet_ranges()}};
    case RuleDestination::Kind::Internet:
        side.internet = AddressSet{internet_ranges()};
        break;
    case RuleDestination::Kind::Nodes:
        destination.nodes.for_each([&](std::size_t node) {
            for (const auto address : directory.addresses_of(static_cast<NodeIndex>(node))) side.nodes.insert(address);
        });
        break;
    case RuleDestination::Kind::Ranges: {
        std::vector<IpRange> ranges;
        for (const auto& [range, text] : destination.ranges) ranges.push_back(range);
        insert_nodes_in(ranges, directory, side.nodes);
        side.ranges = AddressSet{std::move(ranges)};
        break;
    }
    }
    return side;
}

AddressSet without(AddressSet from, const AddressSet& taken) {
    for (const auto& range : taken.ranges()) from.remove(range);
    return from;
}

/// Ranges reach the internet through an exit node too; what it serves is not what a router of a network serves.
Side without(const Side& from, const Side& taken) {
    Side left;
    left.nodes = from.nodes;
    if (left.nodes.intersects(taken.nodes)) taken.nodes.for_each([&](std::size_t node) { left.nodes.erase(node); });
    left.ranges = without(from.ranges, taken.ranges);
    left.internet = without(without(from.internet, taken.internet), taken.ranges);
    return left;
}

Side common(const Side& from, const Side& other) {
    return without(from, without(from, other));
}

/// Sorted and joined; nothing has port 0.
std::vector<PortRange> tidy(std::vector<PortRange> ports) {
    std::sort(ports.begin(), ports.end(), [](PortRange a, PortRange b) { return a.first < b.first; });
    std::vector<PortRange> out;
    for (auto range : ports) {
        range.first = std::max<std::uint16_t>(range.first, 1);
        if (range.first > range.last) continue;
        if (!out.empty() && range.first <= out.back().last + 1U)
            out.back().last = std::max(out.back().last, range.last);
        else
            out.push_back(range);
    }
    return out;
}

std::vector<PortRange> without(const std::vector<PortRange>& ports, const std::vector<PortRange>& taken) {
    std::vector<PortRange> left;
    for (const auto& range : ports) {
        unsigned next = range.first;
        for (const auto& part : taken) {
            if (part.last < next || part.first > range.last) continue;
            if (part.first > next)
                left.push_back({static_cast<std::uint16_t>(next), static_cast<std::uint16_t>(part.first - 1)});
            next = part.last + 1U;
        }
        if (next <= range.last) left.push_back({static_cast<std::uint16_t>(next), range.last});
    }
    return left;
}

bool share_a_port(const std::vector<PortRange>& a, const std::vector<PortRange>& b) {
    return std::any_of(a.begin(), a.end(), [&](PortRange one) {
        return std::any_of(b.begin(), b.end(),
                           [&](PortRange other) { return one.first <= other.last && other.first <= one.last; });
    });
}

bool meet(const AddressSet& a, const AddressSet& b) {
    return std::any_of(a.ranges().begin(), a.ranges().end(), [&](const IpRange& range) { return b.overlaps(range); });
}
bool meet(const Side& a, const Side& b) {
    return a.nodes.intersects(b.nodes) || meet(a.ranges, b.ranges) || meet(a.internet, b.internet) ||
           meet(a.internet, b.ranges);
}
bool meet(const PacketBox& box, const PacketBox& taken) {
    return box.protocol == taken.protocol && share_a_port(box.ports, taken.ports) && meet(box.source, taken.source) &&
           meet(box.destination, taken.destination);
}

/// Of boxes that meet. Adds up to three: those sources that `taken` has not, of the others those destinations, of these
/// those ports.
void subtract(const PacketBox& box, const PacketBox& taken, std::vector<PacketBox>& left) {
    auto source = common(box.source, taken.source);
    auto destination = common(box.destination, taken.destination);
    if (auto rest = without(box.source, taken.source); !rest.empty())
        left.push_back({std::move(rest), box.destination, box.protocol, box.ports});
    if (auto rest = without(box.destination, taken.destination); !rest.empty())
        left.push_back({source, std::move(rest), box.protocol, box.ports});
    if (auto rest = without(box.ports, taken.ports); !rest.empty())
        left.push_back({std::move(source), std::move(destination), box.protocol, std::move(rest)});
}

} // namespace

std::optional<std::vector<PacketBox>> boxes_of(const Rule& rule, const Directory& directory) {
    if (rule.kind != Rule::Kind::Ports || rule.via || rule.self) return std::nullopt;
    std::vector<PacketBox> boxes;
    const auto source = side_of(*rule.sources, directory);
    for (const auto& destination : rule.destinations) {
        const auto side = side_of(destination, directory);
        const auto ports = tidy(destination.ports);
        if (source.empty() || side.empty() || ports.empty()) continue;
        for (const int protocol : rule.protocols.empty() ? std::vector<int>{6, 17} : rule.protocols)
            boxes.push_back({source, side, protocol, ports});
    }
    return boxes;
}

BoxRemainder without(const std::vector<PacketBox>& boxes, const std::vector<PacketBox>& others) {
    BoxRemainder out{boxes, false, false};
    for (const auto& taken : others) {
        const auto meets = [&](const PacketBox& box) { return meet(box, taken); };
        const auto first = std::find_if(out.boxes.begin(), out.boxes.end(), meets);
        if (first == out.boxes.end()) continue;
        out.touched = true;
        std::vector<PacketBox> left{out.boxes.begin(), first};
        for (auto box = first; box != out.boxes.end(); ++box) {
            if (meets(*box))
                subtract(*box, taken, left);
            else
                left.push_back(std::move(*box));
        }
        if (left.size() > kMostBoxes) return {boxes, false, true};
        out.boxes = std::move(left);
    }
    return out;
}

} // namespace tailrace
