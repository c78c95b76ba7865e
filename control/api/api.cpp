#include "control/api/api.hpp"

#include "base/json/json.hpp"
#include "control/api/credentials.hpp"
#include "control/api/failure.hpp"
#include "control/api/keys_api.hpp"
#include "control/api/messages.hpp"
#include "control/tailnet/scopes.hpp"

#include <algorithm>

namespace tailrace {

using api::refused;

HttpResponse Api::give_token(const TailnetState& tailnet, WallTime now, const HttpRequest& request) {
    auto asked = parse_token_request(request.headers, request.body);
    if (!asked) return refused(400, asked.error().message(), "invalid_request");
    if (!asked->grant_type.empty() && asked->grant_type != "client_credentials")
        return refused(400, "grant_type: this server knows client_credentials", "unsupported_grant_type");
    OAuthClientPtr client = tailnet.oauth_client_with_secret(asked->secret);
    if (!client) return refused(401, "no OAuth client of this server has this secret", "invalid_client");
    if (!client->revoked.is_zero()) return refused(401, "this OAuth client has been revoked", "invalid_client");
    AccessGrant grant{client->id, client->scopes, client->tags};
    if (!asked->scopes.empty()) grant.scopes = asked->scopes;
    if (!asked->tags.empty()) grant.tags = asked->tags;
    for (const std::string& scope : grant.scopes)
        if (!is_scope(scope) || !scopes_cover(client->scopes, scope))
            return refused(400, fmt::format("the OAuth client does not have the scope {}", scope), "invalid_scope");
    if (!tailnet.tags_may_give(client->tags, grant.tags))
        return refused(400, fmt::format("requested tags [{}] are invalid or not permitted", join(grant.tags, " ")),
                       "invalid_scope");
    api::AccessToken token;
    token.scope = join(grant.scopes, " ");
    token.access_token = tokens_.issue(now, std::move(grant));
    token.token_type = "Bearer";
    token.expires_in = AccessTokens::kLifetime.count();
    return HttpResponse::json(200, json::write(token));
}

Api::Answer Api::answer(TailnetState& tailnet, WallTime now, const HttpRequest& request) {
    if (request.body.size() > kMostBody)
        return {refused(413, fmt::format("a request has at most {} bytes", kMostBody))};
    std::vector<std::string> parts; // "", "api", "v2", ...
    std::string_view path = std::string_view{request.target}.substr(0, request.target.find('?'));
    for (auto part : split(path, '/')) parts.push_back(percent_decode(part));
    const bool is_v2 = parts.size() > 3 && parts[2] == "v2";
    const bool post = request.method == "POST";
    if (is_v2 && parts.size() == 5 && parts[3] == "oauth" && parts[4] == "token") {
        HttpResponse response = post ? give_token(tailnet, now, request) : refused(405, "use POST");
        response.headers.add("Cache-Control", "no-store");
        return {std::move(response)};
    }
    if (!is_v2 || parts.size() != 6 || parts[3] != "tailnet" || parts[5] != "keys")
        return {refused(404, "this server's API has nothing here")};

    const AccessGrant* grant = tokens_.find(now, access_token_of(request.headers));
    auto client = grant == nullptr ? tailnet.oauth_clients().end() : tailnet.oauth_clients().find(grant->client);
    if (client == tailnet.oauth_clients().end() || !client->second->revoked.is_zero())
        return {refused(401, "API token invalid")};
    if (parts[4] != "-" && (parts[4].empty() || parts[4] != tailnet.settings().base_domain))
        return {refused(404, "this server has no such tailnet; write - for its only one")};
    if (!post) return {refused(405, "use POST: keys can be made here")};
    Answer answer = create_key_by_api(tailnet, now, *grant, request.body);
    answer.response.headers.add("Cache-Control", "no-store");
    return answer;
}

HttpResponse Api::not_stored() {
    return refused(500, "the server could not store the change: try again later");
}

} // namespace tailrace
