#include "agent/path/hole_puncher.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::uint32_t kFirstPort = 1024, kPorts = 65536 - kFirstPort;               // NATs leave the lower ones alone
constexpr std::uint32_t kFirstFeeler = 700, kFeelerPorts = kFirstPort - kFirstFeeler; // where hardly anybody listens

/// Nobody is made to send probes into a network of our own, or to a group.
bool is_worldwide(const IpAddress& address) {
    static const std::vector<IpPrefix> ranges = [] {
        std::vector<IpPrefix> out;
        for (const char* text : {"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
                                 "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"})
            out.push_back(*IpPrefix::parse(text));
        return out;
    }();
    return address.is_v4() &&
           std::ranges::none_of(ranges, [&](const IpPrefix& range) { return range.contains(address); });
}

} // namespace

void HolePuncher::set_self(Self self) {
    bool was_enabled = std::exchange(self_, std::move(self)).enabled;
    if (self_.enabled && !was_enabled) actions_.push_back(PunchForgive{});
    if (self_.enabled || !was_enabled) return;
    end();
    leave_paths();
}

void HolePuncher::leave_paths() {
    PunchLeave left;
    for (const auto& [remote, move] : moves_) left.endpoints.insert(remote);
    for (const auto& [peer, endpoint] : found_) left.endpoints.insert(endpoint);
    if (!std::exchange(found_, {}).empty()) actions_.push_back(PunchFound{});
    if (!left.endpoints.empty()) actions_.push_back(std::move(left));
}

void HolePuncher::keep_only(const std::set<NodeKey>& peers) {
    std::erase_if(memory_, [&](const auto& entry) { return !peers.contains(entry.first); });
    auto gone = std::erase_if(found_, [&](const auto& entry) { return !peers.contains(entry.first); });
    if (gone != 0) actions_.push_back(PunchFound{found_});
    if (run_ && !peers.contains(run_->peer)) end();
}

void HolePuncher::on_network_change(TimePoint now) {
    end();
    memory_.clear();
    for (auto& [remote, move] : moves_) move.last_good = std::min(move.last_good, now - kKeepMove + kProveAgain);
}

void HolePuncher::adopt(TimePoint now, const std::map<Endpoint, std::uint16_t>& ports,
                        const std::map<NodeKey, Endpoint>& found) {
    found_.insert(found.begin(), found.end());
    for (const auto& [remote, port] : ports) moves_.try_emplace(remote, Move{port, now});
    if (!moves_.empty()) {
        next_look_at_moves_ = now + kLookAtMoves;
        tell_moves();
    }
    if (!self_.enabled) leave_paths();
}

void HolePuncher::on_relayed_packet(TimePoint now, const NodeKey& peer) {
    if (!is_hard() || moves_.size() >= kMostMoves) return;
    Memory& memory = memory_[peer];
    if (!memory.last_relayed || now - *memory.last_relayed > kSilence) memory.relayed_since = now;
    memory.last_relayed = now;
    if (run_ || now < memory.not_before || now - *memory.relayed_since < kPatience) return;
    run_ = Run{Step::Asked, peer, random_below_(UINT32_MAX), {}, now + kAnswerWithin};
    say(peer, DiscoPunch::Step::Ask, run_->number, {self_.outside->address, 0});
}

bool HolePuncher::is_mine(const NodeKey& peer, const DiscoPunch& message, Step step) const {
    return run_ && run_->step == step && run_->peer == peer && run_->number == message.run;
}

void HolePuncher::on_message(TimePoint now, const NodeKey& peer, const DiscoPunch& message, const PeerFacts& facts) {
    const Endpoint& theirs = message.outside;
    bool plausible = is_worldwide(theirs.address) && facts.addresses.contains(theirs.address);
    switch (message.step) {
    case DiscoPunch::Step::Ask:
        if (!is_easy() || run_ || !plausible || !facts.talks || facts.direct || now < memory_[peer].not_before) {
            say(peer, DiscoPunch::Step::Refuse, message.run);
            return;
        }
        memory_[peer].not_before = now + kAgain;
        run_ = Run{Step::Promised, peer, message.run, {theirs.address, 0}, now + kAnswerWithin};
        say(peer, DiscoPunch::Step::Ready, message.run, *self_.outside);
        return;
    case DiscoPunch::Step::Ready:
        if (!is_mine(peer, message, Step::Asked)) return;
        if (!plausible || theirs.port == 0 || facts.direct) {
            fail(now);
            return;
        }
        run_->step = Step::Opening;
        run_->remote = theirs;
        if (moves_.erase(theirs) != 0) tell_moves(); // its mapping is dead, else we would not be here
        actions_.push_back(PunchOpen{peer, theirs, kSockets});
        return;
    case DiscoPunch::Step::Go: {
        if (!is_mine(peer, message, Step::Promised)) return;
        std::vector<std::uint16_t> all(kPorts);
        for (std::uint32_t i = 0; i < kPorts; ++i) all[i] = static_cast<std::uint16_t>(kFirstPort + i);
        for (std::uint32_t i = 0; i < kProbes; ++i) std::swap(all[i], all[i + random_below_(kPorts - i)]);
        all.resize(kProbes);
        run_->ports = std::move(all);
        run_->step = Step::Probing;
        feel(now);
        return;
    }
    case DiscoPunch::Step::Refuse:
        if (is_mine(peer, message, Step::Asked)) fail(now);
        return;
    case DiscoPunch::Step::Stop:
        if (run_ && run_->peer == peer && run_->number == message.run && run_->step != Step::Won) refuse(now);
        return;
    }
}

void HolePuncher::on_opened(TimePoint now, std::size_t count) {
    if (!run_ || run_->step != Step::Opening) return;
    if (count < kLeastSockets) {
        fail(now);
        return;
    }
    run_->step = Step::Open;
    run_->until = now + kOpenFor;
    say(run_->peer, DiscoPunch::Step::Go, run_->number);
}

void HolePuncher::on_hit(TimePoint now, std::uint16_t port) {
    if (!run_ || run_->step != Step::Open) return;
    run_->step = Step::Won;
    run_->until = now + kLinger;
    Memory& memory = memory_[run_->peer];
    memory.failures = 0;
    memory.not_before = now + kAgain;
    moves_[run_->remote] = {port, now};
    if (!next_look_at_moves_) next_look_at_moves_ = now + kLookAtMoves;
    tell_moves();
}

void HolePuncher::on_move_failed(TimePoint now) {
    if (!run_ || run_->step != Step::Won) return;
    moves_.erase(run_->remote);
    if (moves_.empty()) next_look_at_moves_.reset();
    refuse(now);
}

void HolePuncher::on_heard(const NodeKey& peer, const Endpoint& from) {
    if (!run_ || run_->step != Step::Probing || run_->peer != peer || run_->remote.address != from.address ||
        !run_->probed.contains(from.port))
        return;
    found_[peer] = from;
    actions_.push_back(PunchFound{found_});
    end();
}

bool HolePuncher::on_refused(TimePoint now) {
    if (!run_ || run_->step == Step::Won) return false;
    say(run_->peer, DiscoPunch::Step::Stop, run_->number);
    refuse(now);
    return true;
}

bool HolePuncher::on_icmp_error(TimePoint now, const Endpoint& to) {
    if (!run_ || run_->step != Step::Probing || run_->remote.address != to.address || !run_->probed.contains(to.port))
        return false;
    return on_refused(now);
}

void HolePuncher::feel(TimePoint now) {
    while (run_->probed.size() < kFeelers)
        run_->probed.insert(static_cast<std::uint16_t>(kFirstFeeler + random_below_(kFeelerPorts)));
    PunchProbe feelers{run_->peer, {}};
    for (std::uint16_t port : run_->probed) feelers.to.push_back({run_->remote.address, port});
    actions_.push_back(std::move(feelers));
    run_->next_batch = now + kFeelFor;
}

void HolePuncher::probe(TimePoint now) {
    if (run_->ports.empty()) {
        fail(now);
        return;
    }
    std::vector<Endpoint> to;
    for (std::size_t i = 0; i < kBatch && !run_->ports.empty(); ++i) {
        to.push_back({run_->remote.address, run_->ports.back()});
        run_->probed.insert(run_->ports.back());
        run_->ports.pop_back();
    }
    actions_.push_back(PunchProbe{run_->peer, std::move(to)});
    run_->next_batch = now + (run_->ports.empty() ? Duration{kAnswerWithin} : Duration{kBatchEvery});
}

void HolePuncher::on_timer(TimePoint now, const std::function<bool(const Endpoint&)>& works) {
    if (run_ && run_->step == Step::Probing) {
        if (run_->next_batch <= now) probe(now);
    } else if (run_ && run_->until <= now) {
        if (run_->step == Step::Won)
            end();
        else
            fail(now);
    }
    if (!next_look_at_moves_ || now < *next_look_at_moves_) return;
    for (auto& [remote, move] : moves_)
        if (works(remote)) move.last_good = now;
    auto gone = std::erase_if(moves_, [&](const auto& entry) { return now - entry.second.last_good > kKeepMove; });
    if (gone != 0) tell_moves();
    if (!moves_.empty()) next_look_at_moves_ = now + kLookAtMoves;
}

std::optional<TimePoint> HolePuncher::next_timer() const {
    std::optional<TimePoint> next = next_look_at_moves_;
    if (!run_) return next;
    TimePoint of_run = run_->step == Step::Probing ? run_->next_batch : run_->until;
    return next ? std::min(*next, of_run) : of_run;
}

std::map<Endpoint, std::uint16_t> HolePuncher::moves() const {
    std::map<Endpoint, std::uint16_t> out;
    for (const auto& [remote, move] : moves_) out[remote] = move.port;
    return out;
}

void HolePuncher::say(const NodeKey& peer, DiscoPunch::Step step, std::uint32_t run, const Endpoint& outside) {
    actions_.push_back(PunchSay{peer, {step, run, outside}});
}

void HolePuncher::end() {
    if (!run_) return;
    if (run_->step == Step::Open || run_->step == Step::Opening || run_->step == Step::Won)
        actions_.push_back(PunchClose{});
    if (run_->step == Step::Probing) actions_.push_back(PunchProbed{});
    run_.reset();
}

void HolePuncher::fail(TimePoint now) {
    bool asks = run_->step != Step::Promised && run_->step != Step::Probing; // who serves noted the time when it began
    if (asks) {
        Memory& memory = memory_[run_->peer];
        Duration pause = kAgain;
        for (int i = 0; i < memory.failures && pause < kRarely; ++i) pause *= 2;
        ++memory.failures;
        memory.not_before = now + std::min<Duration>(pause, kRarely);
    }
    end();
}

void HolePuncher::refuse(TimePoint now) {
    memory_[run_->peer].not_before = now + kRefusedFor;
    end();
}

void HolePuncher::tell_moves() {
    if (moves_.empty()) next_look_at_moves_.reset();
    actions_.push_back(PunchMoves{moves()});
}

} // namespace tailrace
