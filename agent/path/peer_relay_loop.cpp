#include "agent/path/peer_relay_loop.hpp"
#include "base/log.hpp"

#include <algorithm>

namespace tailrace {
namespace {

PeerRelays::Facts facts_of(DiscoLoop& disco) {
    PathBook& book = disco.book();
    return {[&book](TimePoint now, const NodeKey& node) {
                auto path = book.state(now, node);
                return path.trusted && !path.relayed;
            },
            [&book](const NodeKey& node) { return book.disco_of(node); },
            [&book](const DiscoKey& key) { return book.node_of(key); }, [] { return random_array<12>(); }};
}

} // namespace

PeerRelayLoop::PeerRelayLoop(Reactor& reactor, DiscoLoop& disco, Callbacks callbacks)
    : reactor_(reactor), disco_(disco), callbacks_(std::move(callbacks)), relays_(disco.key(), facts_of(disco)),
      timer_(reactor) {}

void PeerRelayLoop::set_enabled(bool enabled) {
    relays_.set_enabled(reactor_.now(), enabled);
    carry_out();
}

void PeerRelayLoop::set_peers(std::set<NodeKey> capable, std::vector<NodeKey> servers) {
    relays_.set_peers(reactor_.now(), std::move(capable), std::move(servers));
    carry_out();
}

void PeerRelayLoop::on_network_change() {
    relays_.on_network_change(reactor_.now());
    carry_out();
}

bool PeerRelayLoop::send(const NodeKey& to, BytesView datagram) {
    relays_.on_wish(reactor_.now(), to);
    if (relays_.has_actions()) carry_out();
    auto route = relays_.route(reactor_.now(), to);
    if (!route) return false;
    auto sent =
        disco_.send_raw(route->server, write_geneve({GenevePacket::Protocol::WireGuard, false, route->vni, datagram}));
    return static_cast<bool>(sent);
}

void PeerRelayLoop::on_message(const NodeKey& from, const DiscoMessage& message) {
    if (const auto* allocated = std::get_if<DiscoAllocateResponse>(&message))
        relays_.on_allocated(reactor_.now(), from, *allocated);
    else if (const auto* call = std::get_if<DiscoCallMeMaybeVia>(&message))
        relays_.on_call(reactor_.now(), from, call->endpoint);
    else
        return; // requests are for relay servers, and we are none
    carry_out();
}

void PeerRelayLoop::on_geneve(const GenevePacket& packet, const Endpoint& from) {
    TimePoint now = reactor_.now();
    const RelayRoute via{from, packet.vni};
    if (packet.protocol == GenevePacket::Protocol::WireGuard) {
        if (packet.control) return;
        if (auto peer = relays_.on_data(now, via)) callbacks_.arrived(*peer, packet.payload);
        return;
    }
    if (!looks_like_disco(packet.payload)) return;
    const DiscoKey sender = disco_sender(packet.payload);
    auto node = disco_.book().node_of(sender);
    if (packet.control ? !relays_.is_shaking_with(sender, packet.vni) : !node) return;
    auto message = disco_.open_from(sender, packet.payload);
    if (!message) return;
    callbacks_.heard(from);
    if (node) disco_.book().on_relayed_arrival(now, *node); // its agent lives
    disco_.show({DiscoFrame::Direction::In, from, node.value_or(NodeKey{}), *message, packet.vni});
    if (const auto* handshake = std::get_if<DiscoRelayHandshake>(&*message); handshake != nullptr && packet.control)
        relays_.on_challenge(now, sender, via, *handshake);
    else if (const auto* ping = std::get_if<DiscoPing>(&*message); ping != nullptr && !packet.control)
        relays_.on_ping(now, sender, ping->tx_id, via);
    else if (const auto* pong = std::get_if<DiscoPong>(&*message); pong != nullptr && !packet.control)
        relays_.on_pong(now, sender, pong->tx_id, via);
    carry_out();
}

std::uint64_t PeerRelayLoop::ask(const NodeKey& peer) {
    std::uint64_t question = relays_.ask(reactor_.now(), peer);
    carry_out();
    return question;
}

void PeerRelayLoop::send_disco(const RelayRoute& to, const NodeKey& peer, const DiscoKey& key,
                               const DiscoMessage& message) {
    Bytes sealed = disco_.seal_for(key, message);
    if (sealed.empty()) return;
    disco_.show({DiscoFrame::Direction::Out, to.server, peer, message, to.vni});
    bool control = std::holds_alternative<DiscoRelayHandshake>(message);
    auto sent = disco_.send_raw(to.server, write_geneve({GenevePacket::Protocol::Disco, control, to.vni, sealed}));
    if (!sent) log::debug("nothing was sent to a relay server", {{"error", sent.error()}});
}

void PeerRelayLoop::carry_out() {
    for (const PeerRelayAction& action : relays_.take_actions()) {
        if (const auto* ask = std::get_if<AskRelayServer>(&action)) {
            disco_.send_relayed(ask->server, ask->request);
        } else if (const auto* call = std::get_if<CallVia>(&action)) {
            disco_.send_relayed(call->peer, DiscoCallMeMaybeVia{call->endpoint});
        } else if (const auto* shake = std::get_if<ShakeWithRelay>(&action)) {
            send_disco(shake->to, shake->peer, shake->server, shake->message);
        } else if (const auto* ping = std::get_if<PingVia>(&action)) {
            DiscoPing message;
            message.tx_id = ping->id;
            message.node_key = disco_.identity();
            send_disco(ping->to, ping->peer, ping->disco, message);
        } else if (const auto* pong = std::get_if<PongVia>(&action)) {
            DiscoPong message;
            message.tx_id = pong->id;
            message.seen_from = pong->to.server;
            send_disco(pong->to, pong->peer, pong->disco, message);
        } else if (const auto* changed = std::get_if<RouteChanged>(&action)) {
            log::info("peer relay changed", {{"peer", changed->peer.short_text()},
                                             {"via", changed->route ? changed->route->text() : std::string{"none"}}});
            disco_.book().set_carried(reactor_.now(), changed->peer, changed->route.has_value());
            disco_.carry_out();
        } else if (const auto* answered = std::get_if<AnsweredVia>(&action)) {
            callbacks_.ping_answered(*answered);
        }
    }
    auto next = relays_.next_timer();
    if (!next) {
        timer_.cancel();
        return;
    }
    timer_.after(std::max<Duration>(*next - reactor_.now(), std::chrono::milliseconds{1}), [this] {
        relays_.on_timer(reactor_.now());
        carry_out();
    });
}

} // namespace tailrace
