#include "agent/relay/derp_client.hpp"
#include "agent/coordination/backoff.hpp"
#include "base/log.hpp"

#include <algorithm>
#include <utility>

namespace tailrace {
namespace {

constexpr std::size_t kWaiting = 32;

bool has_other_node(const wire::DerpRegion& region, const std::string& than) {
    return std::ranges::any_of(region.nodes,
                               [&](const wire::DerpNode& node) { return !node.stun_only && node.name != than; });
}

} // namespace

/// One dial, which may outlive the wish for it.
struct DerpClient::Attempt {
    std::optional<Result<DerpLogin>> outcome;
};

DerpClient::DerpClient(Reactor& reactor, std::uint32_t mark, Callbacks callbacks, const Pace& pace)
    : reactor_(reactor), mark_(mark), callbacks_(std::move(callbacks)), pace_(pace) {}

DerpClient::~DerpClient() {
    *alive_ = false;
    for (auto& [number, region] : regions_) {
        drop_connection(region);
        region.news.notify();
    }
}

void DerpClient::drop_connection(Region& region) {
    if (region.link) region.link->close();
}

/// Whatever is under way was meant for something else.
void DerpClient::begin_anew(Region& region) {
    ++region.version;
    region.hurry = true;
    region.ready.reset();
    region.leaving.reset();
    drop_connection(region);
    region.news.notify();
}

void DerpClient::set_identity(const NodePrivateKey& identity) {
    if (identity == identity_) return;
    identity_ = identity;
    for (auto& [number, region] : regions_) begin_anew(region);
    if (home_ != 0) open(home_);
}

void DerpClient::set_map(const wire::DerpMap& map) {
    std::map<int, wire::DerpRegion> defined;
    if (map.regions)
        for (const auto& [number, definition] : *map.regions)
            if (definition) defined[number] = *definition;
    for (auto& [number, region] : regions_) {
        auto now = defined.find(number);
        if (now != defined.end() && now->second == region.definition) continue;
        region.definition = now == defined.end() ? wire::DerpRegion{} : now->second;
        begin_anew(region); // its keeper goes on with the new definition, or ends
    }
    for (auto& [number, definition] : defined)
        if (!regions_.contains(number)) region(number).definition = definition;
    if (home_ != 0) open(home_);
}

void DerpClient::set_home(int region) {
    if (region == home_) return;
    auto tell = [&](int number, bool is_home) {
        auto found = regions_.find(number);
        if (found != regions_.end() && found->second.link)
            found->second.link->send(derp::FrameType::NotePreferred, derp::write_note_preferred(is_home));
    };
    tell(home_, false);
    home_ = region;
    tell(home_, true);
    if (home_ != 0) open(home_);
}

void DerpClient::on_network_change(const std::vector<IpAddress>& own) {
    for (auto& [number, region] : regions_) {
        if (!region.link) { // what failed before may work now
            region.hurry = true;
            region.news.notify();
            continue;
        }
        IpAddress local = region.link->local_address();
        bool gone = local.valid() && !local.is_loopback() && !local.is_link_local() && !own.empty() &&
                    std::ranges::find(own, local) == own.end();
        if (gone)
            region.link->close();
        else
            region.link->check();
    }
}

bool DerpClient::is_connected(int region) const {
    auto found = regions_.find(region);
    return found != regions_.end() && found->second.link != nullptr;
}

bool DerpClient::is_failing(int region) const {
    auto found = regions_.find(region);
    return found != regions_.end() && !found->second.link && !found->second.trouble.empty();
}

std::optional<TimePoint> DerpClient::last_heard(int region) const {
    auto found = regions_.find(region);
    if (found == regions_.end() || !found->second.link) return std::nullopt;
    return found->second.link->last_heard();
}

std::string DerpClient::code_of(int region) const {
    auto found = regions_.find(region);
    return found == regions_.end() ? "" : found->second.definition.region_code;
}

void DerpClient::send(int peers_home, const NodeKey& to, BytesView packet) {
    int number = peers_home;
    if (!is_connected(number))
        if (auto heard = heard_on_.find(to); heard != heard_on_.end() && is_connected(heard->second))
            number = heard->second;
    auto found = regions_.find(number);
    if (found == regions_.end()) return;
    if (found->second.link) {
        found->second.link->send_packet(to, packet);
        return;
    }
    auto& waiting = found->second.waiting;
    if (waiting.size() >= kWaiting) waiting.pop_front();
    waiting.emplace_back(to, Bytes{packet.begin(), packet.end()});
    open(number);
}

void DerpClient::open(int number) {
    auto found = regions_.find(number);
    if (found == regions_.end() || found->second.wanted || identity_.is_zero()) return;
    found->second.wanted = true;
    spawn(reactor_, "relay", keep(alive_, this, number));
}

bool DerpClient::may_leave(int number, TimePoint now) const {
    const Region& region = regions_.at(number);
    if (region.definition.nodes.empty()) return true; // no longer in the map
    if (number == home_) return false;
    return region.link ? now - region.link->last_packet_sent() >= pace_.inactive : region.waiting.empty();
}

Task<void> DerpClient::dial(std::shared_ptr<bool> alive, DerpClient* self, int number, std::string avoid,
                            std::shared_ptr<Attempt> attempt) {
    RelayDialOptions options{kDialRegion, self->v6_works_};
    attempt->outcome = co_await dial_derp(self->reactor_, self->region(number).definition, self->identity_, self->mark_,
                                          std::move(avoid), options);
    if (*alive) self->region(number).news.notify();
}

/// Less when something happens that makes waiting pointless.
Task<void> DerpClient::pause(std::shared_ptr<bool> alive, DerpClient* self, int number, Duration duration) {
    Region& region = self->region(number);
    TimePoint until = self->reactor_.now() + duration;
    while (*alive && !region.hurry && !region.ready && self->reactor_.now() < until)
        (void)co_await region.news.wait_for(until - self->reactor_.now()); // news may be about something else
}

/// Connects and connects again for as long as the region is wanted.
Task<void> DerpClient::keep(std::shared_ptr<bool> alive, DerpClient* self, int number) {
    Backoff backoff{kLongestPause};
    Region& region = self->region(number); // which stays as long as we do
    while (*alive && !self->may_leave(number, self->reactor_.now())) {
        if (std::exchange(region.hurry, false)) backoff.reset();
        std::string avoid;
        if (region.leaving && self->reactor_.now() >= region.leaving->until) region.leaving.reset();
        if (region.leaving && !region.ready) {
            avoid = region.leaving->node;
            if (!has_other_node(region.definition, avoid)) {
                co_await pause(alive, self, number, region.leaving->until - self->reactor_.now());
                continue;
            }
        }
        std::uint64_t version = region.version;
        auto attempt = std::make_shared<Attempt>();
        if (!region.ready) spawn(self->reactor_, "relay dial", dial(alive, self, number, avoid, attempt));
        while (!attempt->outcome && !region.ready && version == region.version) {
            co_await region.news.wait();
            if (!*alive) co_return;
        }
        if (version != region.version) continue;
        if (region.ready) {
            attempt->outcome = std::move(*region.ready);
            region.ready.reset();
        }
        if (!*attempt->outcome) {
            std::string trouble = attempt->outcome->error().message();
            if (trouble != region.trouble)
                log::warn("no connection to a relay", {{"region", number}, {"error", trouble}});
            region.trouble = std::move(trouble);
            if (number != self->home_) region.waiting.clear();
            self->callbacks_.changed(number, false);
            co_await pause(alive, self, number, backoff.next());
            continue;
        }
        TimePoint since = self->reactor_.now();
        co_await carry(alive, self, number, std::move(**attempt->outcome));
        if (!*alive) co_return;
        TimePoint now = self->reactor_.now();
        if (now - since >= kLongestPause) backoff.reset(); // one that lets us in and throws us out again is no success
        if (!self->may_leave(number, now)) co_await pause(alive, self, number, backoff.next());
    }
    if (*alive) region.wanted = false;
}

/// One connection, from its login to its end.
Task<void> DerpClient::carry(std::shared_ptr<bool> alive, DerpClient* self, int number, DerpLogin login) {
    Region& region = self->region(number);
    region.trouble.clear();
    log::info("connected to a relay", {{"region", number},
                                       {"code", region.definition.region_code},
                                       {"fast_start", login.fast ? "yes" : "no"},
                                       {"node", login.node}});
    DerpLink::Callbacks callbacks;
    callbacks.packet = [alive, self, number](const NodeKey& from, BytesView packet) {
        if (*alive && self->callbacks_.packet(number, from, packet)) self->heard_on_[from] = number;
    };
    callbacks.gone = [alive, self, number](const derp::PeerGone& gone) {
        if (!*alive) return;
        auto heard = self->heard_on_.find(gone.key);
        if (heard != self->heard_on_.end() && heard->second == number) self->heard_on_.erase(heard);
    };
    callbacks.health = [alive, self, number](std::string trouble) {
        if (*alive) self->region(number).health = std::move(trouble);
    };
    callbacks.restarting = [alive, self, number, node = login.node](const derp::Restarting& restarting) {
        if (*alive) self->on_restarting(number, node, restarting);
    };
    region.node = login.node;
    auto link = std::make_shared<DerpLink>(std::move(login), self->identity_, std::move(callbacks));
    region.link = link;
    if (number == self->home_) link->send(derp::FrameType::NotePreferred, derp::write_note_preferred(true));
    for (auto& [to, packet] : region.waiting) link->send_packet(to, packet);
    region.waiting.clear();
    self->callbacks_.changed(number, true);

    spawn(self->reactor_, "relay idle", leave_when_idle(alive, self, number, link));
    Error why = co_await link->run(self->pace_.silence);
    if (!*alive) co_return;
    region.link.reset();
    region.health.clear();
    std::erase_if(self->heard_on_, [&](const auto& entry) { return entry.second == number; });
    if (!self->may_leave(number, self->reactor_.now()))
        log::info("the connection to a relay ended", {{"region", number}, {"error", why}});
    self->callbacks_.changed(number, false);
}

Task<void> DerpClient::leave_when_idle(std::shared_ptr<bool> alive, DerpClient* self, int number,
                                       std::weak_ptr<DerpLink> link) {
    for (;;) {
        co_await self->reactor_.sleep(self->pace_.look_for_idle);
        auto open = link.lock();
        if (!*alive || !open) co_return;
        if (self->may_leave(number, self->reactor_.now())) open->close();
    }
}

/// While it drains it still carries: another node of the region is entered first, or else its end awaited.
void DerpClient::on_restarting(int number, const std::string& node, const derp::Restarting& restarting) {
    Region& region = this->region(number);
    Duration away = std::min<Duration>(std::chrono::milliseconds{restarting.reconnect_in_ms}, kLongestRestart);
    bool moving = region.leaving.has_value();
    region.leaving = {node, reactor_.now() + away};
    if (!moving && has_other_node(region.definition, node))
        spawn(reactor_, "relay dial", move_over(alive_, this, number, node));
}

Task<void> DerpClient::move_over(std::shared_ptr<bool> alive, DerpClient* self, int number, std::string left) {
    std::uint64_t version = self->region(number).version;
    RelayDialOptions options{kDialRegion, self->v6_works_};
    auto login = co_await dial_derp(self->reactor_, self->region(number).definition, self->identity_, self->mark_, left,
                                    options);
    if (!*alive || !login) co_return; // the keeper tries as ever
    Region& region = self->region(number);
    if (version != region.version || (region.link && region.node != left)) co_return;
    region.ready = std::move(*login);
    self->drop_connection(region);
    region.news.notify();
}

std::vector<std::string> DerpClient::troubles() const {
    std::vector<std::string> out;
    if (auto home = regions_.find(home_); home != regions_.end()) {
        const Region& region = home->second;
        if (!region.link && !region.trouble.empty())
            out.push_back(fmt::format("Not connected to the home relay ({}): {}; peers without a direct path can't be "
                                      "reached",
                                      region.definition.region_code, region.trouble));
    }
    for (const auto& [number, region] : regions_)
        if (!region.health.empty())
            out.push_back(fmt::format("The relay of {} says: {}", region.definition.region_code, region.health));
    return out;
}

} // namespace tailrace
