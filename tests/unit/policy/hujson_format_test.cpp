#include "base/file.hpp"
#include "base/json/json.hpp"
#include "policy/hujson_format.hpp"
#include "tests/unit/vectors.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

struct Vector {
    std::string in, want;
};

} // namespace

template <>
struct JsonFields<Vector> {
    static constexpr auto fields = field_table(field("in", &Vector::in), field("want", &Vector::want));
};

namespace {

std::string formatted(std::string_view text) {
    auto out = hujson::format(text);
    return out ? *out : out.error().message();
}

hujson::Draft draft_of(std::string_view text) {
    auto tree = hujson::Tree::parse(std::string{text});
    EXPECT_TRUE(tree) << tree.error().message();
    return hujson::Draft::of(*tree);
}

std::string packed(hujson::Draft draft) {
    hujson::format(draft);
    return draft.pack();
}

TEST(HujsonFormat, LaysOutAsTheReferenceLibraryDoes) {
    auto text = read_file(vector_file("hujson/format.json"));
    ASSERT_TRUE(text) << text.error().message();
    auto vectors = json::parse<std::vector<Vector>>(*text);
    ASSERT_TRUE(vectors) << vectors.error().message();
    EXPECT_GE(vectors->size(), 39U);
    for (const auto& vector : *vectors) {
        EXPECT_EQ(formatted(vector.in), vector.want) << vector.in;
        EXPECT_EQ(formatted(vector.want), vector.want) << "not stable";
        EXPECT_EQ(draft_of(vector.in).pack(), vector.in) << "not kept as it was";
    }
}

TEST(HujsonFormat, SaysWhereATextIsBroken) {
    EXPECT_EQ(formatted("{\n  \"a\": ]\n}"), "hujson: line 2, column 8: invalid character ']' at start of value");
}

TEST(HujsonDraft, ChangesAMemberAndKeepsTheCommentsAroundIt) {
    auto draft = draft_of("{\n  // who\n  \"a\": 1, // one\n  \"b\": 2,\n}\n");
    draft.set("a", hujson::Draft::made("[3]"));
    EXPECT_EQ(packed(draft), "{\n\t// who\n\t\"a\": [3], // one\n\t\"b\": 2,\n}\n");
}

TEST(HujsonDraft, AddsMembersBehindTheLastComment) {
    auto draft = draft_of("{\n  \"a\": 1 // one\n  // the end\n}\n");
    draft.set("b", hujson::Draft::string("x\"y"));
    EXPECT_EQ(packed(draft), "{\n\t\"a\": 1, // one\n\t// the end\n\t\"b\": \"x\\\"y\",\n}\n");
    auto empty = draft_of("{}");
    empty.set("b", hujson::Draft::made("true"));
    EXPECT_EQ(packed(empty), "{\"b\": true}\n");
}

TEST(HujsonDraft, KeepsTheCommentsOfWhatItTakesOut) {
    auto draft = draft_of("[\n  // first\n  1, // one\n  // second\n  2, // two\n]\n");
    draft.erase(1);
    EXPECT_EQ(packed(draft), "[\n\t// first\n\t1, // one\n\t// second\n\t// two\n]\n");
    auto first = draft_of("[\n  // first\n  1, // one\n  // second\n  2, // two\n]\n");
    first.erase(0);
    EXPECT_EQ(packed(first), "[\n\t// first\n\t// one\n\t// second\n\t2, // two\n]\n");
    auto only = draft_of("[/* why */ 1]");
    only.erase(0);
    EXPECT_EQ(packed(only), "[ /* why */\n]\n");
}

TEST(HujsonDraft, PutsACommentInFrontOfAChild) {
    auto draft = draft_of("{\"a\": 1, \"b\": 2}");
    draft.add_comment(1, "two\nlines");
    EXPECT_EQ(packed(draft), "{\n\t\"a\": 1,\n\t// two\n\t// lines\n\t\"b\": 2,\n}\n");
}

} // namespace
} // namespace tailrace
