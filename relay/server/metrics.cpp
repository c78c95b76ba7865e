#include "relay/server/metrics.hpp"

#include <fmt/format.h>

namespace tailrace::relay {
namespace {

struct Metric {
    const char* name;
    const char* kind;
    const char* help;
    Counter Counters::*member;
};

constexpr Metric kMetrics[] = {
    {"packets_received_total", "counter", "Packets that clients sent", &Counters::packets_received},
    {"bytes_received_total", "counter", "Payload bytes that clients sent", &Counters::bytes_received},
    {"packets_sent_total", "counter", "Packets passed on to clients", &Counters::packets_sent},
    {"bytes_sent_total", "counter", "Payload bytes passed on to clients", &Counters::bytes_sent},
    {"packets_forwarded_out_total", "counter", "Packets given to other relays", &Counters::packets_forwarded_out},
    {"packets_forwarded_in_total", "counter", "Packets taken from other relays", &Counters::packets_forwarded_in},
    {"accepted_total", "counter", "Connections accepted", &Counters::accepted},
    {"connections", "gauge", "Connections, also those that are not logged in", &Counters::connections},
    {"clients", "gauge", "Connections that are logged in", &Counters::clients},
    {"home_clients", "gauge", "Clients whose home is this region", &Counters::home_clients},
    {"websocket_clients", "gauge", "Clients over WebSocket", &Counters::websocket_clients},
    {"keys", "gauge", "Node keys with a connection here", &Counters::keys},
    {"duplicate_keys", "gauge", "Node keys with more than one", &Counters::duplicate_keys},
    {"watchers", "gauge", "Other relays that watch who is here", &Counters::watchers},
    {"forwarded_keys", "gauge", "Node keys reached through other relays", &Counters::forwarded_keys},
    {"mesh_links", "gauge", "Links to other relays that are up", &Counters::mesh_links},
    {"logins_refused_total", "counter", "Clients that admission turned away", &Counters::logins_refused},
    {"login_timeouts_total", "counter", "Connections that did not log in in time", &Counters::login_timeouts},
    {"write_timeouts_total", "counter", "Clients given up because they did not read", &Counters::write_timeouts},
    {"pings_total", "counter", "Pings of clients", &Counters::pings},
    {"peer_gone_sent_total", "counter", "Notices that a peer is gone or not here", &Counters::peer_gone_sent},
    {"moved_between_cores_total", "counter", "Connections moved to the core of their key",
     &Counters::moved_between_cores},
    {"stun_answered_total", "counter", "STUN requests answered", &Counters::stun_answered},
    {"stun_ignored_total", "counter", "Datagrams on the STUN port that deserved silence", &Counters::stun_ignored},
    {"wakes_total", "counter", "Rounds of the event loops", &Counters::wakes},
};

} // namespace

std::string write_metrics(const std::vector<const Counters*>& cores) {
    std::string out;
    for (const Metric& metric : kMetrics) {
        std::uint64_t sum = 0;
        for (const Counters* counters : cores) sum += (counters->*metric.member).get();
        out += fmt::format("# HELP tailrace_relay_{0} {1}.\n# TYPE tailrace_relay_{0} {2}\ntailrace_relay_{0} {3}\n",
                           metric.name, metric.help, metric.kind, sum);
    }
    out += "# HELP tailrace_relay_packets_dropped_total Packets that were not passed on.\n"
           "# TYPE tailrace_relay_packets_dropped_total counter\n";
    for (std::size_t reason = 0; reason < kDropReasons; ++reason)
        for (std::size_t kind = 0; kind < 2; ++kind) {
            std::uint64_t sum = 0;
            for (const Counters* counters : cores) sum += counters->dropped[reason][kind].get();
            out += fmt::format("tailrace_relay_packets_dropped_total{{reason=\"{}\",kind=\"{}\"}} {}\n",
                               kDropReasonNames[reason], kind == 0 ? "disco" : "other", sum);
        }
    return out;
}

} // namespace tailrace::relay
