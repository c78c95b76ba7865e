// policy/hujson_draft.cpp - takes a document apart into pieces that can be changed, and packs them again.
#include "policy/hujson_draft.hpp"

#include "base/text.hpp"

#include <fmt/format.h>

namespace tailrace::hujson {
namespace {

std::string between(std::string_view text, std::uint32_t begin, std::uint32_t end) {
    return std::string{text.substr(begin, end - begin)};
}

/// Only its comments, each on a line of its own; what stands behind the token before, on its line, may stay there.
std::string comments_of(std::string_view extra, bool first_may_stay = false) {
    std::string out;
    while (!extra.empty()) {
        const auto begin = extra.find('/');
        if (begin == std::string_view::npos) break;
        first_may_stay = first_may_stay && extra.substr(0, begin).find('\n') == std::string_view::npos;
        extra.remove_prefix(begin);
        const bool line = extra.starts_with("//");
        const auto found = line ? extra.find('\n') : extra.find("*/", 2);
        const auto size = found == std::string_view::npos ? extra.size() : line ? found : found + 2;
        out += first_may_stay ? " " : "\n";
        out += extra.substr(0, size);
        first_may_stay = false;
        extra.remove_prefix(size);
    }
    return out.empty() ? out : out + "\n";
}

} // namespace

bool has_comment(std::string_view extra) {
    return extra.find_first_not_of(" \t\r\n") != std::string_view::npos;
}

std::string quote(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        switch (c) {
        case '\b':
            out += "\\b";
            break;
        case '\t':
            out += "\\t";
            break;
        case '\n':
            out += "\\n";
            break;
        case '\f':
            out += "\\f";
            break;
        case '\r':
            out += "\\r";
            break;
        case '\\':
        case '"':
            out += '\\';
            out += c;
            break;
        default:
            if (static_cast<unsigned char>(c) < 0x20)
                out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
            else
                out += c;
        }
    }
    return out + "\"";
}

Draft Draft::of(std::string_view text, const Value& value) {
    Draft draft;
    draft.kind = value.kind;
    draft.before = between(text, value.extra_begin, value.begin);
    if (value.extra_end > value.end) draft.after = between(text, value.end, value.extra_end);
    if (!draft.is_container()) {
        draft.literal = between(text, value.begin, value.end);
        return draft;
    }
    std::uint32_t last = value.begin + 1; // where the bytes begin that belong to no child
    draft.names.reserve(value.members.size());
    draft.values.reserve(value.members.size() + value.elements.size());
    for (const auto& member : value.members) {
        draft.names.push_back(of(text, member.name));
        draft.values.push_back(of(text, member.value));
        last = member.value.extra_end;
    }
    for (const auto& element : value.elements) {
        draft.values.push_back(of(text, element));
        last = element.extra_end;
    }
    draft.inside = between(text, last, value.end - 1);
    if (draft.values.empty()) return draft;
    auto& tail = draft.values.back().after;
    if (draft.inside.starts_with(',')) {
        draft.inside.erase(0, 1);
        if (!tail) tail.emplace();
    } else {
        draft.inside = tail.value_or("") + draft.inside;
        tail.reset();
    }
    return draft;
}

Draft Draft::made(std::string_view json) {
    auto tree = Tree::parse(std::string{json});
    return tree ? of(*tree) : Draft{Kind::Null, {}, "null", {}, {}, {}, {}};
}

Draft Draft::string(std::string_view text) {
    Draft draft;
    draft.kind = Kind::String;
    draft.literal = quote(text);
    return draft;
}

std::string Draft::string_value() const {
    if (kind != Kind::String) return {};
    auto tree = Tree::parse(literal);
    return tree ? tree->root().text : std::string{};
}

std::optional<std::size_t> Draft::find(std::string_view name) const {
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (equals_ignoring_case(names[i].string_value(), name)) return i;
    }
    return std::nullopt;
}

void Draft::replace(Draft value) {
    value.before = std::move(before);
    value.after = std::move(after);
    *this = std::move(value);
}

void Draft::set(std::string_view name, Draft value) {
    if (const auto found = find(name)) return values[*found].replace(std::move(value));
    names.push_back(string(name));
    append(std::move(value));
}

void Draft::append(Draft value) {
    auto& first = kind == Kind::Object ? names.back() : value;
    if (values.empty()) {
        values.push_back(std::move(value));
        return;
    }
    // A comment behind the last child may stand before the bracket: it stays with that child.
    if (has_comment(inside) || inside.find('\n') != std::string::npos) {
        const auto line_end = inside.find('\n');
        first.before = line_end == std::string::npos ? inside : inside.substr(0, line_end);
        if (line_end != std::string::npos) {
            const auto rest = inside.substr(line_end + 1);
            first.before += "\n";
            if (has_comment(rest)) first.before += rest;
            inside = "\n";
        } else {
            inside.clear();
        }
    }
    // Whether a comma follows the last child is a habit of this document.
    const bool comma = values.back().after.has_value();
    if (comma) value.after.emplace();
    values.push_back(std::move(value));
}

std::string& Draft::extra_before(std::size_t child) {
    if (child == values.size()) return inside;
    return kind == Kind::Object ? names[child].before : values[child].before;
}

void Draft::erase(std::size_t child) {
    std::string comments = comments_of(extra_before(child), true);
    if (kind == Kind::Object)
        comments += comments_of(names[child].after.value_or("")) + comments_of(values[child].before);
    comments += comments_of(values[child].after.value_or(""));
    const bool last = child + 1 == values.size();
    const bool comma = values[child].after.has_value();
    if (kind == Kind::Object) names.erase(names.begin() + static_cast<std::ptrdiff_t>(child));
    values.erase(values.begin() + static_cast<std::ptrdiff_t>(child));
    if (last && !values.empty()) {
        auto& tail = values.back().after;
        if (!comma && tail) {
            comments = comments_of(*tail) + comments;
            tail.reset();
        } else if (comma && !tail) {
            tail.emplace();
        }
    }
    auto& target = extra_before(child);
    if (has_comment(target) && comments.empty()) comments = "\n"; // not to the line of the child before
    target = comments + target;
}

void Draft::add_comment(std::size_t child, std::string_view text) {
    std::string comment = "\n";
    for (const auto line : split(text, '\n')) comment += fmt::format("// {}\n", trim(line));
    auto& target = extra_before(child);
    const auto kept = target.find_last_not_of(" \t\r\n");
    target = (kept == std::string::npos ? std::string{} : target.substr(0, kept + 1)) + comment;
}

std::string Draft::pack() const {
    std::string out;
    pack_into(out);
    return out;
}

void Draft::pack_into(std::string& out) const {
    out += before;
    if (is_container()) {
        out += kind == Kind::Object ? '{' : '[';
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (kind == Kind::Object) {
                names[i].pack_into(out);
                out += ':';
            }
            values[i].pack_into(out);
            if (i + 1 < values.size() || values[i].after) out += ',';
        }
        out += inside;
        out += kind == Kind::Object ? '}' : ']';
    } else {
        out += literal;
    }
    if (after) out += *after;
}

} // namespace tailrace::hujson
