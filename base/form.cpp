#include "base/form.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <optional>

namespace tailrace {
namespace {

constexpr std::size_t kMostFields = 64;

/// Nothing when a "%" stands without two hex digits.
std::optional<std::string> form_decode(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '+') {
            out += ' ';
        } else if (text[i] == '%') {
            auto byte = hex_decode(text.substr(i + 1, 2));
            if (!byte || byte->size() != 1) return std::nullopt;
            out += static_cast<char>(byte->front());
            i += 2;
        } else {
            out += text[i];
        }
    }
    return out;
}

} // namespace

Result<FormFields> parse_form(std::string_view text) {
    FormFields fields;
    while (!text.empty()) {
        std::string_view piece = text.substr(0, text.find('&'));
        text.remove_prefix(std::min(text.size(), piece.size() + 1));
        if (piece.empty()) continue;
        auto equals = piece.find('=');
        auto name = form_decode(piece.substr(0, equals));
        auto value = form_decode(equals == std::string_view::npos ? std::string_view{} : piece.substr(equals + 1));
        // Not quoted: values may be secrets, and so may what stands in the place of a name.
        if (!name || !value) return Error::make("a form has a % that two hex digits do not follow");
        if (!fields.emplace(std::move(*name), std::move(*value)).second)
            return Error::make("a form has the same field twice");
        if (fields.size() > kMostFields) return Error::make("a form has more than {} fields", kMostFields);
    }
    return fields;
}

std::string_view form_field(const FormFields& fields, std::string_view name) {
    auto at = fields.find(name);
    return at == fields.end() ? std::string_view{} : std::string_view{at->second};
}

} // namespace tailrace
