// A packet that a raw ICMP socket received, from anybody.
#include "agent/path/icmp_error.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    auto error = parse_icmp_error({reinterpret_cast<const std::byte*>(bytes), size});
    if (error && (!error->from.address.is_v4() || !error->to.address.is_v4() || size < 48)) std::abort();
    return 0;
}
