// A datagram from anywhere: as a request to our server, and as an answer to our client.
#include "proto/stun.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    BytesView data{reinterpret_cast<const std::byte*>(bytes), size};
    bool stun = stun::looks_like_stun(data);
    auto request = stun::parse_request(data);
    auto response = stun::parse_response(data);
    if ((request || response) && !stun) std::abort();
    if (!response) return 0;
    std::array<std::byte, stun::kMaxResponseSize> again{};
    std::size_t length = stun::write_response(again, response->id, response->seen_from);
    auto same = stun::parse_response(BytesView{again}.first(length));
    if (!same || same->id != response->id || same->seen_from != response->seen_from) std::abort();
    return 0;
}
