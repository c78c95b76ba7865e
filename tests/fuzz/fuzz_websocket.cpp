// WebSocket frames of a client, cut in two at any place: the cut must not matter.
#include "base/io/websocket.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) return 0;
    BytesView whole = std::as_bytes(std::span{data + 1, size - 1});
    std::size_t cut = whole.empty() ? 0 : data[0] % (whole.size() + 1);
    WebSocketCodec at_once{WebSocketCodec::Side::Server}, in_two{WebSocketCodec::Side::Server};
    Bytes first, second;
    auto one = at_once.open(whole, first);
    auto two = in_two.open(whole.first(cut), second);
    if (two) two = in_two.open(whole.subspan(cut), second);
    if (static_cast<bool>(one) != static_cast<bool>(two)) std::abort();
    if (one && first != second) std::abort();
    return 0;
}
