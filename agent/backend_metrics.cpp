// Metrics. Where the reference client counts the same thing its name is used, so that dashboards go on
// (cli-localapi.md 12); what is ours begins with tailrace_. No label takes its values from peers or packets.
#include "agent/backend.hpp"
#include "agent/engine/packet_filter.hpp"
#include "agent/local/prometheus.hpp"
#include "agent/version.hpp"

#include <algorithm>
#include <map>

namespace tailrace {
namespace {

using Type = PrometheusText::Type;

/// What the reference client calls a drop.
const char* stock_reason(tr_reason reason) {
    switch (reason) {
    case TR_DROP_NO_POLICY:
    case TR_DROP_NOT_LOCAL:
    case TR_DROP_NO_RULE:
    case TR_DROP_SHIELDS_UP:
    case TR_DROP_JAILED:
    case TR_DROP_NO_FLOW:
        return "acl";
    case TR_DROP_MULTICAST:
    case TR_OUT_DROP_MULTICAST:
        return "multicast";
    case TR_DROP_LINK_LOCAL:
    case TR_OUT_DROP_LINK_LOCAL:
        return "link_local_unicast";
    case TR_DROP_TOO_SHORT:
        return "too_short";
    case TR_DROP_BAD_FRAGMENT:
    case TR_DROP_NO_FIRST:
        return "fragment";
    case TR_DROP_BAD_VERSION:
    case TR_DROP_UNKNOWN_PROTO:
        return "unknown_protocol";
    default:
        return "error";
    }
}

void write_drops(PrometheusText& out, const std::vector<ReasonCount>& reasons, bool outbound) {
    constexpr const char* kInbound[] = {
        "acl", "multicast", "link_local_unicast", "too_short", "fragment", "unknown_protocol", "error"};
    constexpr const char* kOutbound[] = {"multicast", "link_local_unicast", "error"};
    std::map<std::string_view, std::uint64_t> sums;
    for (std::size_t reason = 0; reason < reasons.size(); ++reason)
        if (!reasons[reason].passes && (reason > TR_OUT_PASS) == outbound)
            sums[stock_reason(static_cast<tr_reason>(reason))] += reasons[reason].counter.packets;
    out.family(outbound ? "tailscaled_outbound_dropped_packets_total" : "tailscaled_inbound_dropped_packets_total",
               Type::Counter,
               outbound ? "Packets to peers that were dropped." : "Packets from peers that were dropped.");
    if (outbound)
        for (const char* name : kOutbound) out.sample(sums[name], {{"reason", name}});
    else
        for (const char* name : kInbound) out.sample(sums[name], {{"reason", name}});
}

void write_verdicts(PrometheusText& out, const std::vector<ReasonCount>& reasons) {
    for (bool bytes : {false, true}) {
        out.family(
            bytes ? "tailrace_filter_bytes_total" : "tailrace_filter_packets_total", Type::Counter,
            bytes ? "Bytes in the tunnel, by what the packet filter said of their packets. Segments are counted, with "
                    "their IP headers."
                  : "Packets in the tunnel, by what the packet filter said of them. Segments are counted.");
        for (std::size_t reason = 0; reason < reasons.size(); ++reason) {
            const ReasonCount& one = reasons[reason];
            out.sample(bytes ? one.counter.bytes : one.counter.packets,
                       {{"direction", reason >= TR_OUT_PASS ? "out" : "in"},
                        {"verdict", one.passes ? "pass" : "drop"},
                        {"reason", one.name}});
        }
    }
}

void write_filter(PrometheusText& out, PacketFilter& filter) {
    if (auto reasons = filter.reasons()) {
        write_drops(out, *reasons, false);
        write_drops(out, *reasons, true);
        write_verdicts(out, *reasons);
    }
    if (auto counts = filter.translator_counts(); counts && !counts->empty()) {
        out.family("tailrace_via_packets_total", Type::Counter,
                   "Packets for 4via6 routes, by what became of them. Segments are counted.");
        for (const TranslatorCount& one : *counts)
            out.sample(one.counter.packets, {{"verdict", one.passes ? "pass" : "drop"}, {"reason", one.name}});
    }
    const PacketFilter::InForce& in_force = filter.in_force();
    out.single("tailrace_filter_generation", Type::Gauge, "Number of the policy in force, one more with each commit.",
               std::uint64_t{in_force.report.serial});
    out.single("tailrace_filter_commit_seconds", Type::Gauge, "How long it took to write the policy in force.",
               std::chrono::duration<double>(in_force.report.took).count());
    out.single("tailrace_filter_rules", Type::Gauge, "Rules that were received.", std::uint64_t{in_force.rules});
    out.single("tailrace_filter_rules_left_out", Type::Gauge, "Rules that did not fit and are not in force.",
               std::uint64_t{in_force.left_out});
    out.single("tailrace_filter_entries", Type::Gauge, "Entries of the tables of the policy in force.",
               std::uint64_t{in_force.report.entries});
    if (auto memory = filter.packet_watch().memory()) {
        out.single("tailrace_flow_table_capacity", Type::Gauge,
                   "Flows of ours that can be remembered for their replies.", memory->capacity);
        out.single("tailrace_flow_table_flows", Type::Gauge, "Flows that are remembered.",
                   std::min(memory->added - std::min(memory->added, memory->evicted), memory->capacity));
        out.single("tailrace_flow_table_added_total", Type::Counter, "Flows that were remembered.", memory->added);
        out.single("tailrace_flow_table_evicted_total", Type::Counter, "Flows that made room for others.",
                   memory->evicted);
    }
    if (auto tally = filter.packet_watch().tally()) {
        out.single("tailrace_packet_events_lost_total", Type::Counter,
                   "Events of flows and drops that found the ring buffer full.", tally->events_lost);
        out.single("tailrace_packet_drops_not_sampled_total", Type::Counter,
                   "Drops that were not told one by one, for there were too many.", tally->drops_not_sampled);
        out.single("tailrace_flow_packets_uncounted_total", Type::Counter,
                   "Packets of more flows at a time than can be watched.", tally->packets_uncounted);
    }
}

void write_guard(PrometheusText& out, const Guard& guard) {
    out.single("tailrace_guard_interfaces", Type::Gauge, "Interfaces that the guard is on.",
               std::uint64_t{guard.interfaces()});
    auto counts = guard.counts();
    if (!counts) return;
    out.family("tailrace_guard_packets_total", Type::Counter,
               "Datagrams to WireGuard's port, by what the guard said of them.");
    for (const GuardCount& count : *counts)
        out.sample(count.counter.packets, {{"verdict", count.passes ? "pass" : "drop"}, {"reason", count.name}});
}

void write_peer_relay(PrometheusText& out, const PeerRelayServer& server) {
    for (bool bytes : {false, true}) {
        out.family(bytes ? "tailscaled_peer_relay_forwarded_bytes_total"
                         : "tailscaled_peer_relay_forwarded_packets_total",
                   Type::Counter, bytes ? "Bytes relayed for peers." : "Packets relayed for peers.");
        for (bool from_v6 : {false, true})
            for (bool to_v6 : {false, true}) {
                const auto& traffic = server.forwarded(from_v6, to_v6);
                out.sample(bytes ? traffic.bytes : traffic.packets,
                           {{"transport_in", from_v6 ? "udp6" : "udp4"}, {"transport_out", to_v6 ? "udp6" : "udp4"}});
            }
    }
    std::uint64_t open = 0, connecting = 0;
    for (const RelaySessions::State& session : server.sessions())
        ++(session.clients[0].at && session.clients[1].at ? open : connecting);
    out.family("tailscaled_peer_relay_endpoints", Type::Gauge, "Pairs of peers that may use our relay.");
    out.sample(connecting, {{"state", "connecting"}});
    out.sample(open, {{"state", "open"}});
}

} // namespace

void Backend::write_path_metrics(PrometheusText& out) {
    constexpr std::pair<PathTraffic::Kind, const char*> kPaths[] = {{PathTraffic::DirectV4, "direct_ipv4"},
                                                                    {PathTraffic::DirectV6, "direct_ipv6"},
                                                                    {PathTraffic::Relay, "derp"},
                                                                    {PathTraffic::PeerRelayV4, "peer_relay_ipv4"},
                                                                    {PathTraffic::PeerRelayV6, "peer_relay_ipv6"}};
    for (bool inbound : {true, false}) {
        out.family(inbound ? "tailscaled_inbound_bytes_total" : "tailscaled_outbound_bytes_total", Type::Counter,
                   inbound ? "Bytes that WireGuard received from peers." : "Bytes that WireGuard sent to peers.");
        for (const auto& [kind, name] : kPaths)
            out.sample(inbound ? path_traffic_.of(kind).received : path_traffic_.of(kind).sent, {{"path", name}});
    }
    std::uint64_t direct4 = 0, direct6 = 0, relayed = 0, none = 0, online = 0;
    TimePoint now = reactor_.now();
    for (const auto& [id, node] : netmap_.peers()) {
        online += node.online.value_or(false);
        PathBook::State path;
        if (paths_) path = paths_->book().state(now, node.key);
        if (!path.endpoint)
            ++none;
        else if (path.relayed)
            ++relayed;
        else
            ++(path.endpoint->address.is_v4() ? direct4 : direct6);
    }
    out.single("tailrace_peers", Type::Gauge, "Peers in the network map.", std::uint64_t{netmap_.peers().size()});
    out.single("tailrace_peers_online", Type::Gauge, "Peers that are online, as control says.", online);
    out.family("tailrace_peer_paths", Type::Gauge, "Peers by the path that is in force; idle ones are relayed.");
    out.sample(direct4, {{"path", "direct_ipv4"}});
    out.sample(direct6, {{"path", "direct_ipv6"}});
    out.sample(relayed, {{"path", "derp"}});
    out.sample(none, {{"path", "none"}});
    out.family("tailrace_udp_lifetime_cycles_total", Type::Counter,
               "Silent paths to peers that were probed until they were lost, by the silence that they outlived.");
    const PathBook::LifetimeCounts lifetimes = paths_ ? paths_->book().lifetime_counts() : PathBook::LifetimeCounts{};
    for (std::size_t i = 0; i < lifetimes.size(); ++i) {
        auto outlived = i == 0 ? std::chrono::seconds{0} : UdpLifetime::kCliffs.at(i - 1);
        out.sample(lifetimes.at(i), {{"outlived_seconds", std::to_string(outlived.count())}});
    }
    out.single("tailscaled_home_derp_region_id", Type::Gauge, "Region of the home relay, 0 for none.",
               static_cast<std::uint64_t>(std::max(paths_ ? paths_->home() : 0, 0)));
    out.single("tailrace_relay_connected", Type::Gauge, "1 while there is a connection to the home relay.",
               std::uint64_t{paths_ && paths_->is_relaying()});
    out.single("tailrace_relay_troubles", Type::Gauge, "Relays that are wanted and in trouble.",
               std::uint64_t{paths_ ? paths_->relays().troubles().size() : 0});
    if (const PeerRelayServer* server = paths_ ? paths_->peer_relay_server() : nullptr) write_peer_relay(out, *server);
}

std::string Backend::metrics_text() {
    if (engine_up_)
        if (auto now = engine_.read()) take_device_state(std::move(*now));
    PrometheusText out;
    out.family("tailrace_build_info", Type::Gauge, "1, with the version of the agent.");
    out.sample(std::uint64_t{1}, {{"version", kVersion}});
    out.single("tailrace_backend_state", Type::Gauge,
               "0 no state, 2 needs login, 3 needs approval, 4 stopped, 5 starting, 6 running.",
               static_cast<std::uint64_t>(state_));
    out.single("tailrace_control_connected", Type::Gauge, "1 while network maps are streamed to us.",
               std::uint64_t{in_map_poll_});
    out.single("tailrace_address_looks_total", Type::Counter,
               "Times that the host's addresses were looked at anew, because of changes.", look_pace_.looks());
    out.single("tailrace_fast_path_in_force", Type::Gauge,
               "1 while established forwarded flows skip the slow path (routers with NAT or stateful filtering).",
               std::uint64_t{engine_.has_fast_path()});
    out.family("tailscaled_health_messages", Type::Gauge, "Messages of the health report.");
    out.sample(std::uint64_t{health().size()}, {{"type", "warning"}});

    std::uint64_t advertised = 0, approved = 0;
    auto wanted = prefs_.routes();
    for (const IpPrefix& route : wanted) advertised += !route.is_default();
    if (netmap_.has_self())
        for (const IpPrefix& route : netmap_.self().routes_to())
            approved += !route.is_default() && std::ranges::find(wanted, route) != wanted.end();
    out.single("tailscaled_advertised_routes", Type::Gauge,
               "Routes that this node advertises, exit routes not counted.", advertised);
    out.single("tailscaled_approved_routes", Type::Gauge,
               "Advertised routes that are approved, exit routes not counted.", approved);
    write_path_metrics(out);
    out.single("tailrace_packet_watchers", Type::Gauge, "Clients that watch flows or drops now.",
               flow_watch_.watchers());
    if (PacketFilter* filter = engine_.filter()) write_filter(out, *filter);
    if (const Guard* guard = engine_.guard().guard()) write_guard(out, *guard);
    return out.take();
}

} // namespace tailrace
