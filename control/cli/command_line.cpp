#include "control/cli/command_line.hpp"

#include "base/cli/docs.hpp"
#include "base/cli/mistakes.hpp"
#include "base/io/http.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "control/admin/messages.hpp"
#include "control/cli/admin_client.hpp"
#include "control/cli/oauth_commands.hpp"
#include "control/cli/policy_commands.hpp"
#include "control/cli/route_commands.hpp"
#include "control/cli/service_commands.hpp"
#include "control/cli/table.hpp"
#include "policy/hujson.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>

#include <cstdio>

namespace tailrace {
namespace {

using namespace admin;

constexpr const char* kDefaultSocket = "/run/tailrace-control/control.sock";

// What the options say; one command uses a few of them.
struct Words {
    std::string socket = kDefaultSocket;
    bool socket_is_given = false;
    std::string config;
    bool json = false;
    std::string name, user, expiry, file, new_name, registration;
    std::vector<std::string> tags, set, unset;
    bool reusable = false, ephemeral = false, preapproved = false;
};

using Outcome = Result<std::string>; // what to print

std::string pretty_time(const std::optional<WallTime>& time) {
    if (!time) return "-";
    return time->text().substr(0, 19) + "Z";
}

std::string dash(const std::string& text) {
    return text.empty() ? "-" : text;
}

template <typename Info, typename Row>
Outcome list(const Words& words, const char* target, std::vector<std::string> heading, Row row) {
    auto answer = ask_server(words.socket, "GET", target, "");
    if (!answer || words.json) return answer;
    auto all = json::parse<std::vector<Info>>(*answer);
    if (!all) return all.error();
    std::vector<std::vector<std::string>> rows{std::move(heading)};
    for (const auto& info : *all) rows.push_back(row(info));
    return render_table(rows);
}

// Sends a change and prints `sentence`, or the answer with --json.
Outcome change(const Words& words, const char* method, const std::string& target, std::string body,
               std::string sentence) {
    auto answer = ask_server(words.socket, method, target, std::move(body));
    if (!answer || words.json) return answer;
    return sentence;
}

Outcome list_users(const Words& words) {
    return list<UserInfo>(words, "/v1/users", {"ID", "NAME", "ROLE", "NODES", "CREATED"}, [](const UserInfo& user) {
        return std::vector<std::string>{std::to_string(user.id), user.name, user.role, std::to_string(user.nodes),
                                        pretty_time(user.created)};
    });
}

Outcome create_user(const Words& words) {
    return change(words, "POST", "/v1/users", json::write(CreateUser{words.name, ""}),
                  fmt::format("created user {}", words.name));
}

Outcome delete_user(const Words& words) {
    return change(words, "DELETE", "/v1/users/" + percent_encode(words.name), "",
                  fmt::format("deleted user {}", words.name));
}

Outcome set_role(const Words& words) {
    return change(words, "POST", "/v1/users/" + percent_encode(words.name) + "/role",
                  json::write(SetRole{words.new_name}), fmt::format("{} has the role {}", words.name, words.new_name));
}

Outcome list_keys(const Words& words) {
    return list<KeyInfo>(words, "/v1/keys",
                         {"ID", "KEY", "MADE BY", "TAGS", "REUSABLE", "EPHEMERAL", "STATE", "EXPIRES"},
                         [](const KeyInfo& key) {
                             return std::vector<std::string>{std::to_string(key.id),
                                                             key.key + "...",
                                                             dash(key.user.empty() ? key.oauth_client : key.user),
                                                             dash(join(key.tags, ",")),
                                                             key.reusable ? "yes" : "no",
                                                             key.ephemeral ? "yes" : "no",
                                                             key.state,
                                                             key.expires ? pretty_time(key.expires) : "never"};
                         });
}

Outcome create_key(const Words& words) {
    CreateKey wish{words.user, {}, words.reusable, words.ephemeral, words.preapproved, words.expiry};
    for (const auto& tags : words.tags)
        for (auto tag : split(tags, ','))
            if (!trim(tag).empty()) wish.tags.emplace_back(trim(tag));
    auto answer = ask_server(words.socket, "POST", "/v1/keys", json::write(wish));
    if (!answer || words.json) return answer;
    auto key = json::parse<KeyInfo>(*answer);
    if (!key) return key.error();
    return key->key; // alone on its line: made for $(...)
}

Outcome revoke_key(const Words& words) {
    return change(words, "POST", "/v1/keys/" + percent_encode(words.name) + "/revoke", "",
                  fmt::format("revoked key {}", words.name));
}

template <typename T>
std::vector<std::string> texts(const std::vector<T>& things) {
    std::vector<std::string> out;
    for (const auto& thing : things) out.push_back(thing.text());
    return out;
}

// Up to two, and how many more.
std::string some_routes(const std::vector<IpPrefix>& routes) {
    if (routes.empty()) return "-";
    auto shown = texts(routes);
    if (shown.size() <= 2) return join(shown, ",");
    return fmt::format("{},{} and {} more", shown[0], shown[1], shown.size() - 2);
}

std::string state_of(const NodeInfo& node) {
    if (node.expired) return "expired";
    if (!node.approved) return "needs approval";
    return node.online ? "online" : "offline";
}

Outcome list_nodes(const Words& words) {
    return list<NodeInfo>(words, "/v1/nodes", {"ID", "NAME", "ADDRESS", "OWNER", "OS", "STATE", "LAST SEEN", "ROUTES"},
                          [](const NodeInfo& node) {
                              std::vector<IpPrefix> routes; // in force
                              std::set_intersection(node.approved_routes.begin(), node.approved_routes.end(),
                                                    node.advertised_routes.begin(), node.advertised_routes.end(),
                                                    std::back_inserter(routes));
                              return std::vector<std::string>{
                                  std::to_string(node.id),
                                  node.name,
                                  node.addresses.empty() ? "-" : node.addresses.front().text(),
                                  node.tags.empty() ? dash(node.user) : join(node.tags, ","),
                                  dash(node.os),
                                  state_of(node),
                                  node.online ? "-" : pretty_time(node.last_seen),
                                  some_routes(routes)};
                          });
}

std::string node_path(const Words& words) {
    return "/v1/nodes/" + percent_encode(words.name);
}

Outcome show_node(const Words& words) {
    auto answer = ask_server(words.socket, "GET", node_path(words), "");
    if (!answer || words.json) return answer;
    auto node = json::parse<NodeInfo>(*answer);
    if (!node) return node.error();
    return render_table({{"Name:", node->fqdn},
                         {"ID:", std::to_string(node->id)},
                         {"Host name:", dash(node->hostname)},
                         {"Owner:", dash(node->user)},
                         {"Tags:", dash(join(node->tags, ", "))},
                         {"Addresses:", join(texts(node->addresses), ", ")},
                         {"State:", state_of(*node)},
                         {"Last seen:", pretty_time(node->last_seen)},
                         {"Created:", pretty_time(node->created)},
                         {"Key expires:", node->key_expiry ? pretty_time(node->key_expiry) : "never"},
                         {"Ephemeral:", node->ephemeral ? "yes" : "no"},
                         {"OS:", dash(node->os)},
                         {"Client:", dash(node->client_version)},
                         {"Endpoints:", dash(join(texts(node->endpoints), ", "))},
                         {"Home DERP:", node->home_derp == 0 ? "-" : std::to_string(node->home_derp)},
                         {"Routes offered:", dash(join(texts(node->advertised_routes), ", "))},
                         {"Routes approved:", dash(join(texts(node->approved_routes), ", "))},
                         {"Primary router of:", dash(join(texts(node->primary_routes), ", "))},
                         {"Node key:", node->node_key},
                         {"Machine key:", node->machine_key}});
}

Outcome approve_node(const Words& words) {
    return change(words, "POST", node_path(words) + "/approve", "", fmt::format("approved node {}", words.name));
}
Outcome expire_node(const Words& words) {
    return change(words, "POST", node_path(words) + "/expire", "",
                  fmt::format("expired the key of node {}", words.name));
}
Outcome delete_node(const Words& words) {
    return change(words, "DELETE", node_path(words), "", fmt::format("deleted node {}", words.name));
}
Outcome rename_node(const Words& words) {
    return change(words, "POST", node_path(words) + "/rename", json::write(RenameNode{words.new_name}),
                  fmt::format("node {} is now called {}", words.name, words.new_name));
}
Outcome tag_node(const Words& words) {
    TagNode wish;
    for (const auto& tags : words.tags)
        for (auto tag : split(tags, ','))
            if (!trim(tag).empty()) wish.tags.emplace_back(trim(tag));
    return change(words, "POST", node_path(words) + "/tag", json::write(wish),
                  wish.tags.empty() ? fmt::format("node {} has no tags", words.name)
                                    : fmt::format("node {} has the tags {}", words.name, join(wish.tags, ", ")));
}
// What policies may ask about a node; with --set and --unset after the change.
Outcome node_attributes(const Words& words) {
    ChangeAttributes wish{{}, words.unset, words.expiry};
    for (const std::string& text : words.set) {
        auto equals = text.find('=');
        if (equals == std::string::npos) return Error::make("--set {}: want custom:NAME=VALUE", text);
        wish.set[text.substr(0, equals)] = text.substr(equals + 1);
    }
    const bool changes = !wish.set.empty() || !wish.unset.empty();
    if (!words.expiry.empty() && wish.set.empty()) return Error::make("--expiry is for what --set sets");
    auto answer = ask_server(words.socket, changes ? "POST" : "GET", node_path(words) + "/attributes",
                             changes ? json::write(wish) : "");
    if (!answer || words.json) return answer;
    auto attributes = json::parse<std::vector<AttributeInfo>>(*answer);
    if (!attributes) return attributes.error();
    std::vector<std::vector<std::string>> rows{{"ATTRIBUTE", "VALUE", "SOURCE", "EXPIRES"}};
    for (const AttributeInfo& one : *attributes)
        rows.push_back({one.name, one.value, one.source, one.expires ? pretty_time(one.expires) : "never"});
    return render_table(rows);
}

Outcome register_node(const Words& words) {
    return change(words, "POST", "/v1/nodes/register", json::write(RegisterNode{words.registration, words.user}),
                  fmt::format("registered {} for user {}", words.registration, words.user));
}

Outcome get_policy(const Words& words) {
    auto text = ask_server(words.socket, "GET", "/v1/policy", "");
    return text && words.json && !text->empty() ? hujson::standardize(*text) : text;
}

Outcome set_policy(const Words& words) {
    auto text = read_policy_words(words.file);
    if (!text) return text.error();
    auto answer = ask_server(words.socket, "PUT", "/v1/policy", *text);
    if (!answer) return answer.error().with("{}", words.file);
    return words.json ? *answer : "the policy is in force";
}

// The commands, with the chosen one in `chosen`.
void declare(CLI::App& app, Words& words, std::function<Outcome(const Words&)>& chosen, PolicyWords& policy_words,
             PolicyCommand& policy_command, RouteWords& route_words, RouteCommand& route_command,
             OAuthWords& oauth_words, OAuthCommand& oauth_command, ServiceWords& service_words,
             ServiceCommand& service_command) {
    app.require_subcommand(1);
    app.add_option("--socket", words.socket, "the server's Unix socket")->capture_default_str()->each([&words](auto&&) {
        words.socket_is_given = true;
    });

    auto group = [&app](const char* name, const char* text) {
        auto* made = app.add_subcommand(name, text);
        made->require_subcommand(1);
        made->fallthrough();
        return made;
    };
    auto command = [&](CLI::App* parent, const char* name, const char* text, Outcome (*run)(const Words&)) {
        auto* made = parent->add_subcommand(name, text);
        made->fallthrough();
        made->add_flag("--json", words.json, "print JSON");
        made->callback([&chosen, run] { chosen = run; });
        return made;
    };

    auto* users = group("users", "who owns nodes");
    command(users, "create", "create a user", create_user)->add_option("NAME", words.name)->required();
    command(users, "list", "list all users", list_users);
    command(users, "delete", "delete a user that owns no nodes", delete_user)
        ->add_option("NAME", words.name)
        ->required();

    auto* role = command(users, "role", "say what a user may administer, as policies mean it", set_role);
    role->add_option("NAME", words.name)->required();
    role->add_option("ROLE", words.new_name, "member, auditor, billing-admin, network-admin, it-admin, admin or owner")
        ->required();

    auto* keys = group("keys", "auth keys, with which nodes join by themselves");
    auto* create = command(keys, "create", "create an auth key and print it", create_key);
    create->add_option("--user", words.user, "who owns the nodes that join with it")->required();
    create->add_flag("--reusable", words.reusable, "good for any number of nodes");
    create->add_flag("--ephemeral", words.ephemeral, "its nodes are deleted when they have gone");
    create->add_flag("--preapproved", words.preapproved, "its nodes need no approval where the server asks for it");
    create->add_option("--expiry", words.expiry, "how long it is good: 90s, 24h, 30d; 0 for ever (default 1h)");
    create->add_option("--tags", words.tags, "its nodes carry these tags: tag:a,tag:b");
    command(keys, "list", "list all auth keys", list_keys);
    command(keys, "revoke", "make a key useless", revoke_key)
        ->add_option("ID", words.name, "its id or public part")
        ->required();

    declare_oauth_commands(app, oauth_words, oauth_command);

    auto* nodes = group("nodes", "the devices of the tailnet");
    constexpr const char* kWhich = "an id, a name, an address or a node key";
    command(nodes, "list", "list all nodes", list_nodes);
    command(nodes, "show", "show all about one node", show_node)->add_option("NODE", words.name, kWhich)->required();
    command(nodes, "approve", "let a node in that waits, where the server asks for device approval", approve_node)
        ->add_option("NODE", words.name, kWhich)
        ->required();
    command(nodes, "expire", "make a node log in again", expire_node)
        ->add_option("NODE", words.name, kWhich)
        ->required();
    command(nodes, "delete", "remove a node", delete_node)->add_option("NODE", words.name, kWhich)->required();
    auto* rename = command(nodes, "rename", "give a node another name", rename_node);
    rename->add_option("NODE", words.name, kWhich)->required();
    rename->add_option("NEW-NAME", words.new_name, "letters, digits and dashes")->required();
    auto* tag = command(nodes, "tag", "replace the tags of a node; the policy must say who owns a new one", tag_node);
    tag->add_option("NODE", words.name, kWhich)->required();
    tag->add_option("TAGS", words.tags, "tag:a,tag:b")->required();
    auto* attributes = command(nodes, "attributes", "list or change what postures go by", node_attributes);
    attributes->add_option("NODE", words.name, kWhich)->required();
    attributes->add_option("--set", words.set, "custom:NAME=VALUE; true, false, a whole number or text");
    attributes->add_option("--unset", words.unset, "custom:NAME");
    attributes->add_option("--expiry", words.expiry, "how long what is set holds: 90s, 8h, 30d (default: for ever)");
    auto* enrol = command(nodes, "register", "let a node in that waits for approval", register_node);
    enrol->add_option("ID,--key", words.registration, "as the page that the node showed says")->required();
    enrol->add_option("--user", words.user, "who owns it")->required();

    declare_route_commands(*nodes, route_words, route_command);
    declare_service_commands(app, service_words, service_command);

    auto* policy = group("policy", "who may reach what");
    command(policy, "get", "print the policy in force", get_policy);
    command(policy, "set", "put a policy in force", set_policy)
        ->add_option("FILE", words.file, "- for standard input")
        ->required();
    declare_policy_commands(*policy, policy_words, policy_command);
}

} // namespace

int run_command_line(int argc, char** argv, const ServeFunction& serve) {
    CLI::App app{"tailrace-control: the coordination server of a tailnet, and what one can say to it.",
                 "tailrace-control"};
    app.set_version_flag("--version", "tailrace-control " TAILRACE_VERSION);
    Words words;
    std::function<Outcome(const Words&)> chosen;
    PolicyWords policy_words;
    policy_words.socket = &words.socket;
    policy_words.socket_is_given = &words.socket_is_given;
    PolicyCommand policy_command;
    RouteWords route_words;
    route_words.socket = &words.socket;
    RouteCommand route_command;
    OAuthWords oauth_words;
    oauth_words.socket = &words.socket;
    OAuthCommand oauth_command;
    ServiceWords service_words;
    service_words.socket = &words.socket;
    ServiceCommand service_command;
    declare(app, words, chosen, policy_words, policy_command, route_words, route_command, oauth_words, oauth_command,
            service_words, service_command);
    bool serving = false;
    auto* server = app.add_subcommand("serve", "run the server");
    server->fallthrough();
    server->add_option("--config", words.config, "the configuration file (YAML)");
    server->callback([&serving] { serving = true; });
    if (wants_command_docs(argc, argv)) {
        fmt::print("{}\n", command_docs(app));
        return 0;
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& problem) {
        // CLI11 says of an unknown word that a subcommand is missing, and of a missing one not where.
        std::vector<std::string> arguments{argv + 1, argv + argc};
        std::string mistake = subcommand_mistake(app, arguments);
        if (std::string_view{problem.what()}.find("subcommand") == std::string_view::npos) mistake.clear();
        if (!mistake.empty()) {
            fmt::print(stderr, "{}; see --help\n", mistake);
            return 2;
        }
        return app.exit(problem) == 0 ? 0 : 2;
    }
    if (serving) return serve(words.config);
    int status = 0;
    Outcome outcome = std::string{};
    if (policy_command) {
        auto answer = policy_command();
        if (answer) {
            outcome = std::move(answer->text);
            status = answer->status;
        } else {
            outcome = answer.error();
        }
    } else if (route_command) {
        outcome = route_command();
    } else if (service_command) {
        outcome = service_command();
    } else if (oauth_command) {
        outcome = oauth_command();
    } else {
        outcome = chosen(words);
    }
    if (!outcome) {
        fmt::print(stderr, "{}\n", outcome.error());
        return 1;
    }
    if (!outcome->empty()) fmt::print("{}{}", *outcome, outcome->back() == '\n' ? "" : "\n");
    return status;
}

} // namespace tailrace
