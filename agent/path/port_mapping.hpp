// agent/path/port_mapping.hpp - a port of the home router that leads to us: by NAT-PMP, PCP or UPnP. Pure.
#pragma once
#include "agent/path/upnp_dialogue.hpp"
#include "base/time.hpp"
#include "proto/portmap/nat_pmp.hpp"
#include "proto/portmap/pcp.hpp"
#include "proto/portmap/ssdp.hpp"

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace tailrace {

/// Finds out what the gateway speaks, gets a mapping of WireGuard's port and keeps it. It is told the time and what
/// arrives; the caller carries out take_actions(). Only what comes from the gateway's own address counts. Constants of
/// the reference: derp-disco-paths.md 5.
class PortMapping {
public:
    static constexpr auto kLease = std::chrono::seconds{7200};      ///< that we ask for
    static constexpr auto kWindow = std::chrono::milliseconds{250}; ///< silence this long is a no: the gateway is near
    static constexpr auto kAttempt = std::chrono::seconds{5};       ///< for everything that UPnP needs
    static constexpr auto kTrust = std::chrono::minutes{10}; ///< a service is not asked again whether it is there
    /// Where nothing was found it is looked for again when somebody needs paths, but not sooner than this; doubled each
    /// time, up to kTrust.
    static constexpr auto kFirstGap = std::chrono::minutes{1};
    static constexpr auto kShortestRenewal = std::chrono::seconds{10};
    static constexpr auto kLongestLease = std::chrono::hours{24};
    static constexpr auto kLateSearch = std::chrono::seconds{3}; ///< MX of our search, and a second
    static constexpr std::size_t kMaxGateways = 11;              ///< answers to a search that are kept

    enum class Protocol { NatPmp, Pcp, Upnp };
    struct Network {
        IpAddress gateway, self;
        bool operator==(const Network&) const = default;
    };
    struct Settings {
        bool enabled = false, upnp = true;
        bool operator==(const Settings&) const = default;
    };
    struct SendUdp {
        Endpoint to;
        Bytes datagram;
    };
    struct AskHttp {
        std::uint64_t number = 0; ///< for on_http(); 0: nobody waits for the answer
        IpAddress host;
        UpnpDialogue::Request request;
    };
    using Action = std::variant<SendUdp, AskHttp>;
    /// What the gateway speaks; empty: not asked yet.
    struct Services {
        std::optional<bool> upnp, pmp, pcp;
        bool operator==(const Services&) const = default;
    };
    enum class Effort { Usual, Fresh };

    /// The nonce shall be the same after a restart: to PCP it says whose the mapping is.
    PortMapping(std::uint16_t port, const pcp::Nonce& nonce, std::function<std::uint16_t()> any_port);

    /// Switched off, the mapping is given back.
    void set_settings(TimePoint now, const Settings& settings);
    /// Another network: what the old one gave is worth nothing.
    void set_network(TimePoint now, const std::optional<Network>& network);
    /// Somebody needs paths. Fresh asks also for what is believed to be known.
    void run(TimePoint now, Effort effort);
    void on_datagram(TimePoint now, const Endpoint& from, BytesView datagram);
    void on_http(TimePoint now, std::uint64_t number, const Result<UpnpDialogue::Answer>& answer);
    void on_timer(TimePoint now);

    std::optional<TimePoint> next_timer() const;
    std::vector<Action> take_actions();
    std::optional<Endpoint> external(TimePoint now) const;
    std::optional<Protocol> protocol() const;
    const Services& services() const { return services_; }
    bool is_busy() const { return stage_ != Stage::Idle; }
    /// Why there is no mapping, for people.
    const std::string& trouble() const { return trouble_; }

private:
    enum class Stage { Idle, Probing, Asking, Upnp };
    struct Mapping {
        Protocol protocol{};
        Endpoint external;
        TimePoint renew_at, good_until;
        std::optional<UpnpDialogue::Mapping> upnp;
    };
    struct Epoch {
        TimePoint at;
        std::uint32_t value = 0;
    };
    void forget_network();
    void give_back();
    void probe(TimePoint now, Effort effort);
    void end_probe(TimePoint now);
    void ask(TimePoint now, Protocol protocol);
    void ask_upnp(TimePoint now);
    void take_dialogue(TimePoint now);
    void on_silence(TimePoint now);
    void on_pmp(TimePoint now, BytesView datagram);
    void on_pcp(TimePoint now, BytesView datagram);
    void on_ssdp(TimePoint now, BytesView datagram);
    void note_epoch(TimePoint now, std::uint32_t value);
    void begin_again(TimePoint now);
    void finish_pmp(TimePoint now);
    void succeed(TimePoint now, Protocol protocol, const Endpoint& external, std::chrono::seconds lifetime);
    void fail(TimePoint now, std::string why);
    bool is_seen(TimePoint now, Protocol protocol) const;
    pcp::MapRequest pcp_request(std::chrono::seconds lifetime) const;
    void send(std::uint16_t port, BytesView datagram);

    std::uint16_t port_;
    pcp::Nonce nonce_;
    std::function<std::uint16_t()> any_port_;
    Settings settings_;
    std::optional<Network> network_;
    std::vector<Action> actions_;

    Stage stage_ = Stage::Idle;
    TimePoint stage_end_;
    Protocol asking_{};   ///< in Stage::Asking
    bool probed_ = false; ///< in this attempt
    TimePoint last_attempt_{};
    TimePoint search_at_{}; ///< no probe of usual effort before
    Duration gap_ = kFirstGap;
    TimePoint late_until_{}; ///< an answer to our search may still begin an attempt

    Services services_;
    std::map<Protocol, TimePoint> seen_;
    std::optional<Epoch> epoch_;                  ///< the gateway's clock, as it said last
    IpAddress outside_;                           ///< the gateway's own, as NAT-PMP says
    std::optional<nat_pmp::MapResponse> granted_; ///< waits for outside_
    std::vector<ssdp::Answer> gateways_;
    std::map<std::string, std::uint32_t> boots_; ///< by location
    std::optional<UpnpDialogue> dialogue_;
    std::uint64_t dialogue_number_ = 0;

    std::optional<Mapping> mapping_;
    bool lost_ = false; ///< the gateway has started over: mapping_ is believed only until we know better
    std::string trouble_;
};

} // namespace tailrace
