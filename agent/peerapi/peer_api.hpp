// agent/peerapi/peer_api.hpp - the small HTTP server that peers may ask, one listener for each of our tailnet addresses
// (ssh-serve-peerapi.md 3). It says hello, which is what `ping --peerapi` wants to hear, and asks our resolvers for
// those whose exit node we are (dns_proxy.hpp).
#pragma once
#include "agent/peerapi/dns_proxy.hpp"
#include "base/io/http1.hpp"
#include "base/io/socket.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

/// Who asks.
struct PeerApiCaller {
    std::string name, user;
    IpAddress address{};
};

/// The port that others expect at an address if it is free; `attempt` counts from 0. Source: tailscale
/// ipn/ipnlocal/peerapi.go.
std::uint16_t peer_api_port(const IpAddress& address, int attempt);
/// The whole of an answer. Pure. `own`: our addresses.
/// Without questions about names.
HttpResponse answer_peer(const HttpRequest& request, const PeerApiCaller& caller, const std::vector<IpAddress>& own);

class PeerApi {
public:
    static constexpr int kMostConnections = 64;
    /// Empty for an address that is no peer's: nothing is said to it.
    using Who = std::function<std::optional<PeerApiCaller>(const IpAddress&)>;
    /// Whether this peer may have our resolvers asked, now.
    using MayAskNames = std::function<bool(const IpAddress&)>;

    PeerApi(Reactor& reactor, Who who, MayAskNames may_ask_names, AskNames ask_names);
    ~PeerApi();

    /// Listens on these and on no others. True when a port changed. An address that cannot be listened on has no port;
    /// call again when the device has it.
    bool set_addresses(const std::vector<IpAddress>& addresses);
    /// 0: none.
    std::uint16_t port4() const { return port_of(false); }
    std::uint16_t port6() const { return port_of(true); }

private:
    std::uint16_t port_of(bool v6) const;
    std::unique_ptr<Listener> listen(const IpAddress& address);
    static Task<void> accept(std::shared_ptr<bool> alive, PeerApi* self, std::shared_ptr<Listener> listener);
    static Task<void> serve(std::shared_ptr<bool> alive, PeerApi* self, std::unique_ptr<Stream> stream,
                            PeerApiCaller caller);

    Reactor& reactor_;
    Who who_;
    MayAskNames may_ask_names_;
    AskNames ask_names_;
    std::vector<IpAddress> own_;
    std::map<IpAddress, std::shared_ptr<Listener>> listeners_;
    int connections_ = 0;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// "http://100.64.0.2:39000"; HEAD, and the time of it all. No answer but 200 will do.
Task<Result<Duration>> ask_peer_api(Reactor& reactor, Endpoint at, Duration timeout);

} // namespace tailrace
