#include "tests/sim/internet.hpp"

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
    Mapping& mapping = mappings_[inside];
    if (mapping.port == 0) mapping.port = next_port_++;
    mapping.written_to.insert(to);
    return {outside_, mapping.port};
}

Endpoint Nat::enter(const Endpoint& from, std::uint16_t port) const {
    for (const auto& [inside, mapping] : mappings_)
        if (mapping.port == port && mapping.written_to.contains(from)) return inside;
    return {};
}

void Internet::send(const Endpoint& from, const Endpoint& to, Bytes datagram) {
    auto sender = sockets_.find(from);
    if (sender == sockets_.end()) return;
    ++datagrams_;
    Nat* behind = sender->second.behind;
    auto receiver = sockets_.find(to);
    bool same_lan = behind != nullptr && receiver != sockets_.end() && receiver->second.behind == behind;
    Endpoint seen = behind != nullptr && !same_lan ? behind->leave(from, to) : from;
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
    std::set<Nat*> boxes;
    for (const auto& [endpoint, socket] : sockets_)
        if (socket.behind != nullptr && socket.behind->outside() == to.address) boxes.insert(socket.behind);
    for (const Nat* box : boxes)
        if (auto inside = sockets_.find(box->enter(from, to.port)); inside != sockets_.end())
            inside->second.receive(from, datagram);
}

} // namespace tailrace::sim
