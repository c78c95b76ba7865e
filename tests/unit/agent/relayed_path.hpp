// tests/unit/agent/relayed_path.hpp - a book of paths with one peer, who can be reached over a relay.
#pragma once
#include "agent/path/path_book.hpp"

#include <gmock/gmock.h>

#include <array>
#include <optional>
#include <vector>

namespace tailrace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

inline TimePoint at(Duration since_start) {
    return TimePoint{} + 1h + since_start;
}

inline NodeKey key(int number) {
    return NodeKey{std::array<std::byte, 32>{std::byte(number), std::byte(number >> 8)}};
}

inline const NodeKey kAlice = key(1);
inline const DiscoKey kAliceDisco{std::array<std::byte, 32>{std::byte{2}}};
inline const Endpoint kPublic = *Endpoint::parse("203.0.113.9:41641");
inline const Endpoint kOther = *Endpoint::parse("198.51.100.7:41641");
inline const Endpoint kRelayed = *Endpoint::parse("127.64.0.9:50000");

/// A book with one peer, whose home is region 900.
class RelayedPath : public testing::Test {
protected:
    RelayedPath()
        : book_([this] {
              DiscoTxId id{};
              ++last_id_;
              for (int i = 0; i < 4; ++i) id[i] = static_cast<std::byte>(last_id_ >> (8 * i));
              return id;
          }) {
        book_.set_relaying(at(0s), true);
        book_.set_peers(at(0s), {{kAlice, kAliceDisco, {kPublic}, 900, kRelayed}});
        take();
    }
    void take() {
        pings_.clear();
        calls_ = 0;
        for (const PathAction& action : book_.take_actions()) {
            if (const auto* ping = std::get_if<SendPing>(&action)) pings_.emplace_back(*ping);
            if (std::holds_alternative<SendCallMeMaybe>(action)) ++calls_;
            if (const auto* use = std::get_if<UseEndpoint>(&action)) in_force_ = use->endpoint;
        }
    }
    std::vector<Endpoint> pinged() const {
        std::vector<Endpoint> out;
        for (const SendPing& ping : pings_) out.push_back(ping.to);
        return out;
    }
    void pong_all(Duration when) {
        auto pings = pings_;
        for (const SendPing& ping : pings) book_.on_pong(at(when), kAliceDisco, ping.id, ping.to);
        take();
    }
    void tick(Duration when) {
        book_.on_timer(at(when));
        take();
    }
    /// Traffic at 0 s, an answered ping at 0.1 s: direct.
    void go_direct() {
        book_.on_relayed_packet(at(0s), kAlice);
        take();
        pong_all(100ms);
    }

    int last_id_ = 0;
    PathBook book_;
    std::vector<SendPing> pings_;
    int calls_ = 0;
    std::optional<Endpoint> in_force_;
};

} // namespace tailrace
