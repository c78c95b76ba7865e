// Packet filters made of the fuzzer's bytes: the compiled tables say what the rules say, also when they follow another
// policy; and where they do not fit, they are narrower.
#include "tests/fuzz/filter_twins.hpp"

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    test::Dice dice{std::as_bytes(std::span{data, size})};
    TableNumbers numbers;
    FilterInput input = test::random_policy(dice);
    test::compare_twins(input, compile_tables(input, numbers), dice, test::Agreement::Exact);
    input.rules = test::random_rules(dice);
    test::compare_twins(input, compile_tables(input, numbers), dice, test::Agreement::Exact);

    if (!dice.chance(20)) return 0; // the search for what fits compiles many times
    TableLimits limits;
    limits.hosts = 10 + dice.below(20);
    limits.nets = 10 + dice.below(60);
    limits.pairs = dice.below(8);
    limits.rows = dice.below(20);
    test::compare_twins(input, compile_tables(input, numbers, limits), dice, test::Agreement::Narrower);
    return 0;
}
