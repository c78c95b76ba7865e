// The plaintext of a disco packet, which a peer has sealed: what is understood is written and read again the same.
#include "proto/disco.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    BytesView data{reinterpret_cast<const std::byte*>(bytes), size};
    auto message = parse_disco_message(data);
    if (!message) return 0;
    auto again = parse_disco_message(write_disco_message(*message));
    if (!again || *again != *message) std::abort();
    return 0;
}
