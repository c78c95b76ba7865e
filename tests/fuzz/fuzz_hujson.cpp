// A policy as somebody posts it: HuJSON, then everything that can be said about it without the tailnet.
#include "policy/document.hpp"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    (void)tailrace::Document::parse({reinterpret_cast<const char*>(data), size});
    return 0;
}
