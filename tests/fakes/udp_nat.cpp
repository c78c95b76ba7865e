#include "tests/fakes/udp_nat.hpp"

#include <netinet/in.h>

#include <algorithm>

namespace tailrace::fakes {
namespace {

constexpr std::size_t kUdpHeader = 8;

/// Offsets into an IPv4 packet.
constexpr std::size_t kIpChecksum = 10, kSource = 12, kAddresses = 8;

std::uint16_t word(BytesView data, std::size_t at) {
    return static_cast<std::uint16_t>(static_cast<unsigned>(data[at]) << 8 | static_cast<unsigned>(data[at + 1]));
}

void put_word(std::span<std::byte> data, std::size_t at, std::uint16_t value) {
    data[at] = static_cast<std::byte>(value >> 8);
    data[at + 1] = static_cast<std::byte>(value & 0xff);
}

std::uint16_t corrected(std::uint16_t checksum, BytesView before, BytesView after) {
    std::uint32_t sum = static_cast<std::uint16_t>(~checksum);
    for (std::size_t i = 0; i < before.size(); i += 2) sum += static_cast<std::uint16_t>(~word(before, i));
    for (std::size_t i = 0; i < after.size(); i += 2) sum += word(after, i);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

} // namespace

std::optional<Flow> flow_of(BytesView packet) {
    Reader in{packet};
    std::uint8_t first = in.u8();
    in.u8(); // type of service
    std::size_t length = in.be16();
    in.be16(); // identification
    bool is_fragment = (in.be16() & 0x3fff) != 0;
    in.u8(); // time to live
    std::uint8_t protocol = in.u8();
    in.be16(); // checksum
    IpAddress source = IpAddress::v4(in.be32()), destination = IpAddress::v4(in.be32());
    std::size_t header = (first & 0xfu) * 4;
    if (!in.ok() || first >> 4 != 4 || header < 20 || protocol != IPPROTO_UDP || is_fragment) return std::nullopt;
    if (length > packet.size() || length < header + kUdpHeader) return std::nullopt;
    in.bytes(header - 20);
    std::uint16_t source_port = in.be16(), destination_port = in.be16();
    return Flow{{source, source_port}, {destination, destination_port}};
}

void readdress(std::span<std::byte> packet, const Flow& flow) {
    std::size_t udp = (static_cast<std::size_t>(packet[0]) & 0xf) * 4;
    std::span<std::byte> addresses = packet.subspan(kSource, kAddresses), ports = packet.subspan(udp, 4);
    Bytes before = to_bytes(addresses), ports_before = to_bytes(ports);
    BytesView from = flow.from.address.bytes(), to = flow.to.address.bytes();
    std::copy(from.begin(), from.end(), addresses.begin());
    std::copy(to.begin(), to.end(), addresses.begin() + 4);
    put_word(packet, udp, flow.from.port);
    put_word(packet, udp + 2, flow.to.port);
    put_word(packet, kIpChecksum, corrected(word(packet, kIpChecksum), before, addresses));
    std::uint16_t checksum = word(packet, udp + 6);
    if (checksum == 0) return; // the sender made none
    checksum = corrected(corrected(checksum, before, addresses), ports_before, ports);
    put_word(packet, udp + 6, checksum == 0 ? 0xffff : checksum);
}

bool UdpNat::is_inside(const IpAddress& address) const {
    return std::any_of(inside_.begin(), inside_.end(), [&](const IpPrefix& lan) { return lan.contains(address); });
}

std::optional<Flow> UdpNat::translate(TimePoint now, const Flow& flow) {
    if (!is_inside(flow.from.address)) return enter(now, flow);
    if (is_inside(flow.to.address)) return std::nullopt;
    Mapping* mapping = mapping_of(now, flow.from);
    if (mapping == nullptr) return std::nullopt;
    mapping->used = now;
    if (now - mapping->turned >= kLifetime || mapping->newer.size() >= kRemotes) {
        mapping->older = std::exchange(mapping->newer, {});
        mapping->turned = now;
    }
    mapping->newer.insert(flow.to);
    Flow outside{{outside_, ports_.at(flow.from)}, flow.to};
    return flow.to.address == outside_ ? enter(now, outside) : outside;
}

std::optional<Flow> UdpNat::enter(TimePoint now, const Flow& flow) {
    if (flow.to.address != outside_) return std::nullopt;
    Mapping* mapping = mapping_at(now, flow.to.port);
    if (mapping == nullptr || !(mapping->newer.contains(flow.from) || mapping->older.contains(flow.from)))
        return std::nullopt;
    return Flow{flow.from, mapping->inside};
}

UdpNat::Mapping* UdpNat::mapping_at(TimePoint now, std::uint16_t port) {
    auto found = mappings_.find(port);
    if (found == mappings_.end()) return nullptr;
    if (now - found->second.used < kLifetime) return &found->second;
    ports_.erase(found->second.inside);
    mappings_.erase(found);
    return nullptr;
}

UdpNat::Mapping* UdpNat::mapping_of(TimePoint now, const Endpoint& inside) {
    auto known = ports_.find(inside);
    if (known != ports_.end())
        if (Mapping* mapping = mapping_at(now, known->second)) return mapping;
    auto port = free_port(now, inside.port);
    if (!port) return nullptr;
    ports_[inside] = *port;
    return &(mappings_[*port] = Mapping{inside, now, now, {}, {}});
}

std::optional<std::uint16_t> UdpNat::free_port(TimePoint now, std::uint16_t wanted) {
    if (mappings_.size() >= kMappings) {
        std::vector<std::uint16_t> all;
        for (const auto& [port, mapping] : mappings_) all.push_back(port);
        for (std::uint16_t port : all) (void)mapping_at(now, port); // which forgets the old ones
        if (mappings_.size() >= kMappings) return std::nullopt;
    }
    if (wanted >= 1024 && mapping_at(now, wanted) == nullptr) return wanted;
    for (;;) { // there are fewer mappings than ports to try
        std::uint16_t port = next_port_;
        next_port_ = port == 65535 ? kFirstPort : static_cast<std::uint16_t>(port + 1);
        if (mapping_at(now, port) == nullptr) return port;
    }
}

} // namespace tailrace::fakes
