// agent/path/net_report.hpp - what STUN tells about our network, and which relay region is home
// (derp-disco-paths.md 4.2 and 4.13). Source: tailscale net/netcheck/netcheck.go.
#pragma once
#include "agent/path/port_mapping.hpp"
#include "base/net.hpp"
#include "base/time.hpp"
#include "proto/control/derp_map.hpp"
#include "proto/stun.hpp"

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

struct NetReport {
    bool udp = false; ///< some STUN server answered
    bool ipv4 = false, ipv6 = false;
    bool ipv4_can_send = false, ipv6_can_send = false;
    bool os_has_ipv6 = false;
    bool icmp_v4 = false;                              ///< an echo came back; asked only where no STUN server answers
    std::optional<bool> mapping_varies_by_destination; ///< known from two answers over IPv4
    int preferred_derp = 0;
    std::map<int, Duration> region_latency, region_v4_latency, region_v6_latency;
    std::optional<Endpoint> global_v4, global_v6;
    std::map<Endpoint, int> seen_v4, seen_v6; ///< how many answers named each
    std::vector<Endpoint> other_globals;      ///< seen in more than one answer
    std::optional<bool> captive_portal;       ///< somebody answers HTTP in the name of others; empty: not known
    PortMapping::Services mapping;            ///< what the gateway speaks

    bool operator==(const NetReport&) const = default;
};

/// As `netcheck --format json-line` of stock clients prints it, in one line.
std::string write_net_report(const NetReport& report, const WallTime& now);

/// One measurement: which probes to send when, and what the answers mean. Pure.
class NetCheck {
public:
    static constexpr auto kWindow = std::chrono::seconds{3};
    static constexpr int kAttempts = 3; ///< to one region, kAttemptGap apart, over its nodes in turn
    static constexpr auto kAttemptGap = std::chrono::milliseconds{100};
    static constexpr int kNearest = 3;      ///< regions of a short plan, beside home
    static constexpr int kHomeAttempts = 4; ///< of a short plan, so that home does not change for a lost datagram

    /// Whom to ask: a STUN server of a region, its addresses known.
    struct Server {
        int region = 0;
        Endpoint address;
        bool avoid = false; ///< the region is nobody's choice
    };
    struct Planned {
        Duration delay{}; ///< after the beginning
        Server server;
    };
    struct Plan {
        std::vector<Planned> probes;
        bool full = true;
    };
    /// Every region and family.
    static Plan full_plan(std::vector<Server> servers);
    /// The nearest regions by the last report, and home. A full one when there is nothing to go by.
    static Plan short_plan(std::vector<Server> servers, const NetReport& last, int home);
    struct Probe {
        Endpoint to;
        stun::TxId id{};
    };
    NetCheck(TimePoint now, Plan plan);

    /// What is to be sent by now.
    std::vector<Probe> due(TimePoint now);
    /// The probe could not be sent, or could.
    void on_sent(const Probe& probe, bool sent);
    /// True when the answer was to one of our probes.
    bool on_answer(TimePoint now, const stun::Response& response);
    /// Everything that matters is known, or the time is over.
    bool is_done(TimePoint now) const;
    TimePoint next_look(TimePoint now) const;
    NetReport report() const;

private:
    struct Sent {
        Server server;
        TimePoint at;
    };
    bool is_useful(const Server& server) const;

    TimePoint begin_;
    std::vector<Planned> planned_; ///< the soonest at the back
    std::map<stun::TxId, Sent> sent_;
    std::size_t regions_ = 0;
    bool full_ = true;
    NetReport report_;
};

/// Chooses home from the reports of the last minutes; stays where it is unless moving is worth it.
class HomeChooser {
public:
    static constexpr auto kMemory = std::chrono::seconds{305};
    static constexpr auto kSmallGain = std::chrono::milliseconds{10};

    /// `heard_from_home`: a frame came over the home relay lately. `may_move`: else a home that the map has is kept
    /// (derp-disco-paths.md 4.11). Returns the region, 0 for none.
    int choose(TimePoint now, const NetReport& report, const wire::DerpMap& map, bool heard_from_home,
               bool may_move = true);
    int home() const { return home_; }

private:
    std::deque<std::pair<TimePoint, std::map<int, Duration>>> reports_;
    int home_ = 0;
};

} // namespace tailrace
