// Any text as tailraced.yaml: it is refused with the name of the file, or gives preferences that make sense.
#include "agent/config/config.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    if (size > 4096) return 0; // yaml-cpp goes down a level of its stack for each level of the text
    auto config = parse_agent_config({reinterpret_cast<const char*>(bytes), size}, "f");
    if (!config) {
        if (!config.error().message().starts_with("f:")) std::abort();
        return 0;
    }
    auto prefs = declared_prefs(*config, Prefs{});
    if (!prefs || !check_prefs(*prefs)) std::abort();
    return 0;
}
