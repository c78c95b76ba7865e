#include "control/api/credentials.hpp"

#include "base/form.hpp"
#include "base/text.hpp"

namespace tailrace {

namespace {

/// What follows "Basic " or "Bearer ", whose case does not matter; "" when it is another scheme.
std::string_view after_scheme(std::string_view authorization, std::string_view scheme) {
    authorization = trim(authorization);
    if (authorization.size() <= scheme.size() || authorization[scheme.size()] != ' ') return {};
    if (!equals_ignoring_case(authorization.substr(0, scheme.size()), scheme)) return {};
    return trim(authorization.substr(scheme.size()));
}

std::vector<std::string> words_of(std::string_view text) {
    std::vector<std::string> out;
    for (std::string_view word : split(text, ' '))
        if (!word.empty()) out.emplace_back(word);
    return out;
}

} // namespace

std::optional<BasicCredentials> parse_basic(std::string_view authorization) {
    auto encoded = after_scheme(authorization, "Basic");
    if (encoded.empty()) return std::nullopt;
    auto decoded = base64_decode(encoded);
    if (!decoded) return std::nullopt;
    std::string_view text = as_chars(*decoded);
    auto colon = text.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    return BasicCredentials{std::string{text.substr(0, colon)}, std::string{text.substr(colon + 1)}};
}

std::string access_token_of(const HttpHeaders& headers) {
    std::string_view authorization = headers.get("Authorization");
    if (auto token = after_scheme(authorization, "Bearer"); !token.empty()) return std::string{token};
    auto basic = parse_basic(authorization);
    return basic ? basic->user : "";
}

Result<TokenRequest> parse_token_request(const HttpHeaders& headers, std::string_view body) {
    auto form = parse_form(body);
    if (!form) return form.error();
    TokenRequest request;
    request.secret = form_field(*form, "client_secret");
    // RFC 6749 has both halves of the header form-encoded; in a secret of ours that changes nothing.
    if (auto basic = parse_basic(headers.get("Authorization")); basic && !basic->password.empty())
        request.secret = basic->password;
    request.grant_type = form_field(*form, "grant_type");
    request.scopes = words_of(form_field(*form, "scope"));
    request.tags = words_of(form_field(*form, "tags"));
    return request;
}

} // namespace tailrace
