// tests/sim/internet.hpp - a clock that is moved by hand, and a small internet whose wires are function calls.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"
#include "base/time.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace tailrace::sim {

/// One clock, and all that is to happen. Events of the same moment happen in the order in which they were planned.
class World {
public:
    TimePoint now() const { return now_; }
    WallTime wall() const { return kStart.plus(now_ - TimePoint{}); }
    void after(Duration wait, std::function<void()> event) { events_.emplace(now_ + wait, std::move(event)); }
    void run_for(Duration time);
    /// Until the condition holds, looked at after each event. False: it did not within `at_most`.
    bool run_until(const std::function<bool()>& condition, Duration at_most);

private:
    static constexpr WallTime kStart{1'800'000'000, 0};
    bool step(TimePoint not_after);

    TimePoint now_{std::chrono::hours{1}};
    std::multimap<TimePoint, std::function<void()>> events_;
};

/// Lets in only what answers: a datagram passes when its sender was written to before. An easy one has one outside port
/// for each inside socket, a hard one another for each destination. No mapping survives `forget()`, as none survives a
/// reboot of a real box.
class Nat {
public:
    enum class Kind { Easy, Hard };
    explicit Nat(IpAddress outside, Kind kind = Kind::Easy) : outside_(outside), kind_(kind) {}
    Kind kind() const { return kind_; }
    const IpAddress& outside() const { return outside_; }
    void forget() { ports_.clear(), mappings_.clear(), next_port_ += 1000; }
    Endpoint leave(const Endpoint& inside, const Endpoint& to);
    /// Whom a datagram is for; an invalid endpoint when it is dropped.
    Endpoint enter(const Endpoint& from, std::uint16_t port) const;

private:
    struct Mapping {
        Endpoint inside;
        std::set<Endpoint> written_to;
    };
    IpAddress outside_;
    Kind kind_;
    std::uint16_t next_port_ = 20000;
    std::map<std::pair<Endpoint, Endpoint>, std::uint16_t>
        ports_;                                 // of inside sockets, and of their destinations when hard
    std::map<std::uint16_t, Mapping> mappings_; // by outside port
};

class Internet {
public:
    using Receive = std::function<void(const Endpoint& from, const Bytes& datagram)>;

    Internet(World& world, Duration latency) : world_(world), latency_(latency) {}
    /// A socket in public, or behind a NAT. What was there before is gone.
    void attach(const Endpoint& socket, Receive receive, Nat* behind = nullptr) {
        sockets_[socket] = {receive, behind};
        if (behind != nullptr) boxes_[behind->outside()] = behind;
    }
    void detach(const Endpoint& socket) { sockets_.erase(socket); }
    /// A server that tells everybody where they are seen.
    void attach_stun(const Endpoint& socket);
    /// From now on this part of all datagrams is lost.
    void lose(double part, std::uint32_t seed) { lost_part_ = part, dice_.seed(seed); }
    void send(const Endpoint& from, const Endpoint& to, Bytes datagram);
    std::size_t datagrams() const { return datagrams_; } ///< ever sent

private:
    struct Socket {
        Receive receive;
        Nat* behind = nullptr;
    };
    void arrive(const Endpoint& from, const Endpoint& to, Nat* sender_behind, const Bytes& datagram);

    World& world_;
    Duration latency_;
    std::map<Endpoint, Socket> sockets_;
    std::map<IpAddress, Nat*> boxes_;
    double lost_part_ = 0;
    std::mt19937 dice_;
    std::size_t datagrams_ = 0;
};

} // namespace tailrace::sim
