#include "agent/path/icmp_error.hpp"

#include <net/if.h> // first: linux/icmp.h brings a header of the kernel that gives way to it

#include <linux/icmp.h>
#include <netinet/in.h>

namespace tailrace {
namespace {

struct Ipv4 {
    std::uint8_t protocol = 0;
    IpAddress from, to;
};

/// Takes an IPv4 header with its options.
std::optional<Ipv4> read_ipv4(Reader& in) {
    std::uint8_t first = in.u8();
    (void)in.array<8>(); // service, length, identification, fragment, time to live
    Ipv4 out;
    out.protocol = in.u8();
    (void)in.be16(); // checksum
    out.from = IpAddress::v4(in.be32());
    out.to = IpAddress::v4(in.be32());
    std::size_t bytes = (first & 0x0f) * 4u;
    if (!in.ok() || (first >> 4) != 4 || bytes < 20) return std::nullopt;
    (void)in.bytes(bytes - 20); // options
    return out;
}

} // namespace

std::optional<IcmpError> parse_icmp_error(BytesView packet) {
    Reader in{packet};
    auto outer = read_ipv4(in);
    if (!outer || outer->protocol != IPPROTO_ICMP) return std::nullopt;
    IcmpError out;
    std::uint8_t type = in.u8();
    out.code = in.u8();
    (void)in.be16(); // checksum
    (void)in.be32();
    auto ours = read_ipv4(in);
    if (!ours || ours->protocol != IPPROTO_UDP) return std::nullopt;
    out.from = {ours->from, in.be16()};
    out.to = {ours->to, in.be16()};
    if (!in.ok() || type != ICMP_DEST_UNREACH || out.code == ICMP_FRAG_NEEDED) return std::nullopt;
    return out;
}

} // namespace tailrace
