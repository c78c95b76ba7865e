#include "control/api/keys_api.hpp"

#include "base/json/json.hpp"
#include "control/api/failure.hpp"
#include "control/api/messages.hpp"
#include "control/tailnet/scopes.hpp"

#include <algorithm>
#include <cctype>

namespace tailrace {

namespace {

constexpr std::chrono::seconds kLongestKey = std::chrono::hours{24 * 90}; // also what 0 asks for
constexpr std::size_t kMostDescription = 50;                              // characters

bool is_description(std::string_view text) {
    return text.size() <= kMostDescription && std::all_of(text.begin(), text.end(), [](char c) {
               return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == ' ';
           });
}

api::Key key_object(const AuthKey& key, std::chrono::seconds lifetime) {
    api::Key out;
    out.id = key.prefix;
    out.key_type = "auth";
    out.description = key.description;
    out.expiry_seconds = lifetime.count();
    out.created = key.created;
    out.expires = key.expires;
    out.capabilities.devices.create = {key.reusable, key.ephemeral, key.preapproved, key.tags};
    return out;
}

} // namespace

Api::Answer create_key_by_api(TailnetState& tailnet, WallTime now, const AccessGrant& grant, std::string_view body) {
    if (!scopes_cover(grant.scopes, kScopeAuthKeys))
        return {api::refused(403, "calling actor does not have enough permissions to perform this function")};
    auto wish = json::parse<api::CreateKey>(body);
    if (!wish) return {api::refused(400, wish.error().message())};
    if (!wish->key_type.empty() && wish->key_type != "auth")
        return {api::refused(400, "keyType: this server makes keys of the type auth by its API; OAuth clients are made "
                                  "with \"tailrace-control oauth create\"")};
    if (!is_description(wish->description))
        return {api::refused(
            400, fmt::format("description: at most {} letters, digits, hyphens and spaces", kMostDescription))};
    if (wish->expiry_seconds < 0 || wish->expiry_seconds > kLongestKey.count())
        return {api::refused(
            400, fmt::format("expirySeconds: want 1 to {}, or 0 for {}", kLongestKey.count(), kLongestKey.count()))};
    const api::DeviceCreate& create = wish->capabilities.devices.create;
    if (create.tags.empty() || !tailnet.tags_may_give(grant.tags, create.tags))
        return {
            api::refused(400, fmt::format("requested tags [{}] are invalid or not permitted", join(create.tags, " ")))};
    std::chrono::seconds lifetime{wish->expiry_seconds};
    if (lifetime.count() == 0) lifetime = kLongestKey;
    TailnetState::KeyWish key_wish;
    key_wish.oauth_client = grant.client;
    key_wish.tags = create.tags;
    key_wish.reusable = create.reusable;
    key_wish.ephemeral = create.ephemeral;
    key_wish.preapproved = create.preauthorized;
    key_wish.lifetime = lifetime;
    key_wish.description = wish->description;
    auto made = tailnet.create_auth_key(now, key_wish);
    if (!made) return {api::refused(400, made.error().message())};
    api::Key out = key_object(*made->key, lifetime);
    out.key = made->text;
    return {HttpResponse::json(200, json::write(out)), true};
}

} // namespace tailrace
