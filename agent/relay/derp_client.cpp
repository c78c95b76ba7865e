#include "agent/relay/derp_client.hpp"
#include "agent/coordination/backoff.hpp"
#include "base/log.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::size_t kWaiting = 32;
constexpr auto kLookForIdle = std::chrono::seconds{15};
constexpr Duration kLongestPause = std::chrono::seconds{5}; // between tries; n^2 * 10 ms before

} // namespace

DerpClient::DerpClient(Reactor& reactor, std::uint32_t mark, Callbacks callbacks)
    : reactor_(reactor), mark_(mark), callbacks_(std::move(callbacks)) {}

DerpClient::~DerpClient() {
    *alive_ = false;
    for (auto& [number, region] : regions_) drop_connection(region);
}

void DerpClient::drop_connection(Region& region) {
    if (region.link) region.link->close();
}

void DerpClient::set_identity(const NodePrivateKey& identity) {
    if (identity == identity_) return;
    identity_ = identity;
    for (auto& [number, region] : regions_) drop_connection(region);
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
        drop_connection(region); // its keeper goes on with the new definition, or ends
    }
    for (auto& [number, definition] : defined)
        if (!regions_.contains(number)) regions_[number].definition = definition;
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
        if (!region.link) continue;
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
    return region.link ? now - region.link->last_packet_sent() >= kInactive : region.waiting.empty();
}

/// Connects and connects again for as long as the region is wanted.
Task<void> DerpClient::keep(std::shared_ptr<bool> alive, DerpClient* self, int number) {
    Backoff backoff;
    while (*alive && !self->may_leave(number, self->reactor_.now())) {
        auto login =
            co_await dial_derp(self->reactor_, self->regions_[number].definition, self->identity_, self->mark_);
        if (!*alive) co_return;
        Region& region = self->regions_[number];
        if (!login) {
            std::string trouble = login.error().message();
            if (trouble != region.trouble)
                log::warn("no connection to a relay", {{"region", number}, {"error", trouble}});
            region.trouble = std::move(trouble);
            if (number != self->home_) region.waiting.clear();
            self->callbacks_.changed(number, false);
            co_await self->reactor_.sleep(std::min(kLongestPause, backoff.next()));
            continue;
        }
        backoff.reset();
        region.trouble.clear();
        log::info(
            "connected to a relay",
            {{"region", number}, {"code", region.definition.region_code}, {"fast_start", login->fast ? "yes" : "no"}});
        DerpLink::Callbacks callbacks;
        callbacks.packet = [alive, self, number](const NodeKey& from, BytesView packet) {
            if (!*alive) return;
            self->heard_on_[from] = number;
            self->callbacks_.packet(number, from, packet);
        };
        callbacks.gone = [alive, self, number](const derp::PeerGone& gone) {
            if (!*alive) return;
            auto heard = self->heard_on_.find(gone.key);
            if (heard != self->heard_on_.end() && heard->second == number) self->heard_on_.erase(heard);
        };
        callbacks.health = [alive, self, number](std::string trouble) {
            if (*alive) self->regions_[number].health = std::move(trouble);
        };
        auto link = std::make_shared<DerpLink>(std::move(login->stream), std::move(callbacks));
        region.link = link;
        if (number == self->home_) link->send(derp::FrameType::NotePreferred, derp::write_note_preferred(true));
        for (auto& [to, packet] : region.waiting) link->send_packet(to, packet);
        region.waiting.clear();
        self->callbacks_.changed(number, true);

        auto leave_when_idle = [](std::shared_ptr<bool> living, DerpClient* client, int of,
                                  std::weak_ptr<DerpLink> weak) -> Task<void> {
            for (;;) {
                co_await client->reactor_.sleep(kLookForIdle);
                auto open = weak.lock();
                if (!*living || !open) co_return;
                if (client->may_leave(of, client->reactor_.now())) open->close();
            }
        };
        spawn(self->reactor_, "relay idle", leave_when_idle(alive, self, number, link));
        Error why = co_await link->run();
        if (!*alive) co_return;
        Region& left = self->regions_[number];
        left.link.reset();
        left.health.clear();
        std::erase_if(self->heard_on_, [&](const auto& entry) { return entry.second == number; });
        bool orderly = self->may_leave(number, self->reactor_.now());
        if (!orderly) log::info("the connection to a relay ended", {{"region", number}, {"error", why}});
        self->callbacks_.changed(number, false);
        if (!orderly) co_await self->reactor_.sleep(std::min(kLongestPause, backoff.next()));
    }
    if (*alive) self->regions_[number].wanted = false;
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
