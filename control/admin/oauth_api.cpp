#include "control/admin/oauth_api.hpp"

#include "base/json/json.hpp"
#include "control/admin/failure.hpp"
#include "control/admin/messages.hpp"

namespace tailrace {

using namespace admin;

namespace {

OAuthClientInfo describe_oauth_client(const OAuthClient& client) {
    OAuthClientInfo info;
    info.id = client.id;
    info.client = client.prefix;
    info.scopes = client.scopes;
    info.tags = client.tags;
    info.state = client.revoked.is_zero() ? "valid" : "revoked";
    info.created = client.created;
    info.description = client.description;
    return info;
}

Task<HttpResponse> create_oauth_client(AdminBackend& backend, std::string body) {
    auto wish = json::parse<CreateOAuthClient>(body);
    if (!wish) co_return failed(wish.error());
    auto created =
        backend.tailnet().create_oauth_client(WallTime::now(), {wish->scopes, wish->tags, wish->description});
    if (!created) co_return failed(created.error());
    auto made = *created;
    auto committed = co_await backend.commit();
    if (!committed) co_return failed(500, committed.error().message());
    OAuthClientInfo info = describe_oauth_client(*made.client);
    info.client = made.text;
    co_return HttpResponse::json(200, json::write(info));
}

} // namespace

Task<HttpResponse> answer_oauth_clients(AdminBackend& backend, HttpRequest request, std::string which,
                                        std::string verb) {
    TailnetState& tailnet = backend.tailnet();
    if (which.empty() && request.method == "GET") {
        std::vector<OAuthClientInfo> all;
        for (const auto& [id, client] : tailnet.oauth_clients()) all.push_back(describe_oauth_client(*client));
        co_return HttpResponse::json(200, json::write(all));
    }
    if (which.empty() && request.method == "POST") co_return co_await create_oauth_client(backend, request.body);
    if (!which.empty() && verb == "revoke" && request.method == "POST") {
        std::optional<OAuthClientId> id;
        for (const auto& [client_id, client] : tailnet.oauth_clients())
            if (std::to_string(client_id) == which || client->prefix == which) id = client_id;
        if (!id) co_return failed(404, fmt::format("no OAuth client \"{}\": `oauth list` shows the ids", which));
        auto revoked = tailnet.revoke_oauth_client(WallTime::now(), *id);
        if (!revoked) co_return failed(revoked.error());
        auto committed = co_await backend.commit();
        if (!committed) co_return failed(500, committed.error().message());
        co_return HttpResponse::json(200, "{}");
    }
    co_return failed(405, "this method is not for OAuth clients");
}

} // namespace tailrace
