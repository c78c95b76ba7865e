// control/api/access_tokens.hpp - what OAuth clients ask the API with. Pure: it is told the time.
//
// Tokens live in memory. A token is worth an hour, and a client that is refused asks for another; in exchange a
// login of a thousand machines costs no thousand writes, and a stolen database opens nothing.
#pragma once
#include "base/time.hpp"
#include "control/model/model.hpp"

#include <array>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// What a token may do. Whether its client is still good is the tailnet's to say.
struct AccessGrant {
    OAuthClientId client = 0;
    std::vector<std::string> scopes, tags; ///< of the client, or fewer
};

class AccessTokens {
public:
    static constexpr auto kLifetime = std::chrono::seconds{3600};
    /// Of one client; the oldest goes first.
    static constexpr std::size_t kMostOfClient = 10'000;

    /// The token's text, for its owner only.
    std::string issue(WallTime now, AccessGrant grant);
    /// Null for what is no token, or no longer one.
    const AccessGrant* find(WallTime now, std::string_view text) const;
    std::size_t size() const { return by_prefix_.size(); }

private:
    struct Token {
        std::array<std::byte, 32> hash{};
        WallTime expires;
        AccessGrant grant;
    };
    void forget_old(WallTime now);

    std::map<std::string, Token, std::less<>> by_prefix_;
    std::map<OAuthClientId, std::deque<std::string>> of_client_; ///< prefixes, the oldest first
};

} // namespace tailrace
