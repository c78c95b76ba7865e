// control/tailnet/oauth_clients.cpp - who makes auth keys by the API.
#include "control/tailnet/tailnet_state.hpp"

#include "base/text.hpp"
#include "control/tailnet/credential.hpp"
#include "control/tailnet/scopes.hpp"
#include "control/tailnet/tags.hpp"

#include <algorithm>

namespace tailrace {

OAuthClientPtr TailnetState::oauth_client_with_secret(std::string_view text) const {
    auto credential = CredentialText::parse(Credential::OAuthClient, text);
    if (!credential) return nullptr;
    for (const auto& [id, client] : oauth_clients_)
        if (client->prefix == credential->prefix && credential->has_hash(client->secret_hash)) return client;
    return nullptr;
}

bool TailnetState::tags_may_give(const std::vector<std::string>& tags, const std::vector<std::string>& wanted) const {
    return std::all_of(wanted.begin(), wanted.end(), [&](const std::string& tag) {
        return std::find(tags.begin(), tags.end(), tag) != tags.end() || owners_.tags_may(tags, tag);
    });
}

Result<TailnetState::NewOAuthClient> TailnetState::create_oauth_client(WallTime now, const OAuthClientWish& wish) {
    OAuthClient client;
    client.scopes = wish.scopes;
    if (client.scopes.empty()) client.scopes.emplace_back(kScopeAuthKeys);
    std::sort(client.scopes.begin(), client.scopes.end());
    client.scopes.erase(std::unique(client.scopes.begin(), client.scopes.end()), client.scopes.end());
    for (const std::string& scope : client.scopes)
        if (!is_scope(scope))
            return Error::make("\"{}\" is no scope that this server knows: write auth_keys, all, or one of them with "
                               ":read",
                               scope);
    auto tags = checked_tags(wish.tags);
    if (!tags) return tags.error();
    client.tags = std::move(*tags);
    if (client.tags.empty() && scopes_need_tags(client.scopes))
        return Error::make("an OAuth client with the scope {} needs tags: its auth keys are for nodes with these tags, "
                           "or with tags that they own",
                           join(client.scopes, " "));
    CredentialText text = CredentialText::generate(Credential::OAuthClient);
    client.id = ++last_oauth_client_;
    client.prefix = text.prefix;
    client.secret_hash = text.hash();
    client.created = now;
    client.description = wish.description;
    auto shared = std::make_shared<const OAuthClient>(std::move(client));
    put_oauth_client(shared);
    return NewOAuthClient{shared, text.text()};
}

Result<void> TailnetState::revoke_oauth_client(WallTime now, OAuthClientId id) {
    auto at = oauth_clients_.find(id);
    if (at == oauth_clients_.end()) return Error::make("there is no OAuth client with id {}", id);
    if (!at->second->revoked.is_zero()) return Error::make("OAuth client {} is already revoked", id);
    OAuthClient client = *at->second;
    client.revoked = now;
    put_oauth_client(std::make_shared<const OAuthClient>(std::move(client)));
    return {};
}

void TailnetState::put_oauth_client(OAuthClientPtr client) {
    OAuthClientId id = client->id;
    OAuthClientPtr before = oauth_clients_[id];
    oauth_clients_[id] = client;
    changes_.operations.push_back(PutOAuthClient{std::move(client)});
    changes_.undo.push_back([this, id, before] {
        if (before)
            oauth_clients_[id] = before;
        else
            oauth_clients_.erase(id);
    });
}

void TailnetState::forget_spent_keys(WallTime now) {
    auto is_spent = [&](const AuthKey& key) {
        const WallTime used_up = key.reusable ? WallTime{} : key.used;
        for (const WallTime& end : {key.revoked, key.expires, used_up})
            if (!end.is_zero() && end.plus(kSpentKeyLifetime) <= now) return true;
        return false;
    };
    std::vector<AuthKeyId> spent;
    for (const auto& [id, key] : auth_keys_)
        if (key->oauth_client != 0 && is_spent(*key)) spent.push_back(id);
    for (AuthKeyId id : spent) put_key(id, nullptr);
}

} // namespace tailrace
