// policy/hujson_draft.hpp - a HuJSON document that can be changed without losing its comments.
#pragma once
#include "policy/hujson.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::hujson {

/// One value together with the white space and the comments around it. Whatever is not touched is packed again byte
/// for byte.
struct Draft {
    Kind kind = Kind::Null;
    std::string before;       ///< white space and comments in front of it
    std::string literal;      ///< of everything but arrays and objects: as spelled
    std::vector<Draft> names; ///< of an object: as many as `values`
    std::vector<Draft> values;
    std::string inside; ///< of an array or object: in front of the closing bracket
    /// Behind it, up to the comma. The last child of a container has one (possibly empty) iff a comma follows it.
    std::optional<std::string> after;

    static Draft of(const Tree& tree) { return of(tree.text(), tree.root()); }
    static Draft of(std::string_view text, const Value& value);
    /// A new value without white space; `json` is known to be good.
    static Draft made(std::string_view json);
    /// A string, quoted as the formatter quotes.
    static Draft string(std::string_view text);

    bool is_container() const { return kind == Kind::Array || kind == Kind::Object; }
    /// What a string says; empty for other kinds.
    std::string string_value() const;
    /// The position of the member of that name, in any case; nothing when there is none.
    std::optional<std::size_t> find(std::string_view name) const;

    /// Puts another value in this one's place: white space and comments around it stay, those inside it go.
    void replace(Draft value);
    /// Sets a member, at the end when it is new.
    void set(std::string_view name, Draft value);
    void append(Draft value);
    /// Takes one child out. Its comments move to the next one, or in front of the closing bracket: what people wrote is
    /// theirs to delete.
    void erase(std::size_t child);
    /// Puts a comment of its own line(s) in front of one child.
    void add_comment(std::size_t child, std::string_view text);

    std::string pack() const;

private:
    void pack_into(std::string& out) const;
    std::string& extra_before(std::size_t child);
};

/// Whether there is more than white space in it.
bool has_comment(std::string_view extra);
/// A string literal as the formatter spells it.
std::string quote(std::string_view text);

} // namespace tailrace::hujson
