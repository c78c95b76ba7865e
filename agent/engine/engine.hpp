// agent/engine/engine.hpp - makes the machine as it shall be, again and again.
#pragma once
#include "agent/dataplane/attachment.hpp"
#include "agent/dataplane/question.hpp"
#include "agent/engine/guard_keeper.hpp"
#include "agent/engine/known_rule.hpp"
#include "agent/engine/wanted.hpp"
#include "agent/path/disco_loop.hpp"
#include "agent/router/source_checks.hpp"
#include "base/io/reactor.hpp"
#include "bpf/shared/base.h"
#include "netlink/fast_path.hpp"
#include "netlink/forwarding.hpp"
#include "netlink/link.hpp"
#include "netlink/nftables.hpp"
#include "netlink/router.hpp"
#include "netlink/wireguard.hpp"
#include "policy/tables.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

class PacketFilter;
struct PortMove;

/// How datagrams on WireGuard's port reach the agent: by the steering program, and where it cannot be had by raw
/// sockets; or by these in any case.
enum class SteeringChoice { Auto, Socket };

struct EngineOptions {
    std::string device = "tailrace0";
    std::uint16_t port = 41641;
    WireGuardChoice wireguard = WireGuardChoice::Auto;
    SteeringChoice steering = SteeringChoice::Auto;
    bool fast_path = true;                         ///< for forwarded flows, where the kernel has one
    std::optional<GuardBudget> guard;              ///< none: no guard on underlay interfaces
    unsigned schema = TR_SCHEMA_VERSION;           ///< of the packet programs; another one only in tests of upgrades
    AttachMethod attach = AttachMethod::Automatic; ///< of the packet programs; another one only in tests
};

struct EngineConfig {
    NodePrivateKey node_key;
    Wanted wanted;
    FilterInput filter;
    std::uint64_t filter_version = 0; ///< the filter is committed when this differs
};

/// Everything that is ours in the kernel: backstop, device, packet programs, peers, addresses, routes, rules. Each step
/// asks what there is and changes what differs, so that nothing that is right is touched: an agent that starts over
/// adopts device, sessions and pins. Order: backstop, device, programs, removals, filter, additions, link up, routes.
class Engine {
public:
    static constexpr std::uint32_t kMtu = 1280;
    /// Source: tailscale tsconst/linuxfw.go, LinuxBypassMarkNum.
    static constexpr std::uint32_t kMark = kBypassMark;
    /// Source: WireGuard whitepaper 6.1, Reject-After-Time.
    static constexpr auto kSessionLife = std::chrono::seconds{180};

    Engine(Reactor& reactor, EngineOptions options);
    ~Engine(); ///< leaves traffic as it is

    /// What the rest works without is no error: then is_complete() is false and warnings() say what it is.
    Task<Result<void>> reconcile(EngineConfig config);
    /// If not, a later reconcile() may have more success.
    bool is_complete() const { return complete_; }
    /// Before anything else is known: while an exit node is chosen nothing leaves past the tunnel. See Router::close().
    /// A reconcile() under way, which may not know of the exit node, leaves the routes to the next one.
    Result<void> close(const std::vector<IpPrefix>& throw_routes);
    /// Takes everything back, the backstop last. `closed_but_for`: nothing leaves past a tunnel that is not there, see
    /// close().
    Task<Result<void>> down(std::optional<std::vector<IpPrefix>> closed_but_for);
    /// The device's peers as they are; an error while there is no device.
    Result<WireGuardState> read();
    /// An error names what somebody took away; reconcile() puts it back.
    Result<void> check();
    Result<void> use_endpoints(const std::vector<UseEndpoint>& endpoints);

    bool has_device() const { return device_ != nullptr; }
    std::string wireguard_kind() const { return device_ ? std::string{text(device_->kind())} : ""; }
    int device_index() const { return index_; }
    /// Peers may hold sessions with the device before this one, and use them until they notice.
    bool has_lost_sessions() const { return device_made_ && reactor_.now() - *device_made_ < kSessionLife; }
    const EngineOptions& options() const { return options_; }
    Result<std::vector<Link>> links();
    /// A rule or a route of this host is another one: forwarded flows have to be accepted anew. No: reconcile() tries
    /// to make a fast path again.
    bool end_fast_flows();
    bool has_fast_path() const { return fast_path_ && fast_path_->in_force(); }
    /// Sentences for the health report.
    std::vector<std::string> warnings() const;
    /// Null while there is none.
    PacketFilter* filter() { return filter_.get(); }
    /// JSON for `debug drops` and `debug filter`.
    std::string drops_json();
    /// JSON for `debug explain`: what the packet programs say, and which of `rules` have to do with it.
    Result<std::string> explain_json(const PacketQuestion& question, const std::vector<std::string>& source_caps,
                                     const std::vector<KnownRule>& rules);
    /// Sees to it that disco and STUN reach the agent: where the steering program finds the agent's sockets, and on
    /// which interfaces it sits; or without it. An error: neither is possible.
    Result<void> steer(DiscoLoop& disco);
    /// Sees to it that the guard is where it shall be.
    void keep_guard();
    GuardKeeper& guard() { return guard_; }
    /// Steering::set_moves() and moves().
    Result<void> move_ports(const std::vector<PortMove>& moves);
    Result<std::vector<PortMove>> moved_ports() const;

private:
    Result<void> ensure_device();
    Result<void> ensure_router();
    /// Fails only where forwarded packets can neither be treated as they should be nor refused.
    Result<void> apply_forwarding(const Wanted& wanted);
    void apply_fast_path(const ForwardingConfig& config);
    void leave_fast_path(const Error& why);
    void no_fast_path(const Error& error);
    Result<void> apply_peers(const EngineConfig& config, const WireGuardState& state, bool additions);

    Reactor& reactor_;
    EngineOptions options_;
    std::optional<Backstop> backstop_;
    std::optional<Links> links_;
    std::unique_ptr<WireGuardDevice> device_;
    std::optional<Router> router_;
    std::uint64_t closures_ = 0; ///< calls of close()
    std::optional<Forwarding> forwarding_;
    std::optional<FastPath> fast_path_;
    std::vector<std::string> forwarding_warnings_, notes_; ///< for health
    std::unique_ptr<PacketFilter> filter_;
    GuardKeeper guard_;
    SourceChecks source_checks_;
    int index_ = 0;
    std::optional<TimePoint> device_made_; ///< none: it was adopted, with its sessions
    std::uint64_t committed_filter_ = 0;
    std::vector<std::string> warnings_;
    std::string steering_trouble_;         ///< why the steering program is not in use; empty: it is
    std::optional<TimePoint> steer_again_; ///< not before
    Duration steer_wait_{};                ///< until then from the last time on
    std::string fast_path_trouble_;        ///< as it was logged
    bool complete_ = true;
    DiscoLoop* disco_ = nullptr;

public:
    /// The book that says where new peers are reached first; may be null.
    void set_disco(DiscoLoop* disco) { disco_ = disco; }
};

} // namespace tailrace
