#include "agent/path/disco_loop.hpp"
#include "agent/path/echo.hpp"
#include "base/log.hpp"

#include <cerrno>

namespace tailrace {
namespace {
constexpr std::size_t kMostBoxes = 20000;
constexpr std::size_t kMostEchoes = 64; // each has a socket of its own
} // namespace

DiscoLoop::DiscoLoop(Reactor& reactor, DiscoPrivateKey key, std::uint16_t wireguard_port, std::uint32_t mark,
                     RawSender sender, Callbacks callbacks)
    : reactor_(reactor), key_(std::move(key)), wireguard_port_(wireguard_port), mark_(mark), sender_(std::move(sender)),
      callbacks_(std::move(callbacks)), book_([] { return random_array<12>(); }), timer_(reactor) {}

DiscoLoop::~DiscoLoop() {
    *alive_ = false;
    if (v4_) v4_->close();
    if (v6_) v6_->close();
}

Result<std::unique_ptr<DiscoLoop>> DiscoLoop::create(Reactor& reactor, DiscoPrivateKey key,
                                                     std::uint16_t wireguard_port, std::uint32_t mark,
                                                     Callbacks callbacks) {
    auto sender = RawSender::open(wireguard_port, mark);
    if (!sender) return sender.error();
    std::unique_ptr<DiscoLoop> loop{
        new DiscoLoop(reactor, std::move(key), wireguard_port, mark, std::move(*sender), std::move(callbacks))};
    UdpSocket::Options options;
    options.mark = mark;
    options.original_destination = true;
    // Where the host translates addresses (Docker, our own masquerade), the kernel takes the assigned socket away from
    // a datagram again unless it is transparent: it compares the sender's port with that of a connected socket. Source:
    // Linux net/netfilter/nf_nat_proto.c, nf_nat_ipv4_local_in.
    options.transparent = true;
    options.avoid = wireguard_port; // the device that wants it may not be there yet
    auto v4 = UdpSocket::bind(reactor, Endpoint{IpAddress::v4(0), 0}, options);
    auto v6 = UdpSocket::bind(reactor, Endpoint{IpAddress::v6({}), 0}, options);
    if (!v4 && !v6) return v4.error();
    if (v4) loop->v4_.emplace(std::move(*v4));
    if (v6) loop->v6_.emplace(std::move(*v6));
    if (loop->v4_) spawn(reactor, "disco v4", receive(loop->alive_, loop.get(), &*loop->v4_));
    if (loop->v6_) spawn(reactor, "disco v6", receive(loop->alive_, loop.get(), &*loop->v6_));
    return loop;
}

Result<void> DiscoLoop::listen_raw() {
    if (raw_) return {};
    auto opened = RawListener::open(reactor_, wireguard_port_, [this](const Datagram& datagram) {
        handle(datagram);
        carry_out();
    });
    if (!opened) return opened.error();
    raw_ = std::move(*opened);
    return {};
}

Task<void> DiscoLoop::receive(std::shared_ptr<bool> alive, DiscoLoop* loop, UdpSocket* socket) {
    while (*alive) {
        auto datagram = co_await socket->receive();
        if (!*alive) co_return;
        if (!datagram) {
            if (datagram.error().code() == ECANCELED) co_return;
            continue; // an ICMP error of an earlier packet
        }
        loop->deliver(*datagram);
    }
}

void DiscoLoop::deliver(const Datagram& datagram) {
    handle(datagram);
    carry_out();
}

const DiscoBox* DiscoLoop::box(const DiscoKey& peer) {
    auto known = boxes_.find(peer);
    if (known != boxes_.end()) return &known->second;
    auto made = DiscoBox::between(key_, peer);
    if (!made) return nullptr;
    if (boxes_.size() >= kMostBoxes) boxes_.clear();
    return &boxes_.emplace(peer, std::move(*made)).first->second;
}

/// Empty for strangers, for what does not open, and for what is no disco.
std::optional<DiscoMessage> DiscoLoop::open(BytesView packet) {
    if (!looks_like_disco(packet)) return std::nullopt;
    DiscoKey sender = disco_sender(packet);
    if (!book_.node_of(sender)) return std::nullopt;
    return open_from(sender, packet);
}

std::optional<DiscoMessage> DiscoLoop::open_from(const DiscoKey& sender, BytesView packet) {
    const DiscoBox* opener = box(sender);
    if (opener == nullptr) return std::nullopt;
    auto message = opener->open(packet);
    if (!message) return std::nullopt;
    return std::move(*message);
}

void DiscoLoop::handle(const Datagram& datagram) {
    if (stun::looks_like_stun(datagram.data)) {
        if (auto response = stun::parse_response(datagram.data)) callbacks_.stun_answer(*response);
        return;
    }
    if (auto packet = parse_geneve(datagram.data)) {
        if (callbacks_.geneve) callbacks_.geneve(*packet, datagram.from);
        return;
    }
    auto message = open(datagram.data);
    if (!message) return;
    DiscoKey sender = disco_sender(datagram.data);
    show(DiscoFrame::Direction::In, datagram.from, *book_.node_of(sender), *message);
    TimePoint now = reactor_.now();
    if (callbacks_.heard)
        if (auto node = book_.node_of(sender)) callbacks_.heard(*node, datagram.from);
    if (const auto* ping = std::get_if<DiscoPing>(&*message)) {
        std::optional<NodeKey> claimed;
        if (!ping->node_key.is_zero()) claimed = ping->node_key;
        log::debug("disco ping", {{"from", datagram.from}});
        (void)book_.on_ping(now, sender, claimed, ping->tx_id, datagram.from); // strangers get no answer
    } else if (const auto* pong = std::get_if<DiscoPong>(&*message)) {
        log::debug("disco pong", {{"from", datagram.from}});
        book_.on_pong(now, sender, pong->tx_id, datagram.from);
    } // a CallMeMaybe counts only over a relay, which vouches for its sender
}

void DiscoLoop::on_relayed(int region, const NodeKey& from, BytesView packet) {
    auto message = open(packet);
    if (!message) return;
    DiscoKey sender = disco_sender(packet);
    show(DiscoFrame::Direction::In, relay_endpoint(region), from, *message);
    TimePoint now = reactor_.now();
    if (const auto* ping = std::get_if<DiscoPing>(&*message))
        (void)book_.on_ping(now, sender, from, ping->tx_id, relay_endpoint(region)); // strangers get no answer
    else if (const auto* pong = std::get_if<DiscoPong>(&*message))
        book_.on_pong(now, sender, pong->tx_id, relay_endpoint(region));
    else if (const auto* call = std::get_if<DiscoCallMeMaybe>(&*message))
        book_.on_call_me_maybe(now, sender, from, call->endpoints);
    else if (const auto* punch = std::get_if<DiscoPunch>(&*message))
        if (callbacks_.punch && book_.node_of(sender) == from) callbacks_.punch(from, *punch);
    if (std::holds_alternative<DiscoCallMeMaybeVia>(*message) ||
        std::holds_alternative<DiscoAllocateRequest>(*message) ||
        std::holds_alternative<DiscoAllocateResponse>(*message))
        if (callbacks_.peer_relay && book_.node_of(sender) == from) callbacks_.peer_relay(from, *message);
    carry_out();
}

Bytes DiscoLoop::seal(const NodeKey& to, const DiscoMessage& message) {
    auto disco = book_.disco_of(to);
    return disco ? seal_for(*disco, message) : Bytes{};
}

Bytes DiscoLoop::seal_for(const DiscoKey& key, const DiscoMessage& message) {
    const DiscoBox* sealer = box(key);
    return sealer == nullptr ? Bytes{} : sealer->seal(message);
}

void DiscoLoop::send_relayed(const NodeKey& to, const DiscoMessage& message) {
    Bytes packet = seal(to, message);
    if (packet.empty()) return;
    show(DiscoFrame::Direction::Out, relay_endpoint(0), to, message);
    callbacks_.relay(to, packet);
}

bool DiscoLoop::is_ping_of(const NodeKey& peer, BytesView packet) {
    auto message = open(packet);
    return message && std::holds_alternative<DiscoPing>(*message) && book_.node_of(disco_sender(packet)) == peer;
}

void DiscoLoop::send_call(const NodeKey& to, const DiscoKey& disco, const std::vector<Endpoint>& own) {
    const DiscoBox* sealer = box(disco);
    if (sealer == nullptr || own.empty()) return;
    DiscoCallMeMaybe message;
    message.endpoints = own;
    show(DiscoFrame::Direction::Out, relay_endpoint(0), to, message);
    callbacks_.relay(to, sealer->seal(message));
}

void DiscoLoop::carry_out() {
    std::vector<UseEndpoint> endpoints;
    for (const PathAction& action : book_.take_actions()) {
        if (const auto* ping = std::get_if<SendPing>(&action)) {
            const DiscoBox* sealer = box(ping->disco);
            if (sealer == nullptr) continue;
            DiscoPing message;
            message.tx_id = ping->id;
            message.node_key = self_;
            message.padding =
                disco_ping_padding(static_cast<std::size_t>(ping->packet_bytes), ping->to.address.is_v6());
            show(DiscoFrame::Direction::Out, ping->to, ping->peer, message);
            if (relay_region(ping->to) != 0) {
                callbacks_.relay(ping->peer, sealer->seal(message));
                continue;
            }
            const Fragments fragments = ping->packet_bytes == 0 ? ping_fragments_ : Fragments::Never;
            auto sent = sender_.send(ping->to, sealer->seal(message), fragments);
            log::debug(sent ? "disco ping sent" : "disco ping not sent",
                       {{"to", ping->to}, {"error", sent ? std::string{} : sent.error().message()}});
        } else if (const auto* pong = std::get_if<SendPong>(&action)) {
            const DiscoBox* sealer = box(pong->disco);
            if (sealer == nullptr) continue;
            DiscoPong message;
            message.tx_id = pong->id;
            message.seen_from = pong->to;
            if (auto node = book_.node_of(pong->disco)) show(DiscoFrame::Direction::Out, pong->to, *node, message);
            if (relay_region(pong->to) != 0) {
                if (auto node = book_.node_of(pong->disco)) callbacks_.relay(*node, sealer->seal(message));
                continue;
            }
            if (auto sent = sender_.send(pong->to, sealer->seal(message)); !sent)
                log::debug("disco pong not sent", {{"error", sent.error()}});
        } else if (const auto* call = std::get_if<SendCallMeMaybe>(&action)) {
            callbacks_.call_wanted(call->peer, call->disco);
        } else if (const auto* use = std::get_if<UseEndpoint>(&action)) {
            log::info("peer path changed", {{"peer", use->peer.short_text()}, {"via", use->endpoint}});
            endpoints.push_back(*use);
        } else if (const auto* answered = std::get_if<PingAnswered>(&action)) {
            callbacks_.ping_answered(*answered);
        } else if (const auto* works = std::get_if<PathWorks>(&action)) {
            callbacks_.path_works(works->peer);
        } else if (const auto* echo = std::get_if<SendEcho>(&action)) {
            if (echoes_under_way_ < kMostEchoes) spawn(reactor_, "echo", measure(alive_, this, *echo));
        }
    }
    if (!endpoints.empty()) callbacks_.use_endpoints(endpoints);
    auto next = book_.next_timer();
    if (!next) {
        timer_.cancel();
        return;
    }
    Duration wait = std::max<Duration>(*next - reactor_.now(), std::chrono::milliseconds{1});
    timer_.after(wait, [this] {
        book_.on_timer(reactor_.now());
        carry_out();
    });
}

Task<void> DiscoLoop::measure(std::shared_ptr<bool> alive, DiscoLoop* loop, SendEcho echo) {
    ++loop->echoes_under_way_;
    co_await loop->reactor_.sleep({}); // an echo that fails at once is told when the actions before it are carried out
    if (!*alive) co_return;
    auto took = co_await measure_echo(loop->reactor_, echo.to.address, loop->mark_, PathBook::kEchoTimeout);
    if (!*alive) co_return;
    --loop->echoes_under_way_;
    std::optional<Duration> round_trip;
    if (took) round_trip = *took;
    loop->book_.on_echo(loop->reactor_.now(), echo.peer, echo.to, round_trip);
    loop->carry_out();
}

void DiscoLoop::on_network_change() {
    sender_.forget_routes();
    book_.on_network_change(reactor_.now());
    carry_out();
}

} // namespace tailrace
