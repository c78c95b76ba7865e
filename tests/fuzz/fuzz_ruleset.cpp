// What a program called nft prints.
#include "agent/doctor/ruleset.hpp"

#include <cstdint>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    DoctorFacts facts;
    (void)read_ruleset({reinterpret_cast<const char*>(bytes), size}, facts);
    return 0;
}
