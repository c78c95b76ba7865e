// What a raw socket gives for UDP: the first byte says which family and, with the second, which port is ours.
#include "agent/path/raw_listener.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    if (size < 2) return 0;
    auto port = static_cast<std::uint16_t>(bytes[0] << 8 | bytes[1]);
    BytesView packet{reinterpret_cast<const std::byte*>(bytes) + 2, size - 2};
    for (bool v6 : {false, true}) {
        auto datagram = parse_raw_udp(packet, v6, IpAddress::v4(0x7f000001), port);
        if (datagram && datagram->data.size() + 8 > packet.size()) std::abort();
    }
    return 0;
}
