#include "base/json/json.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace tailrace::json {

Result<boost::json::value> parse_value(std::string_view text) {
    boost::json::parse_options options;
    options.max_depth = 64;
    boost::json::error_code problem;
    // NOLINTNEXTLINE(bugprone-unused-return-value): the error code tells
    auto value = boost::json::parse({text.data(), text.size()}, problem, {}, options);
    if (problem == boost::json::error::incomplete) return Error::make("JSON ends early, after {} bytes", text.size());
    if (problem) return Error::make("not JSON: {}", problem.message());
    return value;
}

std::string write_value(const boost::json::value& value) {
    return boost::json::serialize(value);
}

void append_string(std::string& out, std::string_view text) {
    static constexpr char kDigits[] = "0123456789abcdef";
    out += '"';
    std::size_t plain_from = 0;
    auto flush = [&](std::size_t upto) { out.append(text.substr(plain_from, upto - plain_from)); };
    for (std::size_t i = 0; i < text.size(); ++i) {
        auto c = static_cast<unsigned char>(text[i]);
        bool line_separator = c == 0xe2 && i + 2 < text.size() && static_cast<unsigned char>(text[i + 1]) == 0x80 &&
                              (static_cast<unsigned char>(text[i + 2]) & 0xfe) == 0xa8; // U+2028, U+2029
        if (c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' && !line_separator) continue;
        flush(i);
        plain_from = i + 1;
        if (line_separator) {
            out += static_cast<unsigned char>(text[i + 2]) == 0xa8 ? "\\u2028" : "\\u2029";
            i += 2;
            plain_from = i + 1;
        } else if (c == '"' || c == '\\') {
            out += '\\';
            out += static_cast<char>(c);
        } else if (c == '\n') {
            out += "\\n";
        } else if (c == '\r') {
            out += "\\r";
        } else if (c == '\t') {
            out += "\\t";
        } else {
            out += "\\u00";
            out += kDigits[c >> 4];
            out += kDigits[c & 15];
        }
    }
    flush(text.size());
    out += '"';
}

void append_double(std::string& out, double number) {
    std::string text = fmt::format("{}", number);
    // Go writes 1e-7 where C++ writes 1e-07.
    if (auto e = text.find('e'); e != std::string::npos && text.size() > e + 3 && text[e + 2] == '0')
        text.erase(e + 2, 1);
    out += text;
}

Error type_error(const boost::json::value& got, const char* wanted) {
    std::string shown = boost::json::serialize(got);
    if (shown.size() > 40) shown = shown.substr(0, 40) + "...";
    return Error::make("expected {}, got {}", wanted, shown);
}

const boost::json::value* find_member(const boost::json::object& object, std::string_view name) {
    if (const boost::json::value* exact = object.if_contains(name)) return exact;
    const boost::json::value* found = nullptr;
    for (const auto& candidate : object)
        if (equals_ignoring_case(candidate.key(), name)) found = &candidate.value();
    return found;
}

Error within(const Error& error, std::string_view member) {
    return error.with("{}", member);
}

} // namespace tailrace::json
