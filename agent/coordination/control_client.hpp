// agent/coordination/control_client.hpp - one node's conversation with its control server, for as long as it lasts.
#pragma once
#include "agent/coordination/backoff.hpp"
#include "agent/coordination/control_link.hpp"
#include "proto/control/map.hpp"
#include "proto/control/register.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace tailrace {

/// Told what happens, on the reactor's thread.
class ControlEvents {
public:
    virtual ~ControlEvents() = default;
    /// Somebody must visit `url` and approve.
    virtual void on_login_url(const std::string& url) = 0;
    /// Registered with `node_key`, new or not.
    virtual void on_logged_in(const NodePrivateKey& node_key, const NodePrivateKey& old_key,
                              const wire::RegisterResponse& answer) = 0;
    /// Control refused; `text` is for the user, word for word. The client waits for another login().
    virtual void on_login_refused(const std::string& text) = 0;
    /// The node's key has run out: we are out until somebody logs in again.
    virtual void on_key_expired() = 0;
    virtual void on_map_frame(wire::MapResponse frame) = 0;
    /// Inside a map poll, or why not ("" and false: on the way).
    virtual void on_connected(bool in_poll, const std::string& trouble) = 0;
    /// A ping that control asks for; the answer goes back to control.
    virtual Task<wire::PingResponse> on_ping_wanted(std::string type, IpAddress address) = 0;
    /// JSON: the addresses that an app connector has learned, by name.
    virtual std::string on_connector_routes_wanted() { return R"({"Domains":null})"; }
    /// JSON: the services that this node offers to host.
    virtual std::string on_services_wanted() { return R"({"ServicesHash":""})"; }
};

/// What a lite update carries.
struct SelfReport {
    wire::Hostinfo hostinfo;
    std::vector<Endpoint> endpoints;
    std::vector<int> endpoint_types;
    DiscoKey disco_key;
    bool operator==(const SelfReport&) const = default;
};

class ControlClient {
public:
    static constexpr auto kWatchdog = std::chrono::seconds{120};
    static constexpr auto kGoodbye = std::chrono::milliseconds{700};
    static constexpr auto kLogoutPatience = std::chrono::seconds{10};

    struct Settings {
        Url server;
        MachinePrivateKey machine;
        NlPrivateKey lock_key;
        NodePrivateKey node_key; ///< zero: none yet
        NodePrivateKey old_node_key;
        std::uint32_t mark = 0;
        Duration watchdog = kWatchdog; ///< of a map stream: after so much silence the connection is taken for dead
    };
    /// Does nothing by itself before login(). `events` outlives the client.
    ControlClient(Reactor& reactor, Settings settings, ControlEvents& events, SelfReport report);
    ~ControlClient(); ///< stops

    enum class Login {
        Restore,     ///< say hello with the key that we have; an OAuth client is asked only when that is not enough
        Readmit,     ///< the same, but an OAuth client is asked at once: we want other tags
        Interactive, ///< a new key; a person approves
    };
    /// Starts, or starts over. An auth key goes along with every registration until one succeeds.
    void login(Login how, std::string auth_key);
    /// Tells control when something differs from what it was told last.
    void report(SelfReport report);
    /// Tells control that this program ends and will be back, so that it leaves our routes with us for a moment.
    /// Waits at most kGoodbye.
    Task<void> announce_restart();
    /// Expires the node key at control, also before any login(). Waits at most kLogoutPatience.
    Task<Result<void>> logout();
    void stop();
    /// Drops the connection and starts a new one.
    void reconnect();
    /// The key that the login under way goes with; "" when none is left.
    const std::string& auth_key() const;

private:
    struct Shared;
    std::shared_ptr<Shared> shared_;
};

} // namespace tailrace
