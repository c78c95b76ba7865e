// base/json/json.hpp - reads and writes structs by their field tables, with Go's conventions (control-protocol.md 5.8).
//
// Names match exactly, else ignoring case; unknown members are ignored; null leaves a scalar alone and empties a list.
// Integers must be plain integer tokens in range. Bytes are base64, times RFC 3339, types with text() and parse()
// strings. This header is heavy: include it in .cpp files, and base/json/fields.hpp in headers.
#pragma once
#include "base/boxed.hpp"
#include "base/bytes.hpp"
#include "base/json/fields.hpp"
#include "base/result.hpp"
#include "base/text.hpp"

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include <charconv>
#include <concepts>
#include <limits>
#include <map>
#include <optional>
#include <vector>

namespace tailrace::json {

/// Parses one whole document (trailing white space allowed). Nesting is limited to 64.
Result<boost::json::value> parse_value(std::string_view text);
std::string write_value(const boost::json::value& value);
void append_string(std::string& out, std::string_view text);
void append_double(std::string& out, double number);
Error type_error(const boost::json::value& got, const char* wanted);
/// By its exact name, else ignoring case; null when there is none.
const boost::json::value* find_member(const boost::json::object& object, std::string_view name);
Error within(const Error& error, std::string_view member);

namespace detail {

template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <typename T>
struct IsOptional<Boxed<T>> : std::true_type {};
template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};
template <typename T>
struct IsMap : std::false_type {};
template <typename K, typename V, typename C>
struct IsMap<std::map<K, V, C>> : std::true_type {};

template <typename T>
struct IsKept : std::false_type {};
template <typename T>
struct IsKept<Kept<T>> : std::true_type {};

template <typename T>
concept HasFields = requires {
    JsonFields<T>::fields;
};
template <typename T>
concept IsText = requires(const T& t, std::string_view v) {
    { t.text() } -> std::convertible_to<std::string>;
    { T::parse(v) } -> std::same_as<Result<T>>;
};

template <typename T>
bool is_empty(const T& value) {
    if constexpr (IsOptional<T>::value) {
        if constexpr (IsVector<typename T::value_type>::value || IsMap<typename T::value_type>::value)
            return !value || value->empty();
        else
            return !value;
    } else if constexpr (std::same_as<T, RawJson>) {
        return value.text.empty();
    } else if constexpr (requires { value.empty(); }) {
        return value.empty();
    } else if constexpr (std::is_arithmetic_v<T>) {
        return value == T{};
    } else if constexpr (requires { value == T{}; }) {
        return value == T{};
    } else {
        return false;
    }
}

template <typename T>
bool is_zero(const T& value) {
    if constexpr (IsOptional<T>::value)
        return !value;
    else
        return is_empty(value);
}

} // namespace detail

template <typename T>
void append(std::string& out, const T& value) {
    using namespace detail;
    if constexpr (std::same_as<T, bool>) {
        out += value ? "true" : "false";
    } else if constexpr (std::integral<T>) {
        char digits[24];
        out.append(digits, static_cast<std::size_t>(std::to_chars(digits, digits + sizeof digits, value).ptr - digits));
    } else if constexpr (std::floating_point<T>) {
        append_double(out, value);
    } else if constexpr (std::convertible_to<T, std::string_view>) {
        append_string(out, value);
    } else if constexpr (IsKept<T>::value) {
        if (value.text.empty())
            append(out, value.value);
        else
            out += value.text;
    } else if constexpr (std::same_as<T, RawJson> || std::same_as<T, RawJsonView>) {
        out += value.text.empty() ? std::string_view{"null"} : std::string_view{value.text};
    } else if constexpr (std::same_as<T, boost::json::value>) {
        out += write_value(value);
    } else if constexpr (std::same_as<T, Bytes>) {
        if (value.empty()) {
            out += "null";
        } else {
            out += '"';
            out += base64_encode(value);
            out += '"';
        }
    } else if constexpr (IsOptional<T>::value) {
        if (value)
            append(out, *value);
        else
            out += "null";
    } else if constexpr (IsVector<T>::value) {
        out += '[';
        bool first = true;
        for (const auto& element : value) {
            if (!first) out += ',';
            first = false;
            append<typename T::value_type>(out, element);
        }
        out += ']';
    } else if constexpr (IsMap<T>::value) {
        out += '{';
        bool first = true;
        for (const auto& [key, element] : value) {
            if (!first) out += ',';
            first = false;
            if constexpr (std::integral<typename T::key_type>) {
                out += '"';
                append(out, key);
                out += '"';
            } else if constexpr (IsText<typename T::key_type>) {
                append_string(out, key.text());
            } else {
                append_string(out, key);
            }
            out += ':';
            append(out, element);
        }
        out += '}';
    } else if constexpr (IsText<T>) {
        append_string(out, value.text());
    } else {
        static_assert(HasFields<T>, "give the struct a JsonFields table");
        out += '{';
        bool first = true;
        auto one = [&](const auto& f) {
            const auto& member = value.*(f.member);
            if (f.omit == Omit::Empty && is_empty(member)) return;
            if (f.omit == Omit::Zero && is_zero(member)) return;
            if (!first) out += ',';
            first = false;
            append_string(out, f.name);
            out += ':';
            append(out, member);
        };
        JsonFields<T>::fields.each(one);
        out += '}';
    }
}

template <typename T>
std::string write(const T& value) {
    std::string out;
    append(out, value);
    return out;
}

template <typename T>
Result<void> read(const boost::json::value& from, T& into);

namespace detail {

template <typename T>
Result<void> read_fields(const boost::json::object& object, T& into) {
    Result<void> outcome;
    JsonFields<T>::fields.each([&](const auto& f) {
        if (!outcome) return;
        const boost::json::value* member = find_member(object, f.name);
        if (member == nullptr) return;
        if (auto done = read(*member, into.*(f.member)); !done) outcome = within(done.error(), f.name);
    });
    return outcome;
}

template <typename Key>
Result<Key> read_key(std::string_view text) {
    if constexpr (std::integral<Key>)
        return parse_number<Key>(text);
    else if constexpr (IsText<Key>)
        return Key::parse(text);
    else
        return Key{text};
}

} // namespace detail

template <typename T>
Result<void> read(const boost::json::value& from, T& into) {
    using namespace detail;
    if constexpr (std::same_as<T, boost::json::value>) {
        into = from;
    } else if constexpr (std::same_as<T, RawJson>) {
        into.text = write_value(from);
    } else if (from.is_null()) {
        if constexpr (IsOptional<T>::value)
            into.reset();
        else if constexpr (IsVector<T>::value || IsMap<T>::value)
            into.clear();
    } else if constexpr (std::same_as<T, bool>) {
        if (!from.is_bool()) return type_error(from, "true or false");
        into = from.get_bool();
    } else if constexpr (std::integral<T>) {
        if (from.is_int64() && std::in_range<T>(from.get_int64()))
            into = static_cast<T>(from.get_int64());
        else if (from.is_uint64() && std::in_range<T>(from.get_uint64()))
            into = static_cast<T>(from.get_uint64());
        else
            return type_error(from, "an integer in range");
    } else if constexpr (std::floating_point<T>) {
        if (!from.is_number()) return type_error(from, "a number");
        into = from.to_number<T>();
    } else if constexpr (std::same_as<T, std::string>) {
        if (!from.is_string()) return type_error(from, "a string");
        into.assign(from.get_string().begin(), from.get_string().end());
    } else if constexpr (std::same_as<T, Bytes>) {
        if (!from.is_string()) return type_error(from, "base64 text");
        auto decoded = base64_decode(std::string_view{from.get_string().data(), from.get_string().size()});
        if (!decoded) return decoded.error();
        into = std::move(*decoded);
    } else if constexpr (IsOptional<T>::value) {
        into.emplace();
        return read(from, *into);
    } else if constexpr (IsKept<T>::value) {
        if (auto done = read(from, into.value); !done) return done;
        into.text = write_value(from);
    } else if constexpr (IsVector<T>::value) {
        if (!from.is_array()) return type_error(from, "a list");
        into.clear();
        into.reserve(from.get_array().size());
        for (const auto& element : from.get_array()) {
            typename T::value_type item{};
            if (auto done = read(element, item); !done) return done.error().with("[{}]", into.size());
            into.push_back(std::move(item));
        }
    } else if constexpr (IsMap<T>::value) {
        if (!from.is_object()) return type_error(from, "an object");
        into.clear();
        for (const auto& member : from.get_object()) {
            std::string_view name{member.key().data(), member.key().size()};
            auto key = read_key<typename T::key_type>(name);
            if (!key) return key.error();
            if (auto done = read(member.value(), into[std::move(*key)]); !done) return within(done.error(), name);
        }
    } else if constexpr (IsText<T>) {
        if (!from.is_string()) return type_error(from, "a string");
        auto parsed = T::parse(std::string_view{from.get_string().data(), from.get_string().size()});
        if (!parsed) return parsed.error();
        into = std::move(*parsed);
    } else {
        static_assert(HasFields<T>, "give the struct a JsonFields table");
        if (!from.is_object()) return type_error(from, "an object");
        return read_fields(from.get_object(), into);
    }
    return {};
}

template <typename T>
Result<T> parse(std::string_view text) {
    auto value = parse_value(text);
    if (!value) return value.error();
    T out{};
    if (auto done = read(*value, out); !done) return done.error();
    return out;
}

} // namespace tailrace::json
