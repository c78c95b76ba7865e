// agent/path/inner_ping.hpp - messages between agents inside the tunnel (TSMP, IP protocol 99) and echo requests.
#pragma once
#include "base/io/reactor.hpp"
#include "base/net.hpp"
#include "proto/tsmp.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace tailrace {

struct InnerPong {
    Duration round_trip{};
    std::uint16_t peer_api_port = 0;
};

/// Answers the peers' TSMP pings and sends ours. Owns raw sockets bound to the device.
class InnerPing {
public:
    struct Callbacks {
        std::function<std::optional<IpAddress>(bool v6)> own_address;
        std::function<void(const IpAddress& from, const DiscoKey& key)> disco_key;
        std::function<std::uint16_t(bool v6)> peer_api_port; ///< ours, 0 for none
    };
    static Result<std::unique_ptr<InnerPing>> create(Reactor& reactor, const std::string& device, std::uint32_t mark,
                                                     Callbacks callbacks);
    ~InnerPing();

    /// Fails with ETIMEDOUT when nothing comes back in time, and at once when this object ends.
    Task<Result<InnerPong>> tsmp(IpAddress to, Duration timeout);
    Task<Result<InnerPong>> icmp(IpAddress to, Duration timeout);
    /// Tells a peer our disco key, in case control cannot (derp-disco-paths.md 3.5).
    Result<void> announce(const IpAddress& to, const DiscoKey& key);

private:
    struct Question {
        Event answered;
        TimePoint sent;
        std::optional<InnerPong> pong;
        explicit Question(Reactor& reactor) : answered(reactor) {}
    };
    enum class Kind { Tsmp4, Tsmp6, Icmp4, Icmp6 };

    InnerPing(Reactor& reactor, Callbacks callbacks) : reactor_(reactor), callbacks_(std::move(callbacks)) {}
    Result<void> open(Kind kind, const std::string& device, std::uint32_t mark);
    static Task<void> receive(std::shared_ptr<bool> alive, InnerPing* self, Kind kind);
    void handle(Kind kind, BytesView packet, const IpAddress& from);
    Result<void> send_tsmp(const IpAddress& to, const TsmpMessage& message);
    Task<Result<InnerPong>> wait(std::uint64_t id, Duration timeout);

    Reactor& reactor_;
    Callbacks callbacks_;
    std::map<Kind, std::unique_ptr<Descriptor>> sockets_;
    std::map<std::uint64_t, std::shared_ptr<Question>> questions_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
