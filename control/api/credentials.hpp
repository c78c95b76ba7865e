// control/api/credentials.hpp - who asks: what the head and the form of a request say about it. Pure.
#pragma once
#include "base/io/http.hpp"
#include "base/result.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

struct BasicCredentials {
    std::string user, password;
};
/// Of "Basic base64(user:password)". Source: RFC 7617.
std::optional<BasicCredentials> parse_basic(std::string_view authorization);

/// The access token of a call: "Bearer TOKEN", or "Basic" with the token as user name (admin-api.md 1.1). "" when there
/// is none.
std::string access_token_of(const HttpHeaders& headers);

/// What is asked of the token endpoint (admin-api.md 2.1).
struct TokenRequest {
    std::string secret;                    ///< of the client; its id is not looked at, for stock clients know none
    std::string grant_type;                ///< "" counts as client_credentials
    std::vector<std::string> scopes, tags; ///< empty: all that the client has
};
/// The secret is the password of a Basic header, or client_secret in the form.
Result<TokenRequest> parse_token_request(const HttpHeaders& headers, std::string_view body);

} // namespace tailrace
