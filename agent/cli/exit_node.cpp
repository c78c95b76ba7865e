#include "agent/cli/exit_node.hpp"
#include "agent/cli/commands.hpp"
#include "agent/exit_node/choice.hpp"
#include "agent/local/pretty_json.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <cstdio>

namespace tailrace::cli {
namespace {

/// Where an exit node says that it is.
struct Place {
    std::string country, country_code, city, city_code;
    std::int64_t priority = 0;
};

Place place_of(const PeerStatus& peer) {
    Place place;
    if (!peer.location) return place;
    auto value = json::parse_value(peer.location->text);
    if (!value || !value->is_object()) return place;
    auto text = [&](const char* name) {
        const auto* member = value->get_object().if_contains(name);
        return member != nullptr && member->is_string() ? std::string{member->get_string().c_str()} : std::string{};
    };
    place = {text("Country"), text("CountryCode"), text("City"), text("CityCode")};
    if (const auto* priority = value->get_object().if_contains("Priority"); priority != nullptr && priority->is_int64())
        place.priority = priority->get_int64();
    return place;
}

struct Row {
    const PeerStatus* peer;
    Place place;
};

std::string state_of(const PeerStatus& peer, const WallTime& now) {
    std::string seen;
    if (!peer.last_seen.is_zero()) {
        std::string offline = offline_text(peer, now);
        if (auto comma = offline.find(','); comma != std::string::npos) seen = offline.substr(comma);
    }
    // Also where we send to it all the time: the reference client calls one without power "selected" then.
    if (!peer.online) return (peer.exit_node ? "selected but offline" : "offline") + seen;
    return peer.exit_node ? "selected" : "-";
}

void sort_by_priority(std::vector<Row>& rows) {
    std::ranges::stable_sort(rows, [](const Row& a, const Row& b) { return a.place.priority > b.place.priority; });
}

/// One country's rows: the best of each city and who is selected, all of them where a country was asked for.
void add_country(std::vector<Row>& out, std::vector<Row> rows, bool all) {
    std::map<std::string, std::vector<Row>> cities;
    for (const Row& row : rows) cities[row.place.city_code].push_back(row);
    if (cities.size() > 1) {
        sort_by_priority(rows);
        Row any = rows.front();
        any.place.city = "Any";
        out.push_back(std::move(any));
    }
    std::vector<std::vector<Row>> by_name;
    for (auto& [code, list] : cities) by_name.push_back(std::move(list));
    std::ranges::stable_sort(by_name, {}, [](const std::vector<Row>& list) { return list.front().place.city; });
    for (std::vector<Row>& list : by_name) {
        sort_by_priority(list);
        for (std::size_t i = 0; i < list.size(); ++i)
            if (all || i == 0 || list[i].peer->exit_node) out.push_back(list[i]);
    }
}

} // namespace

Result<void> choose_exit_node(Prefs& prefs, const std::string& value, const Status& status) {
    prefs.exit_node_id.clear();
    prefs.exit_node_ip.clear();
    prefs.auto_exit_node.clear();
    if (value.empty()) return {};
    if (value.starts_with("auto:")) {
        if (value != kUnresolvedExitNode)
            return Error::make("invalid value \"{}\" for --exit-node; the only one of that kind is auto:any", value);
        prefs.auto_exit_node = value.substr(5);
        prefs.exit_node_id = kUnresolvedExitNode;
        return {};
    }
    auto address = IpAddress::parse(value);
    bool is_address = address && address->valid();
    if (is_address && (status.backend_state != "Running" || !status.peer)) {
        prefs.exit_node_ip = value; // the agent finds out whose it is
        return {};
    }
    auto is_local = [&](const IpAddress& one) {
        return status.tailscale_ips && std::ranges::find(*status.tailscale_ips, one) != status.tailscale_ips->end();
    };
    auto local = [&] {
        return Error::make("cannot use {} as an exit node as it is a local IP address to this machine; did you mean "
                           "--advertise-exit-node?",
                           value);
    };
    if (is_address && is_local(*address)) return local();
    const PeerStatus* found = nullptr;
    if (status.peer)
        for (const auto& [key, peer] : *status.peer) {
            bool matches = false;
            if (is_address)
                matches =
                    peer.tailscale_ips && std::ranges::find(*peer.tailscale_ips, *address) != peer.tailscale_ips->end();
            else
                matches = is_named(peer, value);
            if (!matches) continue;
            if (found != nullptr) return Error::make("ambiguous exit node name \"{}\"", value);
            found = &peer;
        }
    if (found == nullptr && status.self && !is_address && is_named(*status.self, value)) return local();
    if (found == nullptr && is_address) return Error::make("no node found in netmap with IP {}", value);
    if (found == nullptr)
        return Error::make("invalid value \"{}\" for --exit-node; must be IP or peer hostname", value);
    if (!found->exit_node_option)
        return is_address ? Error::make("node {} is not advertising an exit node", value)
                          : Error::make("node \"{}\" is not advertising an exit node", value);
    prefs.exit_node_id = found->id;
    return {};
}

Result<std::string> exit_node_table(const Status& status, const std::string& country, const WallTime& now) {
    std::vector<Row> offered;
    if (status.peer)
        for (const auto& [key, peer] : *status.peer)
            if (peer.exit_node_option) offered.push_back({&peer, place_of(peer)});
    if (offered.empty()) return Error::make("no exit nodes found");
    std::ranges::sort(offered, {}, [](const Row& row) { return row.peer->dns_name; });
    const bool suggestible =
        std::ranges::any_of(offered, [](const Row& row) { return row.peer->cap_map.contains("suggest-exit-node"); });
    if (!country.empty())
        std::erase_if(offered, [&](const Row& row) { return !equals_ignoring_case(row.place.country, country); });
    if (offered.empty()) return Error::make("no exit nodes found for \"{}\"", country);
    std::map<std::string, std::vector<Row>> countries; // by name; without one first
    for (const Row& row : offered) countries[row.place.country].push_back(row);
    std::vector<Row> rows;
    for (auto& [name, list] : countries) {
        if (name.empty())
            rows.insert(rows.end(), list.begin(), list.end());
        else
            add_country(rows, std::move(list), !country.empty());
    }
    auto or_dash = [](const std::string& text) { return text.empty() ? std::string{"-"} : text; };
    std::vector<std::vector<std::string>> cells = {{"IP", "HOSTNAME", "COUNTRY", "CITY", "STATUS"}};
    for (const Row& row : rows) {
        const PeerStatus& peer = *row.peer;
        std::string name = peer.dns_name;
        if (name.ends_with('.')) name.pop_back();
        cells.push_back({peer.tailscale_ips && !peer.tailscale_ips->empty() ? peer.tailscale_ips->front().text() : "-",
                         name, or_dash(row.place.country), or_dash(row.place.city), state_of(peer, now)});
    }
    constexpr std::size_t kGap = 5, kLeastWidth = 10;
    std::string out;
    for (const auto& row : cells) {
        out += "\n ";
        for (std::size_t i = 0; i < row.size(); ++i) {
            std::size_t width = 0;
            for (const auto& other : cells) width = std::max(width, other[i].size());
            width = std::max(width + kGap, kLeastWidth);
            out += row[i] + std::string(width - row[i].size(), ' ');
        }
    }
    out +=
        "\n\n# To view the complete list of exit nodes for a country, use `tailrace exit-node list --filter=` followed "
        "by "
        "the country name.\n# To use an exit node, use `tailrace set --exit-node=` followed by the hostname or IP.\n";
    if (suggestible) out += "# To have one suggested, use `tailrace exit-node suggest`.\n";
    return out;
}

std::string exit_node_json(const Status& status, const std::string& country) {
    boost::json::array out;
    if (status.peer)
        for (const auto& [key, peer] : *status.peer) {
            Place place = place_of(peer);
            if (!peer.exit_node_option) continue;
            if (!country.empty() && !equals_ignoring_case(place.country, country)) continue;
            boost::json::array addresses;
            for (const IpAddress& one : peer.tailscale_ips.value_or(std::vector<IpAddress>{}))
                addresses.emplace_back(one.text());
            out.push_back({{"ID", peer.id},
                           {"TailscaleIPs", std::move(addresses)},
                           {"DNSName", peer.dns_name},
                           {"Country", place.country},
                           {"City", place.city},
                           {"Online", peer.online},
                           {"Selected", peer.exit_node}});
        }
    return boost::json::serialize(out);
}

Prefs with_exit_node_shown(Prefs prefs, const Status& status) {
    if (!status.peer || prefs.exit_node_id.empty() || !prefs.auto_exit_node.empty()) return prefs;
    for (const auto& [key, peer] : *status.peer)
        if (peer.id == prefs.exit_node_id && peer.tailscale_ips && !peer.tailscale_ips->empty()) {
            prefs.exit_node_id.clear();
            prefs.exit_node_ip = peer.tailscale_ips->front().text();
        }
    return prefs;
}

Task<int> use_exit_node(LocalClient& client, bool enabled) {
    auto done =
        co_await client.request("POST", fmt::format("/localapi/v0/set-use-exit-node-enabled?enabled={}", enabled), "");
    if (!done) co_return fail(done.error().message());
    co_return 0;
}

Task<int> exit_node_list(LocalClient& client, std::string country, bool json_wanted) {
    auto status = co_await client.status();
    if (!status) co_return fail(status.error().message());
    if (json_wanted) {
        fmt::print("{}\n", exit_node_json(*status, country));
        co_return 0;
    }
    auto table = exit_node_table(*status, country, WallTime::now());
    if (!table) co_return fail(table.error().message());
    fmt::print("{}", *table);
    co_return 0;
}

Task<int> exit_node_suggest(LocalClient& client, bool json_wanted) {
    auto body = co_await client.request("GET", "/localapi/v0/suggest-exit-node", "");
    if (!body) co_return fail(fmt::format("suggest exit node: {}", body.error().message()));
    if (json_wanted) {
        fmt::print("{}\n", pretty_json(*body, "  "));
        co_return 0;
    }
    auto value = json::parse_value(*body);
    const auto* name = value && value->is_object() ? value->get_object().if_contains("Name") : nullptr;
    if (name == nullptr || !name->is_string() || name->get_string().empty()) {
        fmt::print("No exit node suggestion is available.\n");
        co_return 0;
    }
    const std::string text{name->get_string().c_str()};
    fmt::print("Suggested exit node: {}\nTo accept this suggestion, use `tailrace set --exit-node={}`.\n", text,
               shell_quote(text));
    co_return 0;
}

} // namespace tailrace::cli
