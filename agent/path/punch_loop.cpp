#include "agent/path/punch_loop.hpp"
#include "agent/path/icmp_error.hpp"
#include "base/log.hpp"

#include <net/if.h> // first: linux/icmp.h brings a header of the kernel that gives way to it

#include <linux/icmp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr std::size_t kMostErrorBytes = 2048; // of an ICMP error

/// Receives "destination unreachable" and nothing else.
Result<Fd> open_errors() {
    Fd fd{::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMP)};
    if (!fd) return Error::from_errno(errno, "open a raw ICMP socket");
    icmp_filter filter{};
    filter.data = ~(1u << ICMP_DEST_UNREACH);
    if (::setsockopt(fd.get(), SOL_RAW, ICMP_FILTER, &filter, sizeof filter) != 0)
        return Error::from_errno(errno, "set ICMP_FILTER");
    return fd;
}

/// Does this error of a send say that we should not?
bool says_stop(int code) {
    return code != EAGAIN && code != ENOBUFS && code != EMSGSIZE && code != EINTR;
}

} // namespace

PunchLoop::PunchLoop(Reactor& reactor, DiscoLoop& disco, std::uint16_t wireguard_port, std::uint32_t mark,
                     MovePorts move_ports, KeepFound keep_found)
    : reactor_(reactor), disco_(disco), port_(wireguard_port), mark_(mark), move_ports_(std::move(move_ports)),
      keep_found_(std::move(keep_found)), puncher_(random_below), timer_(reactor) {}

PunchLoop::~PunchLoop() {
    *alive_ = false;
    if (sockets_) sockets_->close();
    if (errors_) errors_->close();
}

void PunchLoop::set_self(HolePuncher::Self self) {
    puncher_.set_self(std::move(self));
    carry_out();
}

void PunchLoop::keep_only(const std::set<NodeKey>& peers) {
    peers_ = peers;
    puncher_.keep_only(peers);
    carry_out();
}

void PunchLoop::adopt(const std::map<Endpoint, std::uint16_t>& ports, const std::map<NodeKey, Endpoint>& found) {
    puncher_.adopt(reactor_.now(), ports, found);
    carry_out();
}

void PunchLoop::on_network_change() {
    puncher_.on_network_change(reactor_.now());
    carry_out();
}

void PunchLoop::on_relayed_packet(const NodeKey& peer) {
    puncher_.on_relayed_packet(reactor_.now(), peer);
    if (puncher_.has_actions()) carry_out();
}

void PunchLoop::on_message(const NodeKey& peer, const DiscoPunch& message) {
    TimePoint now = reactor_.now();
    HolePuncher::PeerFacts facts;
    auto path = disco_.book().state(now, peer);
    facts.talks = path.active;
    facts.direct = path.trusted;
    for (const auto& candidate : disco_.book().candidates(now, peer))
        if (candidate.from_control || candidate.from_call) facts.addresses.insert(candidate.endpoint.address);
    log::debug("hard NAT: peer says", {{"peer", peer.short_text()}, {"step", static_cast<int>(message.step)}});
    puncher_.on_message(now, peer, message, facts);
    carry_out();
}

void PunchLoop::on_heard(const NodeKey& peer, const Endpoint& from) {
    if (!puncher_.running_with()) return;
    puncher_.on_heard(peer, from);
    if (!puncher_.running_with())
        log::info("hard NAT: found a direct path", {{"peer", peer.short_text()}, {"via", from}});
    carry_out();
}

void PunchLoop::carry_out() {
    for (auto actions = puncher_.take_actions(); !actions.empty(); actions = puncher_.take_actions()) {
        for (const PunchAction& action : actions) {
            if (const auto* say = std::get_if<PunchSay>(&action)) {
                disco_.send_relayed(say->peer, say->message);
            } else if (const auto* wish = std::get_if<PunchOpen>(&action)) {
                open(*wish);
            } else if (std::holds_alternative<PunchClose>(action)) {
                if (sockets_) sockets_->close();
                sockets_.reset();
            } else if (const auto* probes = std::get_if<PunchProbe>(&action)) {
                probe(*probes);
            } else if (std::holds_alternative<PunchProbed>(action)) {
                if (errors_) errors_->close();
                errors_.reset();
            } else if (const auto* moves = std::get_if<PunchMoves>(&action)) {
                move(*moves);
            } else if (const auto* found = std::get_if<PunchFound>(&action)) {
                keep_found_(found->paths);
            } else if (const auto* left = std::get_if<PunchLeave>(&action)) {
                for (const Endpoint& endpoint : left->endpoints)
                    disco_.book().leave(reactor_.now(), endpoint, HolePuncher::kLeaveFor);
                disco_.carry_out();
            } else if (std::holds_alternative<PunchForgive>(action)) {
                disco_.book().forgive();
            }
        }
    }
    auto next = puncher_.next_timer();
    if (!next) {
        timer_.cancel();
        return;
    }
    timer_.after(std::max<Duration>(*next - reactor_.now(), std::chrono::milliseconds{1}), [this] {
        puncher_.on_timer(reactor_.now(), [this](const Endpoint& remote) { return works(remote); });
        carry_out();
    });
}

bool PunchLoop::works(const Endpoint& remote) {
    TimePoint now = reactor_.now();
    return std::ranges::any_of(peers_, [&](const NodeKey& peer) {
        auto path = disco_.book().state(now, peer);
        return path.trusted && path.endpoint == remote;
    });
}

void PunchLoop::refuse(const std::string& why) {
    if (puncher_.on_refused(reactor_.now())) log::info("hard NAT: stopped looking for a direct path", {{"why", why}});
}

// -- hard side

void PunchLoop::open(const PunchOpen& wish) {
    Bytes ping = disco_.seal(wish.peer, DiscoPing{random_array<12>(), disco_.identity()});
    auto opened = PunchSockets::open(reactor_, wish.remote, wish.count, mark_);
    if (!opened || ping.empty()) {
        if (!opened) log::warn("hard NAT: no sockets", {{"error", opened.error()}});
        puncher_.on_opened(reactor_.now(), 0);
        return;
    }
    sockets_ = std::move(*opened);
    spawn(reactor_, "hard NAT", listen(alive_, this, sockets_));
    if (auto sent = sockets_->send(ping); !sent) {
        refuse(sent.error().message());
        return;
    }
    log::debug("hard NAT: mappings opened", {{"towards", wish.remote}, {"sockets", sockets_->size()}});
    puncher_.on_opened(reactor_.now(), sockets_->size());
}

Task<void> PunchLoop::listen(std::shared_ptr<bool> alive, PunchLoop* loop, std::shared_ptr<PunchSockets> sockets) {
    for (;;) {
        auto arrivals = co_await sockets->receive();
        if (!*alive || !arrivals) co_return;
        for (PunchSockets::Arrival& arrival : *arrivals) {
            if (loop->sockets_ != sockets) co_return; // closed meanwhile
            loop->take(*sockets, std::move(arrival));
            loop->carry_out();
        }
    }
}

void PunchLoop::take(PunchSockets& sockets, PunchSockets::Arrival arrival) {
    if (!arrival.datagram) {
        if (says_stop(arrival.datagram.error().code())) refuse(arrival.datagram.error().message());
        return;
    }
    auto peer = puncher_.running_with();
    if (!peer || !disco_.is_ping_of(*peer, *arrival.datagram)) return;
    auto before = puncher_.moves();
    puncher_.on_hit(reactor_.now(), arrival.port);
    if (puncher_.moves() == before) return; // too late, another has won
    if (Fd fd = sockets.take(arrival.port)) held_[arrival.port] = std::move(fd);
    carry_out(); // WireGuard's port speaks through the mapping from here on
    for (const auto& [remote, port] : puncher_.moves()) {
        if (port != arrival.port) continue;
        log::info("hard NAT: found a direct path", {{"peer", peer->short_text()}, {"via", remote}, {"port", port}});
        disco_.deliver({remote, {}, std::move(*arrival.datagram)});
        return;
    }
}

void PunchLoop::move(const PunchMoves& wish) {
    for (const auto& [remote, port] : wish.ports)
        if (!held_.contains(port)) held_[port] = PunchSockets::hold(port); // an earlier agent's: best effort
    if (auto moved = move_ports_(wish.ports); !moved) {
        log::warn("hard NAT: a port was not moved", {{"error", moved.error()}});
        puncher_.on_move_failed(reactor_.now());
    }
    auto kept = puncher_.moves();
    std::erase_if(held_, [&](const auto& entry) {
        return std::ranges::none_of(kept, [&](const auto& move) { return move.second == entry.first; });
    });
}

// -- easy side

void PunchLoop::probe(const PunchProbe& wish) {
    if (!errors_) {
        auto fd = open_errors();
        if (!fd) { // blind to whoever says stop, we do not begin
            refuse(fd.error().message());
            return;
        }
        errors_ = std::make_shared<Descriptor>(reactor_, std::move(*fd));
        spawn(reactor_, "ICMP errors", watch_errors(alive_, this, errors_));
    }
    Bytes ping = disco_.seal(wish.peer, DiscoPing{random_array<12>(), disco_.identity()});
    for (const Endpoint& to : wish.to) {
        auto sent = disco_.send_raw(to, ping);
        if (sent || !says_stop(sent.error().code())) continue;
        refuse(sent.error().message());
        return;
    }
}

Task<void> PunchLoop::watch_errors(std::shared_ptr<bool> alive, PunchLoop* loop, std::shared_ptr<Descriptor> socket) {
    std::array<std::byte, kMostErrorBytes> buffer;
    for (;;) {
        auto ready = co_await socket->readable();
        if (!*alive || !ready || loop->errors_ != socket) co_return;
        ssize_t bytes = 0;
        while (socket->fd() >= 0 && (bytes = ::recv(socket->fd(), buffer.data(), buffer.size(), 0)) >= 0) {
            auto error = parse_icmp_error(BytesView{buffer}.first(static_cast<std::size_t>(bytes)));
            if (!error || error->from.port != loop->port_) continue;
            if (loop->puncher_.on_icmp_error(loop->reactor_.now(), error->to))
                log::info("hard NAT: stopped looking for a direct path",
                          {{"why", fmt::format("ICMP unreachable, code {}, from {}", error->code, error->to.text())}});
            loop->carry_out();
        }
    }
}

} // namespace tailrace
