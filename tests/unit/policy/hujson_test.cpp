#include "policy/hujson.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

std::string problem_of(std::string text) {
    auto tree = hujson::Tree::parse(std::move(text));
    return tree ? "none" : tree.error().message();
}

TEST(HuJson, ReadsCommentsAndOneTrailingComma) {
    auto tree = hujson::Tree::parse("// who\n{ \"a\" /* x */ : [1, 2,], /* last */ }\n");
    ASSERT_TRUE(tree) << tree.error().message();
    ASSERT_EQ(tree->root().members.size(), 1U);
    EXPECT_EQ(tree->root().find("a")->elements.size(), 2U);
}

TEST(HuJson, KnowsWhereEverythingStands) {
    auto tree = hujson::Tree::parse("{\n  \"name\": \"value\"\n}");
    ASSERT_TRUE(tree);
    EXPECT_EQ(tree->position_of(*tree->root().find("name")).text(), "line 2, column 11");
}

TEST(HuJson, CountsColumnsInBytes) {
    EXPECT_EQ(problem_of("[\"\u00e9\u00e9\" x]"),
              "hujson: line 1, column 9: invalid character 'x' after array value (expecting ',' or ']')");
}

TEST(HuJson, DecodesEscapes) {
    auto tree = hujson::Tree::parse(R"("a\u00e9\n\ud83d\ude00\/")");
    ASSERT_TRUE(tree);
    EXPECT_EQ(tree->root().text, "a\u00e9\n\U0001F600/");
}

TEST(HuJson, SaysWhatIsWrongLikeTheReferenceLibrary) {
    EXPECT_EQ(problem_of(""), "hujson: line 1, column 1: parsing value: unexpected EOF");
    EXPECT_EQ(problem_of("null//"), "hujson: line 1, column 5: parsing comment: unexpected EOF");
    EXPECT_EQ(problem_of("null,"), "hujson: line 1, column 5: invalid character ',' after top-level value");
    EXPECT_EQ(problem_of("[,]"), "hujson: line 1, column 2: invalid character ',' at start of value");
    EXPECT_EQ(problem_of("{\"a\":]}"), "hujson: line 1, column 6: invalid character ']' at start of value");
    EXPECT_EQ(problem_of("{null:1}"), "hujson: line 1, column 2: invalid character 'n' at start of object name");
    EXPECT_EQ(problem_of("{\"a\" 1}"), "hujson: line 1, column 6: invalid character '1' after object name");
    EXPECT_EQ(problem_of("{\"a\":1\n \"b\":2}"),
              "hujson: line 2, column 2: invalid character '\"' after object value (expecting ',' or '}')");
    EXPECT_EQ(problem_of("{\"a\""), "hujson: line 1, column 5: parsing object after name: unexpected EOF");
    EXPECT_EQ(problem_of("{\"a\":1"), "hujson: line 1, column 7: parsing object after value: unexpected EOF");
    EXPECT_EQ(problem_of("[1"), "hujson: line 1, column 3: parsing array after value: unexpected EOF");
    EXPECT_EQ(problem_of("\"a"), "hujson: line 1, column 3: parsing string: unexpected EOF");
    EXPECT_EQ(problem_of("01"), "hujson: line 1, column 1: invalid literal: 01");
    EXPECT_EQ(problem_of("\"\\x41\""), "hujson: line 1, column 1: invalid literal: \"\\x41\"");
    EXPECT_EQ(problem_of("'a'"), "hujson: line 1, column 1: invalid character '\\'' at start of value");
    EXPECT_EQ(problem_of("\xff"), "hujson: line 1, column 1: invalid character '\\xff' at start of value");
    EXPECT_EQ(problem_of("\xef\xbb\xbf{}"), "hujson: line 1, column 1: invalid character '\\ufeff' at start of value");
    EXPECT_EQ(problem_of("/*\xff*/1"), "hujson: line 1, column 1: invalid UTF-8 in comment");
}

TEST(HuJson, RefusesToNestForever) {
    EXPECT_EQ(problem_of(std::string(400, '[') + std::string(400, ']')), "none");
    EXPECT_EQ(problem_of(std::string(1'000'000, '[')), "hujson: line 1, column 501: nested deeper than 500 levels");
}

TEST(HuJson, StandardizesWithoutMovingAnything) {
    const std::string text = "{ // one\n\t\"a\": [1,/*x*/],\n}\n";
    auto plain = hujson::standardize(text);
    ASSERT_TRUE(plain);
    EXPECT_EQ(*plain, "{       \n\t\"a\": [1      ] \n}\n");
    EXPECT_EQ(plain->size(), text.size());
}

TEST(HuJson, MinimizesAndKeepsSpelling) {
    const std::string text = "{ \"b\" : 1.50, // no\n \"a\": [ \"\\u0041\", ] }";
    auto tree = hujson::Tree::parse(text);
    ASSERT_TRUE(tree);
    EXPECT_EQ(hujson::minimize(text, tree->root()), R"({"b":1.50,"a":["\u0041"]})");
}

} // namespace
} // namespace tailrace
