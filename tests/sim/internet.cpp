#include "tests/sim/internet.hpp"

#include "proto/stun.hpp"

namespace tailrace::sim {

bool World::step(TimePoint not_after) {
    if (events_.empty() || events_.begin()->first > not_after) return false;
    now_ = events_.begin()->first;
    auto event = std::move(events_.begin()->second);
    events_.erase(events_.begin());
    event();
    return true;
}

void World::run_for(Duration time) {
    TimePoint end = now_ + time;
    while (step(end)) {
    }
    now_ = end;
}

bool World::run_until(const std::function<bool()>& condition, Duration at_most) {
    TimePoint end = now_ + at_most;
    while (!condition())
        if (!step(end)) {
            now_ = end;
            return condition();
        }
    return true;
}

Endpoint Nat::leave(const Endpoint& inside, const Endpoint& to) {
    std::uint16_t& port = ports_[{inside, kind_ == Kind::Hard ? to : Endpoint{}}];
    if (port == 0) port = next_port_++;
    Mapping& mapping = mappings_[port];
    mapping.inside = inside;
    mapping.written_to.insert(to);
    return {outside_, port};
}

Endpoint Nat::enter(const Endpoint& from, std::uint16_t port) const {
    auto mapping = mappings_.find(port);
    bool open = mapping != mappings_.end() && mapping->second.written_to.contains(from);
    return open ? mapping->second.inside : Endpoint{};
}

void Internet::send(const Endpoint& from, const Endpoint& to, Bytes datagram) {
    auto sender = sockets_.find(from);
    if (sender == sockets_.end()) return;
    ++datagrams_;
    bool lost = lost_part_ > 0 && std::uniform_real_distribution<>{}(dice_) < lost_part_;
    Nat* behind = sender->second.behind;
    auto receiver = sockets_.find(to);
    bool same_lan = behind != nullptr && receiver != sockets_.end() && receiver->second.behind == behind;
    Endpoint seen = behind != nullptr && !same_lan ? behind->leave(from, to) : from;
    if (lost) return; // on the way: a box in between has seen it
    world_.after(latency_,
                 [this, seen, to, behind, datagram = std::move(datagram)] { arrive(seen, to, behind, datagram); });
}

void Internet::arrive(const Endpoint& from, const Endpoint& to, Nat* sender_behind, const Bytes& datagram) {
    auto receiver = sockets_.find(to);
    if (receiver != sockets_.end() &&
        (receiver->second.behind == nullptr || receiver->second.behind == sender_behind)) {
        receiver->second.receive(from, datagram);
        return;
    }
    auto box = boxes_.find(to.address);
    if (box == boxes_.end()) return;
    auto inside = sockets_.find(box->second->enter(from, to.port));
    if (inside != sockets_.end() && inside->second.behind == box->second) inside->second.receive(from, datagram);
}

void Internet::attach_stun(const Endpoint& socket) {
    attach(socket, [this, socket](const Endpoint& from, const Bytes& datagram) {
        auto id = stun::parse_request(datagram);
        if (!id) return;
        std::array<std::byte, stun::kMaxResponseSize> response{};
        std::size_t size = stun::write_response(response, *id, from);
        send(socket, from, Bytes{response.begin(), response.begin() + static_cast<std::ptrdiff_t>(size)});
    });
}

} // namespace tailrace::sim
