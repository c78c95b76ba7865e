#include "control/api/access_tokens.hpp"

#include "control/tailnet/credential.hpp"

namespace tailrace {

std::string AccessTokens::issue(WallTime now, AccessGrant grant) {
    forget_old(now);
    CredentialText text = CredentialText::generate(Credential::AccessToken);
    auto& siblings = of_client_[grant.client];
    if (siblings.size() >= kMostOfClient) {
        by_prefix_.erase(siblings.front());
        siblings.pop_front();
    }
    while (by_prefix_.find(text.prefix) != by_prefix_.end()) text = CredentialText::generate(Credential::AccessToken);
    by_prefix_[text.prefix] = Token{text.hash(), now.plus(kLifetime), std::move(grant)};
    siblings.push_back(text.prefix);
    return text.text();
}

const AccessGrant* AccessTokens::find(WallTime now, std::string_view text) const {
    auto credential = CredentialText::parse(Credential::AccessToken, text);
    if (!credential) return nullptr;
    auto at = by_prefix_.find(credential->prefix);
    if (at == by_prefix_.end() || at->second.expires <= now || !credential->has_hash(at->second.hash)) return nullptr;
    return &at->second.grant;
}

void AccessTokens::forget_old(WallTime now) {
    for (auto& [client, prefixes] : of_client_)
        while (!prefixes.empty() && by_prefix_[prefixes.front()].expires <= now) {
            by_prefix_.erase(prefixes.front());
            prefixes.pop_front();
        }
}

} // namespace tailrace
