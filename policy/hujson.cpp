// policy/hujson.cpp - reads HuJSON with the messages of the reference library.
#include "policy/hujson.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

// Grammar and messages follow github.com/tailscale/hujson parse.go, so that tools which read "line N, column M" out of
// an error keep working.

namespace tailrace::hujson {
namespace {

constexpr std::uint32_t kInvalidRune = 0xfffd;

struct Rune {
    std::uint32_t code = kInvalidRune;
    std::size_t size = 1;
    bool valid = false;
};

/// The UTF-8 character at the start of `text`, which is not empty. Overlong forms and surrogates are invalid.
Rune decode_rune(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const auto first = byte(0);
    if (first < 0x80) return {first, 1, true};
    const std::size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size() < size) return {};
    std::uint32_t code = first & (0x7fU >> size);
    for (std::size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return {};
        code = (code << 6) | (byte(i) & 0x3fU);
    }
    const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    if (overlong || surrogate || code > 0x10ffff) return {};
    return {code, size, true};
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const auto rune = decode_rune(text);
        if (!rune.valid) return false;
        text.remove_prefix(rune.size);
    }
    return true;
}

/// Whether an error message may show the character as it is: no controls, no invisible or unassigned ranges.
bool is_printable(std::uint32_t code) {
    struct Range {
        std::uint32_t first, last;
    };
    static constexpr Range kHidden[] = {{0x0, 0x1f},      {0x7f, 0xa0},     {0xad, 0xad},     {0x2000, 0x200f},
                                        {0x2028, 0x202f}, {0x205f, 0x206f}, {0x3000, 0x3000}, {0xd800, 0xf8ff},
                                        {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0xe0000, 0x10ffff}};
    return std::none_of(std::begin(kHidden), std::end(kHidden),
                        [&](Range hidden) { return code >= hidden.first && code <= hidden.last; });
}

std::string quote_first_character(std::string_view text) {
    const auto rune = decode_rune(text);
    if (!rune.valid) return fmt::format("'\\x{:02x}'", static_cast<unsigned char>(text[0]));
    if (rune.code == '\'' || rune.code == '\\') return fmt::format("'\\{}'", text[0]);
    if (is_printable(rune.code)) return fmt::format("'{}'", text.substr(0, rune.size));
    if (rune.code <= 0xffff) return fmt::format("'\\u{:04x}'", rune.code);
    return fmt::format("'\\U{:08x}'", rune.code);
}

void append_utf8(std::string& out, std::uint32_t code) {
    if (code < 0x80) {
        out += static_cast<char>(code);
    } else if (code < 0x800) {
        out += static_cast<char>(0xc0 | (code >> 6));
        out += static_cast<char>(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        out += static_cast<char>(0xe0 | (code >> 12));
        out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
        out += static_cast<char>(0x80 | (code & 0x3f));
    } else {
        out += static_cast<char>(0xf0 | (code >> 18));
        out += static_cast<char>(0x80 | ((code >> 12) & 0x3f));
        out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
        out += static_cast<char>(0x80 | (code & 0x3f));
    }
}

std::optional<std::uint32_t> read_hex4(std::string_view text) {
    if (text.size() < 4) return std::nullopt;
    std::uint32_t code = 0;
    for (const char c : text.substr(0, 4)) {
        code <<= 4;
        if (c >= '0' && c <= '9') {
            code |= static_cast<std::uint32_t>(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            code |= static_cast<std::uint32_t>(c - 'a' + 10);
        } else if (c >= 'A' && c <= 'F') {
            code |= static_cast<std::uint32_t>(c - 'A' + 10);
        } else {
            return std::nullopt;
        }
    }
    return code;
}

/// Reads "\uXXXX" (and the second half of a surrogate pair) from behind the 'u'; an unpaired surrogate becomes U+FFFD.
std::optional<std::uint32_t> take_unicode_escape(std::string_view& rest) {
    const auto code = read_hex4(rest);
    if (!code) return std::nullopt;
    rest.remove_prefix(4);
    if (*code < 0xd800 || *code > 0xdfff) return code;
    if (*code < 0xdc00 && rest.size() >= 6 && rest.substr(0, 2) == "\\u") {
        const auto low = read_hex4(rest.substr(2));
        if (low && *low >= 0xdc00 && *low <= 0xdfff) {
            rest.remove_prefix(6);
            return 0x10000 + ((*code - 0xd800) << 10) + (*low - 0xdc00);
        }
    }
    return kInvalidRune;
}

/// The meaning of a string literal, quotes included; nothing when JSON does not allow it.
std::optional<std::string> decode_string(std::string_view literal) {
    std::string_view rest = literal.substr(1, literal.size() - 2);
    if (!is_utf8(rest)) return std::nullopt;
    std::string out;
    out.reserve(rest.size());
    while (!rest.empty()) {
        const char c = rest.front();
        if (static_cast<unsigned char>(c) < 0x20) return std::nullopt;
        rest.remove_prefix(1);
        if (c != '\\') {
            out += c;
            continue;
        }
        if (rest.empty()) return std::nullopt;
        const char escape = rest.front();
        rest.remove_prefix(1);
        switch (escape) {
        case '"':
        case '\\':
        case '/':
            out += escape;
            break;
        case 'b':
            out += '\b';
            break;
        case 'f':
            out += '\f';
            break;
        case 'n':
            out += '\n';
            break;
        case 'r':
            out += '\r';
            break;
        case 't':
            out += '\t';
            break;
        case 'u': {
            const auto code = take_unicode_escape(rest);
            if (!code) return std::nullopt;
            append_utf8(out, *code);
            break;
        }
        default:
            return std::nullopt;
        }
    }
    return out;
}

bool take_digits(std::string_view& rest) {
    const auto digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
    rest.remove_prefix(digits);
    return digits > 0;
}

bool is_json_number(std::string_view rest) {
    if (!rest.empty() && rest.front() == '-') rest.remove_prefix(1);
    if (!rest.empty() && rest.front() == '0') {
        rest.remove_prefix(1);
    } else if (!take_digits(rest)) {
        return false;
    }
    if (!rest.empty() && rest.front() == '.') {
        rest.remove_prefix(1);
        if (!take_digits(rest)) return false;
    }
    if (!rest.empty() && (rest.front() == 'e' || rest.front() == 'E')) {
        rest.remove_prefix(1);
        if (!rest.empty() && (rest.front() == '-' || rest.front() == '+')) rest.remove_prefix(1);
        if (!take_digits(rest)) return false;
    }
    return rest.empty();
}

bool is_literal_character(char c) {
    return c == '-' || c == '+' || c == '.' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z');
}

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    Result<Value> document(SyntaxError* details) {
        Value root;
        if (take_value(root, 0) && at_ < text_.size()) fail(at_, invalid_character(at_, "after top-level value"));
        if (!failed()) return root;
        const auto position = hujson::position_of(text_, error_at_);
        if (details != nullptr) *details = {message_, position};
        return Error::make("hujson: {}: {}", position.text(), message_);
    }

private:
    bool failed() const { return !message_.empty(); }

    bool fail(std::size_t at, std::string message) {
        error_at_ = at;
        message_ = std::move(message);
        return false;
    }

    std::string invalid_character(std::size_t at, std::string_view where) const {
        return fmt::format("invalid character {} {}", quote_first_character(text_.substr(at)), where);
    }

    bool at_end() const { return at_ == text_.size(); }

    /// White space and comments.
    bool take_extra() {
        while (!at_end()) {
            const char c = text_[at_];
            if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
                ++at_;
                continue;
            }
            const auto opening = text_.substr(at_, 2);
            if (opening != "//" && opening != "/*") return true;
            const auto closing = opening == "//" ? std::string_view{"\n"} : std::string_view{"*/"};
            const auto found = text_.find(closing, at_ + 2);
            if (found == std::string_view::npos) return fail(at_, "parsing comment: unexpected EOF");
            const auto end = found + closing.size();
            if (!is_utf8(text_.substr(at_, end - at_))) return fail(at_, "invalid UTF-8 in comment");
            at_ = end;
        }
        return true;
    }

    /// One value with the extra before and after it.
    bool take_value(Value& value, int depth) {
        value.extra_begin = offset();
        if (!take_extra()) return false;
        return take_trimmed_value(value, depth);
    }

    /// The same from the first byte of the literal on.
    bool take_trimmed_value(Value& value, int depth) {
        value.begin = offset();
        if (at_end()) return fail(at_, "parsing value: unexpected EOF");
        bool taken = false;
        switch (text_[at_]) {
        case '{':
            taken = take_object(value, depth + 1);
            break;
        case '[':
            taken = take_array(value, depth + 1);
            break;
        case '"':
            taken = take_string(value);
            break;
        default:
            taken = take_literal(value);
            break;
        }
        if (!taken) return false;
        value.end = offset();
        if (!take_extra()) return false;
        value.extra_end = offset();
        return true;
    }

    bool take_object(Value& object, int depth) {
        object.kind = Kind::Object;
        if (depth > kMaxDepth) return fail(at_, fmt::format("nested deeper than {} levels", kMaxDepth));
        ++at_;
        for (;;) {
            const auto extra_begin = offset();
            if (!take_extra()) return false;
            if (!at_end() && text_[at_] == '}') break;
            Member member;
            member.name.extra_begin = extra_begin;
            if (!take_trimmed_value(member.name, depth)) return false;
            if (member.name.kind != Kind::String)
                return fail(member.name.begin, invalid_character(member.name.begin, "at start of object name"));
            if (at_end()) return fail(at_, "parsing object after name: unexpected EOF");
            if (text_[at_] != ':') return fail(at_, invalid_character(at_, "after object name"));
            ++at_;
            if (!take_value(member.value, depth)) return false;
            object.members.push_back(std::move(member));
            if (at_end()) return fail(at_, "parsing object after value: unexpected EOF");
            if (text_[at_] == '}') break;
            if (text_[at_] != ',')
                return fail(at_, invalid_character(at_, "after object value (expecting ',' or '}')"));
            ++at_;
        }
        ++at_;
        return true;
    }

    bool take_array(Value& array, int depth) {
        array.kind = Kind::Array;
        if (depth > kMaxDepth) return fail(at_, fmt::format("nested deeper than {} levels", kMaxDepth));
        ++at_;
        for (;;) {
            const auto extra_begin = offset();
            if (!take_extra()) return false;
            if (!at_end() && text_[at_] == ']') break;
            Value element;
            element.extra_begin = extra_begin;
            if (!take_trimmed_value(element, depth)) return false;
            array.elements.push_back(std::move(element));
            if (at_end()) return fail(at_, "parsing array after value: unexpected EOF");
            if (text_[at_] == ']') break;
            if (text_[at_] != ',') return fail(at_, invalid_character(at_, "after array value (expecting ',' or ']')"));
            ++at_;
        }
        ++at_;
        return true;
    }

    bool take_string(Value& value) {
        value.kind = Kind::String;
        const auto begin = at_++;
        for (;; ++at_) {
            if (at_end()) return fail(at_, "parsing string: unexpected EOF");
            if (text_[at_] == '"') break;
            if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
        }
        ++at_;
        const auto literal = text_.substr(begin, at_ - begin);
        auto decoded = decode_string(literal);
        if (!decoded) return fail(begin, fmt::format("invalid literal: {}", literal));
        value.text = std::move(*decoded);
        return true;
    }

    bool take_literal(Value& value) {
        const auto begin = at_;
        while (!at_end() && is_literal_character(text_[at_])) ++at_;
        const auto literal = text_.substr(begin, at_ - begin);
        if (literal.empty()) return fail(begin, invalid_character(begin, "at start of value"));
        if (literal == "null") {
            value.kind = Kind::Null;
        } else if (literal == "true" || literal == "false") {
            value.kind = Kind::Bool;
            value.truth = literal == "true";
        } else if (is_json_number(literal)) {
            value.kind = Kind::Number;
            value.text = std::string{literal};
        } else {
            return fail(begin, fmt::format("invalid literal: {}", literal));
        }
        return true;
    }

    std::uint32_t offset() const { return static_cast<std::uint32_t>(at_); }

    static constexpr int kMaxDepth = Tree::kMaxDepth;

    std::string_view text_;
    std::size_t at_ = 0;
    std::size_t error_at_ = 0;
    std::string message_;
};

/// Makes spaces of everything between two tokens but white space and `keep` (the comma or colon that stands there).
void blank_extra(std::string& text, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
        const char c = text[i];
        if (c != '\n' && c != '\r' && c != '\t') text[i] = ' ';
    }
}

void blank_comments(std::string& text, const Value& value) {
    blank_extra(text, value.extra_begin, value.begin);
    blank_extra(text, value.end, value.extra_end);
    std::size_t inside = value.begin + 1; // behind the last child, where a trailing comma or a comment may stand
    for (const auto& member : value.members) {
        blank_comments(text, member.name);
        blank_comments(text, member.value);
        inside = member.value.extra_end;
    }
    for (const auto& element : value.elements) {
        blank_comments(text, element);
        inside = element.extra_end;
    }
    if (value.kind == Kind::Object || value.kind == Kind::Array) blank_extra(text, inside, value.end - 1);
}

void minimize_into(std::string& out, std::string_view document, const Value& value) {
    if (value.kind == Kind::Object) {
        out += '{';
        for (const auto& member : value.members) {
            if (&member != &value.members.front()) out += ',';
            minimize_into(out, document, member.name);
            out += ':';
            minimize_into(out, document, member.value);
        }
        out += '}';
    } else if (value.kind == Kind::Array) {
        out += '[';
        for (const auto& element : value.elements) {
            if (&element != &value.elements.front()) out += ',';
            minimize_into(out, document, element);
        }
        out += ']';
    } else {
        out += document.substr(value.begin, value.end - value.begin);
    }
}

} // namespace

std::string Position::text() const {
    return fmt::format("line {}, column {}", line, column);
}

Position position_of(std::string_view text, std::size_t offset) {
    const auto before = text.substr(0, std::min(offset, text.size()));
    const auto lines = std::count(before.begin(), before.end(), '\n');
    const auto last_line_feed = before.rfind('\n');
    const auto line_begin = last_line_feed == std::string_view::npos ? 0 : last_line_feed + 1;
    return {1 + static_cast<std::size_t>(lines), 1 + before.size() - line_begin};
}

const char* name_of(Kind kind) {
    switch (kind) {
    case Kind::Null:
        return "null";
    case Kind::Bool:
        return "boolean";
    case Kind::Number:
        return "number";
    case Kind::String:
        return "string";
    case Kind::Array:
        return "array";
    case Kind::Object:
        return "object";
    }
    return "?";
}

const Value* Value::find(std::string_view name) const {
    for (const auto& member : members) {
        if (member.name.text == name) return &member.value;
    }
    return nullptr;
}

Result<Tree> Tree::parse(std::string text, SyntaxError* details) {
    if (text.size() > kMaxBytes) {
        if (details != nullptr) *details = {fmt::format("more than {} bytes", kMaxBytes), {}};
        return Error::make("hujson: line 1, column 1: more than {} bytes", kMaxBytes);
    }
    Tree tree;
    tree.text_ = std::move(text);
    auto root = Parser{tree.text_}.document(details);
    if (!root) return root.error();
    tree.root_ = std::move(*root);
    return tree;
}

Result<std::string> standardize(std::string_view text) {
    auto tree = Tree::parse(std::string{text});
    if (!tree) return tree.error();
    std::string out = tree->text();
    blank_comments(out, tree->root());
    return out;
}

std::string minimize(std::string_view document, const Value& value) {
    std::string out;
    minimize_into(out, document, value);
    return out;
}

} // namespace tailrace::hujson
