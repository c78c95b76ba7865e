#include "agent/cli/format.hpp"
#include "agent/local/pretty_json.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "proto/control/dns.hpp"

#include <algorithm>
#include <cmath>

namespace tailrace::cli {
namespace {

std::string first_ip(const PeerStatus& peer) {
    return peer.tailscale_ips && !peer.tailscale_ips->empty() ? peer.tailscale_ips->front().text() : "";
}

std::string shown_name(const PeerStatus& peer, std::string_view suffix) {
    std::string name = peer.dns_name;
    if (name.empty()) return fmt::format("(\"{}\")", peer.host_name);
    if (name.ends_with('.')) name.pop_back();
    if (!suffix.empty() && name.size() > suffix.size() + 1 && name.ends_with(suffix) &&
        name[name.size() - suffix.size() - 1] == '.')
        name.resize(name.size() - suffix.size() - 1);
    return name;
}

std::string owner(const Status& status, const PeerStatus& peer) {
    std::int64_t id = peer.alt_sharer_user_id != 0 ? peer.alt_sharer_user_id : peer.user_id;
    if (!status.user || !status.user->contains(id)) return "-";
    const std::string& login = status.user->at(id).login_name;
    if (auto at = login.find('@'); at != std::string::npos) return login.substr(0, at + 1);
    return login.empty() ? "-" : login;
}

std::string state_text(const PeerStatus& peer, const WallTime& now, bool is_self) {
    bool traffic = peer.tx_bytes != 0 || peer.rx_bytes != 0;
    std::string out;
    if (!peer.active) {
        if (peer.exit_node)
            out = "idle; exit node";
        else if (peer.exit_node_option && !is_self)
            out = "idle; offers exit node";
        else if (!peer.online && !is_self)
            return offline_text(peer, now);
        else if (traffic)
            out = "idle";
        else
            return "-";
        if (!peer.online && !is_self) out += "; " + offline_text(peer, now);
    } else {
        out = "active; ";
        if (peer.exit_node)
            out += "exit node; ";
        else if (peer.exit_node_option)
            out += "offers exit node; ";
        if (!peer.cur_addr.empty())
            out += "direct " + peer.cur_addr;
        else if (!peer.peer_relay.empty())
            out += "peer-relay " + peer.peer_relay;
        else if (!peer.relay.empty())
            out += fmt::format("relay \"{}\"", peer.relay);
        if (!peer.online) out += "; " + offline_text(peer, now);
        while (out.ends_with("; ")) out.resize(out.size() - 2);
    }
    if (traffic) out += fmt::format(", tx {} rx {}", peer.tx_bytes, peer.rx_bytes);
    return out;
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
    std::vector<std::size_t> width;
    for (const auto& row : rows)
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (width.size() <= i) width.push_back(0);
            width[i] = std::max(width[i], row[i].size());
        }
    std::string out;
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) out += row[i] + std::string(width[i] - row[i].size() + 2, ' ');
        out += '\n';
    }
    return out;
}

/// Names come from other machines: nothing in them may move the cursor.
std::string harmless(std::string_view text) {
    std::string out{text};
    for (char& c : out)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return out;
}

} // namespace

std::string text_of(const boost::json::object& object, const char* name) {
    const auto* member = object.if_contains(name);
    return member != nullptr && member->is_string() ? harmless(member->get_string().c_str()) : std::string{};
}

std::string policy_lines_text(const boost::json::object& object) {
    constexpr std::size_t kShown = 6;
    const auto* member = object.if_contains("PolicyLines");
    if (member == nullptr || !member->is_array()) return "";
    std::vector<std::string> lines;
    for (const auto& line : member->get_array())
        if (line.is_number()) lines.push_back(fmt::format("{:.0f}", line.to_number<double>()));
    if (lines.size() < 2) return lines.empty() ? "" : "line " + lines[0];
    if (lines.size() > kShown) {
        lines[kShown - 1] = fmt::format("{} more", lines.size() - kShown + 1);
        lines.resize(kShown);
    }
    std::string last = std::move(lines.back());
    lines.pop_back();
    return fmt::format("lines {} and {}", join(lines, ", "), last);
}

std::string offline_text(const PeerStatus& peer, const WallTime& now) {
    if (peer.last_seen.is_zero()) return "offline";
    auto minutes =
        std::max<std::int64_t>(1, std::chrono::duration_cast<std::chrono::minutes>(now.minus(peer.last_seen)).count());
    if (minutes < 60) return fmt::format("offline, last seen {}m ago", minutes);
    if (minutes < 60 * 24) return fmt::format("offline, last seen {}h ago", minutes / 60);
    return fmt::format("offline, last seen {}d ago", minutes / 60 / 24);
}

std::string status_table(const Status& status, const StatusOptions& options, const WallTime& now) {
    std::vector<std::vector<std::string>> rows;
    if (options.header) {
        rows.push_back({"IP", "Hostname", "Owner", "OS", "Status"});
        rows.push_back({"--", "--------", "-----", "--", "------"});
    }
    auto add = [&](const PeerStatus& peer, bool is_self) {
        rows.push_back({first_ip(peer), shown_name(peer, status.magic_dns_suffix), owner(status, peer), peer.os,
                        state_text(peer, now, is_self)});
    };
    if (options.self && status.self) add(*status.self, true);
    if (options.peers && status.peer) {
        std::vector<const PeerStatus*> peers;
        for (const auto& [key, peer] : *status.peer) {
            if (peer.sharee_node || (options.active_only && !peer.active)) continue;
            if (peer.dns_name.ends_with(".mullvad.ts.net.") && !peer.exit_node) continue;
            peers.push_back(&peer);
        }
        std::ranges::sort(peers, [](const PeerStatus* a, const PeerStatus* b) {
            return std::tuple{a->dns_name, a->host_name, first_ip(*a), a->public_key} <
                   std::tuple{b->dns_name, b->host_name, first_ip(*b), b->public_key};
        });
        for (const PeerStatus* peer : peers) add(*peer, false);
    }
    std::string out = table(rows);
    if (status.health && !status.health->empty()) {
        out += "\n# Health check:\n";
        for (const std::string& message : *status.health) out += "#     - " + message + "\n";
    }
    return out;
}

std::string version_skew_text(std::string_view ours, std::string_view theirs) {
    if (theirs.empty() || ours == theirs) return "";
    return fmt::format("Warning: client version \"{}\" != tailraced server version \"{}\"", ours, harmless(theirs));
}

std::string how_to_approve(const PeerStatus& self) {
    std::string name = self.dns_name.empty() ? self.host_name : self.dns_name;
    if (name.ends_with('.')) name.pop_back();
    return fmt::format("Have whoever runs the server approve it: tailrace-control nodes approve {}", harmless(name));
}

std::string not_running_text(const Status& status) {
    if (status.backend_state == "Stopped") return "Tailrace is stopped.\n";
    if (status.backend_state == "NeedsLogin") {
        std::string out = "Logged out.\n";
        if (!status.auth_url.empty()) out += "Log in at: " + status.auth_url + "\n";
        return out;
    }
    if (status.backend_state == "NeedsMachineAuth")
        return fmt::format("Machine is not yet approved by tailnet admin.\n{}\n",
                           how_to_approve(status.self ? *status.self : PeerStatus{}));
    return "unexpected state: " + status.backend_state + "\n";
}

std::string latency_text(double seconds) {
    return fmt::format("{}ms", static_cast<std::int64_t>(std::llround(seconds * 1000)));
}

std::string ping_line(const PingResult& result, std::string_view type) {
    if (type == "peerapi")
        return fmt::format("hit peerapi of {} ({}) at {} in {}\n", result.node_ip, result.node_name,
                           result.peer_api_url, latency_text(result.latency_seconds));
    std::string via;
    if (type == "TSMP" || type == "ICMP") {
        via = std::string{type};
    } else if (!result.peer_relay.empty()) {
        via = fmt::format("peer-relay({})", result.peer_relay);
    } else if (result.derp_region_id != 0) {
        via = fmt::format("DERP({})", result.derp_region_code);
    } else {
        via = result.endpoint;
    }
    std::string port = type == "TSMP" ? fmt::format(", {}", result.peer_api_port) : "";
    return fmt::format("pong from {} ({}{}) via {} in {}\n", result.node_name, result.node_ip, port, via,
                       latency_text(result.latency_seconds));
}

Result<std::string> whois_text(std::string_view text) {
    auto value = json::parse_value(text);
    if (!value) return value.error();
    if (!value->is_object()) return Error::make("whois: the agent's answer is not an object");
    const auto& answer = value->get_object();
    auto text_of = [](const boost::json::value* member) {
        if (member == nullptr) return std::string{};
        if (member->is_string()) return std::string{member->get_string().c_str()};
        return json::write_value(*member);
    };
    auto list_of = [&](const boost::json::value* member, std::size_t skip) {
        std::string out = "[";
        if (member != nullptr && member->is_array())
            for (std::size_t i = skip; i < member->get_array().size(); ++i)
                out += (out.size() > 1 ? " " : "") + text_of(&member->get_array()[i]);
        return out + "]";
    };
    const auto* node = answer.if_contains("Node");
    if (node == nullptr || !node->is_object()) return Error::make("whois: the agent's answer has no Node");
    const auto& n = node->get_object();
    std::string name = text_of(n.if_contains("Name"));
    if (name.ends_with('.')) name.pop_back();
    std::string out = "Machine:\n";
    out += fmt::format("  {:<15} {}\n", "Name:", name);
    out += fmt::format("  {:<15} {}\n", "ID:", text_of(n.if_contains("StableID")));
    out += fmt::format("  {:<15} {}\n", "Addresses:", list_of(n.if_contains("Addresses"), 0));
    if (const auto* allowed = n.if_contains("AllowedIPs");
        allowed != nullptr && allowed->is_array() && allowed->get_array().size() > 2)
        out += fmt::format("  {:<15} {}\n", "AllowedIPs:", list_of(allowed, 2));
    const auto* tags = n.if_contains("Tags");
    if (tags != nullptr && tags->is_array() && !tags->get_array().empty()) {
        std::string joined;
        for (const auto& tag : tags->get_array()) joined += (joined.empty() ? "" : ", ") + text_of(&tag);
        out += fmt::format("  {:<15} {}\n", "Tags:", joined);
    } else if (const auto* profile = answer.if_contains("UserProfile"); profile != nullptr && profile->is_object()) {
        out += "User:\n";
        out += fmt::format("  {:<15} {}\n", "Name:", text_of(profile->get_object().if_contains("LoginName")));
        out += fmt::format("  {:<15} {}\n", "ID:", text_of(profile->get_object().if_contains("ID")));
    }
    if (const auto* caps = answer.if_contains("CapMap");
        caps != nullptr && caps->is_object() && !caps->get_object().empty()) {
        out += "Capabilities:\n";
        for (const auto& cap : caps->get_object()) {
            out += fmt::format("  - {}:\n", std::string_view{cap.key().data(), cap.key().size()});
            if (!cap.value().is_array()) continue;
            for (const auto& element : cap.value().get_array()) {
                std::string pretty = pretty_json(json::write_value(element), "  ");
                for (auto line : split(pretty, '\n')) out += fmt::format("      {}\n", line);
            }
        }
    }
    return out;
}

std::string scrub_auth_keys(std::string_view text) {
    std::string out{text};
    for (std::string_view prefix : {"tskey-", "trkey-", "hskey-"}) {
        for (std::size_t at = out.find(prefix); at != std::string::npos; at = out.find(prefix, at + 1)) {
            for (std::size_t i = at + prefix.size(); i < out.size(); ++i) {
                unsigned char c = static_cast<unsigned char>(out[i]);
                if (!std::isalnum(c) && c != '-') break;
                out[i] = 'X';
            }
        }
    }
    return out;
}

std::string shell_quote(std::string_view text) {
    bool plain = !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
        return std::isalnum(c) || std::string_view{"-_./:,@%+="}.find(static_cast<char>(c)) != std::string_view::npos;
    });
    if (plain) return std::string{text};
    std::string out = "'";
    for (char c : text) out += c == '\'' ? std::string{"'\"'\"'"} : std::string(1, c);
    return out + "'";
}

bool is_named(const PeerStatus& peer, std::string_view name) {
    std::string full = peer.dns_name;
    std::string wanted{name};
    if (!wanted.ends_with('.')) wanted += '.';
    if (equals_ignoring_case(full, wanted)) return true;
    return equals_ignoring_case(full.substr(0, full.find('.')), name) && !full.empty();
}

Result<const PeerStatus*> find_peer(const Status& status, std::string_view name) {
    auto address = IpAddress::parse(name);
    bool is_address = address && address->valid();
    auto matches = [&](const PeerStatus& peer) {
        if (is_address)
            return peer.tailscale_ips && std::ranges::find(*peer.tailscale_ips, *address) != peer.tailscale_ips->end();
        return is_named(peer, name);
    };
    if (status.self && matches(*status.self)) return &*status.self;
    if (status.peer)
        for (const auto& [key, peer] : *status.peer)
            if (matches(peer)) return &peer;
    if (is_address) return Error::make("no matching peer");
    return Error::make("error looking up IP of \"{}\": no peer of that name", name);
}

std::vector<IpAddress> addresses_of_service(const Status& status, std::string_view name) {
    constexpr std::string_view kPrefix = "svc:";
    std::vector<IpAddress> out;
    if (!status.extra_records) return out;
    auto records = json::parse<std::vector<wire::DnsRecord>>(status.extra_records->text);
    if (!records) return out;
    if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
    if (name.ends_with('.')) name.remove_suffix(1);
    const std::string suffix = "." + status.magic_dns_suffix;
    for (const wire::DnsRecord& record : *records) {
        std::string_view whole = record.name;
        if (whole.ends_with('.')) whole.remove_suffix(1);
        const std::string_view label = whole.ends_with(suffix) ? whole.substr(0, whole.size() - suffix.size()) : whole;
        if (!equals_ignoring_case(name, whole) && !equals_ignoring_case(name, label)) continue;
        if (auto address = IpAddress::parse(record.value); address && address->valid()) out.push_back(*address);
    }
    return out;
}

} // namespace tailrace::cli
