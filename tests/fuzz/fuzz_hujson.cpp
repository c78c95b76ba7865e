// HuJSON: whatever parses also parses after being made plain, means the same, and did not move.
#include "policy/hujson.hpp"

#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    const std::string text{reinterpret_cast<const char*>(data), size};
    auto tree = hujson::Tree::parse(text);
    auto plain = hujson::standardize(text);
    if (static_cast<bool>(tree) != static_cast<bool>(plain)) std::abort();
    if (!tree) return 0;
    if (plain->size() != text.size()) std::abort();
    auto again = hujson::Tree::parse(*plain);
    if (!again || hujson::minimize(*plain, again->root()) != hujson::minimize(text, tree->root())) std::abort();
    return 0;
}
