// agent/path/disco_loop.hpp - carries disco datagrams to the PathBook and its wishes to the world.
#pragma once
#include "agent/path/disco_frame.hpp"
#include "agent/path/path_book.hpp"
#include "agent/path/raw_listener.hpp"
#include "agent/path/raw_sender.hpp"
#include "base/io/socket.hpp"
#include "proto/disco.hpp"
#include "proto/geneve.hpp"
#include "proto/stun.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>

namespace tailrace {

class DiscoLoop {
public:
    struct Callbacks {
        std::function<void(const std::vector<UseEndpoint>&)> use_endpoints;
        std::function<void(const PingAnswered&)> ping_answered;
        std::function<void(const NodeKey&)> path_works;
        /// A disco packet for a peer that goes over a relay.
        std::function<void(const NodeKey& to, BytesView packet)> relay;
        /// Somebody shall be told of our endpoints: call send_call() when they are fresh.
        std::function<void(const NodeKey& to, const DiscoKey& disco)> call_wanted;
        std::function<void(const stun::Response&)> stun_answer;
        /// A peer said this over a relay.
        std::function<void(const NodeKey& from, const DiscoPunch& message)> punch;
        /// A peer said this of relay servers, over DERP.
        std::function<void(const NodeKey& from, const DiscoMessage& message)> peer_relay;
        /// What comes through a relay server, or from one.
        std::function<void(const GenevePacket& packet, const Endpoint& from)> geneve;
        /// Something authentic of a peer came from there.
        std::function<void(const NodeKey& peer, const Endpoint& from)> heard;
    };
    /// Binds the two sockets to which the steering program hands what arrives on WireGuard's port.
    static Result<std::unique_ptr<DiscoLoop>> create(Reactor& reactor, DiscoPrivateKey key,
                                                     std::uint16_t wireguard_port, std::uint32_t mark,
                                                     Callbacks callbacks);
    ~DiscoLoop();

    DiscoKey key() const { return key_.public_key(); }
    std::uint16_t port4() const { return v4_ ? v4_->local().port : 0; }
    std::uint16_t port6() const { return v6_ ? v6_->local().port : 0; }
    /// Receives without the steering program, as long as it is not there.
    Result<void> listen_raw();
    void stop_listening_raw() { raw_.reset(); }

    /// Change the book, then call carry_out().
    PathBook& book() { return book_; }
    void carry_out();
    void set_identity(const NodeKey& node) { self_ = node; }
    /// Pings in several sizes, and none of them in fragments.
    void set_probing_sizes(bool on) {
        ping_fragments_ = on ? Fragments::Never : Fragments::IfNeedBe;
        book_.set_probing_sizes(reactor_.now(), on);
    }
    void on_network_change();
    /// Tells of every disco message that comes and goes, to and from peers; an empty function ends that.
    void watch(std::function<void(const DiscoFrame&)> watcher) { watcher_ = std::move(watcher); }
    void forget_routes() { sender_.forget_routes(); }
    /// A disco packet that a relay of this region brought from this node.
    void on_relayed(int region, const NodeKey& from, BytesView packet);
    void send_call(const NodeKey& to, const DiscoKey& disco, const std::vector<Endpoint>& own);
    /// A whole packet for a peer; empty when its disco key is not known.
    Bytes seal(const NodeKey& to, const DiscoMessage& message);
    /// The same for and of who is no peer.
    Bytes seal_for(const DiscoKey& key, const DiscoMessage& message);
    std::optional<DiscoMessage> open_from(const DiscoKey& sender, BytesView packet);
    /// To who watches.
    void show(const DiscoFrame& frame) {
        if (watcher_) watcher_(frame);
    }
    void send_relayed(const NodeKey& to, const DiscoMessage& message);
    const NodeKey& identity() const { return self_; }
    bool is_ping_of(const NodeKey& peer, BytesView packet);
    /// As if it had come to WireGuard's port.
    void deliver(const Datagram& datagram);
    /// Any datagram from WireGuard's port.
    Result<void> send_raw(const Endpoint& to, BytesView datagram) { return sender_.send(to, datagram); }
    /// To WireGuard, as if it came from this endpoint (derp-disco-paths.md 6.4, RedirectAs).
    Result<void> inject(const Endpoint& from, BytesView datagram) { return sender_.inject(from, datagram); }

private:
    DiscoLoop(Reactor& reactor, DiscoPrivateKey key, std::uint16_t wireguard_port, std::uint32_t mark, RawSender sender,
              Callbacks callbacks);
    static Task<void> measure(std::shared_ptr<bool> alive, DiscoLoop* loop, SendEcho echo);
    static Task<void> receive(std::shared_ptr<bool> alive, DiscoLoop* loop, UdpSocket* socket);
    void handle(const Datagram& datagram);
    std::optional<DiscoMessage> open(BytesView packet);
    const DiscoBox* box(const DiscoKey& peer);
    void show(DiscoFrame::Direction direction, const Endpoint& via, const NodeKey& peer, const DiscoMessage& message) {
        if (watcher_) watcher_({direction, via, peer, message, std::nullopt});
    }

    Reactor& reactor_;
    DiscoPrivateKey key_;
    std::uint16_t wireguard_port_;
    NodeKey self_;
    std::uint32_t mark_;
    RawSender sender_;
    Fragments ping_fragments_ = Fragments::IfNeedBe;
    Callbacks callbacks_;
    PathBook book_;
    Timer timer_;
    std::optional<UdpSocket> v4_, v6_;
    std::unique_ptr<RawListener> raw_;
    std::function<void(const DiscoFrame&)> watcher_;
    std::unordered_map<DiscoKey, DiscoBox> boxes_;
    std::size_t echoes_under_way_ = 0;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
