#include "control/cli/oauth_commands.hpp"

#include "base/io/http.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "control/admin/messages.hpp"
#include "control/cli/admin_client.hpp"
#include "control/cli/table.hpp"

#include <CLI/CLI.hpp>

namespace tailrace {
namespace {

using namespace admin;

/// "a,b" and "a b" are two.
std::vector<std::string> pieces_of(const std::vector<std::string>& texts) {
    std::vector<std::string> out;
    for (const std::string& text : texts)
        for (auto piece : split(text, ','))
            if (!trim(piece).empty()) out.emplace_back(trim(piece));
    return out;
}

Result<std::string> create_oauth(const OAuthWords& words) {
    CreateOAuthClient wish{pieces_of(words.scopes), pieces_of(words.tags), words.description};
    auto answer = ask_server(*words.socket, "POST", "/v1/oauth-clients", json::write(wish));
    if (!answer || words.json) return answer;
    auto client = json::parse<OAuthClientInfo>(*answer);
    if (!client) return client.error();
    return client->client; // alone on its line: made for $(...)
}

Result<std::string> list_oauth(const OAuthWords& words) {
    auto answer = ask_server(*words.socket, "GET", "/v1/oauth-clients", "");
    if (!answer || words.json) return answer;
    auto all = json::parse<std::vector<OAuthClientInfo>>(*answer);
    if (!all) return all.error();
    std::vector<std::vector<std::string>> rows{{"ID", "CLIENT", "SCOPES", "TAGS", "STATE", "CREATED", "DESCRIPTION"}};
    for (const OAuthClientInfo& one : *all)
        rows.push_back({std::to_string(one.id), one.client + "...", join(one.scopes, ","),
                        one.tags.empty() ? "-" : join(one.tags, ","), one.state, one.created.text().substr(0, 19) + "Z",
                        one.description.empty() ? "-" : one.description});
    return render_table(rows);
}

Result<std::string> revoke_oauth(const OAuthWords& words) {
    auto answer =
        ask_server(*words.socket, "POST", fmt::format("/v1/oauth-clients/{}/revoke", percent_encode(words.id)), "");
    if (!answer || words.json) return answer;
    return fmt::format("revoked OAuth client {}", words.id);
}

} // namespace

void declare_oauth_commands(CLI::App& app, OAuthWords& words, OAuthCommand& chosen) {
    auto* group = app.add_subcommand("oauth", "OAuth clients, with which fleets make auth keys by themselves");
    group->require_subcommand(1);
    group->fallthrough();
    auto command = [&](const char* name, const char* text, Result<std::string> (*run)(const OAuthWords&)) {
        auto* made = group->add_subcommand(name, text);
        made->fallthrough();
        made->add_flag("--json", words.json, "print JSON");
        made->callback([&words, &chosen, run] { chosen = [&words, run] { return run(words); }; });
        return made;
    };
    auto* create = command("create", "create an OAuth client and print its secret", create_oauth);
    create->add_option("--tags", words.tags, "it makes keys for nodes with these tags, or with tags that they own")
        ->required();
    create->add_option("--scopes", words.scopes,
                       "what it may ask the API for: auth_keys (default), all, or with :read");
    create->add_option("--description", words.description, "for those who see the list");
    command("list", "list all OAuth clients", list_oauth);
    command("revoke", "make an OAuth client and its tokens useless; auth keys that it made stay", revoke_oauth)
        ->add_option("ID", words.id, "its id or public part")
        ->required();
}

} // namespace tailrace
