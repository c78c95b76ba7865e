// policy/hujson.hpp - JSON with comments and trailing commas, as a tree whose nodes know where they stand.
#pragma once
#include "base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::hujson {

/// Where something stands in a text: both count from 1, columns are bytes, as editors and CI annotations want them.
struct Position {
    std::size_t line = 1;
    std::size_t column = 1;

    /// "line 3, column 7"
    std::string text() const;
};

Position position_of(std::string_view text, std::size_t offset);

/// What an Error of Tree::parse says, apart from its place.
struct SyntaxError {
    std::string message;
    Position position;
};

enum class Kind : std::uint8_t { Null, Bool, Number, String, Array, Object };

/// "null", "boolean", "number", ... for messages.
const char* name_of(Kind kind);

struct Member;

/// One value with its place. `begin` and `end` bound the literal; the white space and the comments that belong to it
/// reach from `extra_begin` to `extra_end`.
struct Value {
    Kind kind = Kind::Null;
    bool truth = false; // of a Bool
    std::uint32_t extra_begin = 0;
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    std::uint32_t extra_end = 0;
    std::string text; // a String decoded, a Number as it is spelled
    std::vector<Value> elements;
    std::vector<Member> members;

    /// The member of that exact name, or nothing.
    const Value* find(std::string_view name) const;
};

struct Member {
    Value name;
    Value value;
};

/// JSON with comments and trailing commas, as a tree whose nodes know their offsets. Duplicate names are kept: what
/// they mean is for the reader of the tree to say.
class Tree {
public:
    /// Nesting deeper than this is an error: the tree is walked recursively.
    static constexpr int kMaxDepth = 500;
    /// Offsets are 32 bits wide, and nobody writes a policy of this size by hand.
    static constexpr std::size_t kMaxBytes = std::size_t{256} << 20;

    /// Errors read "hujson: line 2, column 5: invalid character '}' at start of value".
    static Result<Tree> parse(std::string text, SyntaxError* details = nullptr);

    const std::string& text() const { return text_; }
    const Value& root() const { return root_; }
    Position position_of(const Value& value) const { return hujson::position_of(text_, value.begin); }

private:
    std::string text_;
    Value root_;
};

/// The same document as plain JSON: comment bytes and trailing commas become spaces, so offsets and lines stay what
/// they were.
Result<std::string> standardize(std::string_view text);

/// A value as plain JSON without white space, comments and trailing commas; literals keep their spelling.
std::string minimize(std::string_view document, const Value& value);

} // namespace tailrace::hujson
