// base/json/fields.hpp - how a struct says which JSON members it has. No JSON library in sight: fit for any header.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace tailrace {

/// When a member is left out on writing. Empty is Go's omitempty, Zero is Go's omitzero (control-protocol.md 5.8);
/// they differ only for std::optional of a list or map: Empty drops an empty one, Zero writes it.
enum class Omit { Never, Empty, Zero };

template <typename Struct, typename Member>
struct JsonField {
    const char* name;
    Member Struct::*member;
    Omit omit;
};

template <typename Struct, typename Member>
constexpr JsonField<Struct, Member> field(const char* name, Member Struct::*member, Omit omit = Omit::Never) {
    return {name, member, omit};
}

template <std::size_t Index, typename Field>
struct FieldAt {
    Field field;
};
template <typename Indices, typename... Fields>
struct FieldTable;
/// What std::tuple would do too, at a tenth of the compiler's time for a table of 40 fields.
template <std::size_t... Index, typename... Fields>
struct FieldTable<std::index_sequence<Index...>, Fields...> : FieldAt<Index, Fields>... {
    constexpr explicit FieldTable(Fields... fields) : FieldAt<Index, Fields>{fields}... {}

    template <typename Visitor>
    constexpr void each(Visitor&& visit) const {
        (visit(FieldAt<Index, Fields>::field), ...);
    }
};
template <typename... Fields>
constexpr auto field_table(Fields... fields) {
    return FieldTable<std::index_sequence_for<Fields...>, Fields...>{fields...};
}

/// Specialise for a struct: `static constexpr auto fields = field_table(field("ID", &Login::id), ...);` in wire order.
template <typename Struct>
struct JsonFields;

/// JSON that is passed through unread. Empty text stands for null.
struct RawJson {
    std::string text;
    bool operator==(const RawJson&) const = default;
};

/// Write only: JSON that somebody else keeps, spliced in unread. Empty text stands for null.
struct RawJsonView {
    std::string_view text;
    bool empty() const { return text.empty(); }
};

/// A struct as it was read, and beside it the text it was read from, so that members we do not know survive.
/// Writing prefers the text; an empty text writes the value.
template <typename T>
struct Kept {
    T value;
    std::string text;
    bool empty() const { return text.empty() && value == T{}; }
    bool operator==(const Kept&) const = default;
};

} // namespace tailrace
