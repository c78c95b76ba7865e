// control/api/api.hpp - the API of the public server, as tools for Tailscale's API v2 use it: /api/v2/...
#pragma once
#include "base/io/http.hpp"
#include "control/api/access_tokens.hpp"
#include "control/tailnet/tailnet_state.hpp"

namespace tailrace {

/// Decides every request at once, on the tailnet as it is; nothing waits in here.
///
///   POST /api/v2/oauth/token               an access token for an OAuth client
///   POST /api/v2/tailnet/TAILNET/keys      an auth key, for a token with the scope auth_keys
///
/// TAILNET is "-" or the base domain. Errors are {"message": "a sentence"}.
class Api {
public:
    static constexpr std::size_t kMostBody = 64 << 10; ///< bytes

    /// `changed`: the answer may go out when the tailnet's changes are on disk.
    struct Answer {
        HttpResponse response;
        bool changed = false;
    };
    static bool is_for_api(const HttpRequest& request) { return request.target.starts_with("/api/"); }
    Answer answer(TailnetState& tailnet, WallTime now, const HttpRequest& request);
    /// What to say instead when they could not be written.
    static HttpResponse not_stored();

private:
    HttpResponse give_token(const TailnetState& tailnet, WallTime now, const HttpRequest& request);

    AccessTokens tokens_;
};

} // namespace tailrace
