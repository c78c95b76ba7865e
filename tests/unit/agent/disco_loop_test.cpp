// Which disco messages count, by the way that they came.
#include "agent/path/disco_loop.hpp"
#include "agent/path/peer_relay_loop.hpp"
#include "tests/fakes/run_task.hpp"

#include <gmock/gmock.h>

#include <cerrno>

namespace tailrace {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const NodeKey kFriend{std::array<std::byte, 32>{std::byte{1}}}, kLiar{std::array<std::byte, 32>{std::byte{2}}};
const Endpoint kFromControl = *Endpoint::parse("192.0.2.1:1"), kCalled = *Endpoint::parse("192.0.2.2:2");
constexpr int kRegion = 900;

/// A node with two peers, whose network is the list of frames that it would send.
class DiscoLoopTest : public testing::Test {
protected:
    void run(const std::function<void()>& test) {
        run_task([&](Reactor& reactor) -> Task<void> {
            auto made = DiscoLoop::create(reactor, DiscoPrivateKey::generate(), 41641, 0, {});
            if (!made && made.error().code() == EPERM) {
                []() { GTEST_SKIP() << "raw sockets need CAP_NET_RAW"; }();
                co_return;
            }
            EXPECT_TRUE(made);
            loop_ = std::move(*made);
            PeerRelayLoop::Callbacks through;
            through.arrived = [](const NodeKey&, BytesView) {};
            through.heard = [](const Endpoint&) {};
            relays_ = std::make_unique<PeerRelayLoop>(reactor, *loop_, std::move(through));
            now_ = [&reactor] { return reactor.now(); };
            loop_->book().set_peers(now_(), {{kFriend, friend_.public_key(), {kFromControl}, kRegion, std::nullopt},
                                             {kLiar, liar_.public_key(), {}, kRegion, std::nullopt}});
            (void)loop_->book().take_actions();
            test();
            relays_.reset();
            loop_.reset();
        });
    }
    static Bytes call_of(const DiscoPrivateKey& sender, const DiscoKey& to) {
        DiscoCallMeMaybe call;
        call.endpoints = {kCalled};
        return DiscoBox::between(sender, to)->seal(call);
    }
    /// Where this node knows the friend now.
    std::vector<Endpoint> known() {
        std::vector<Endpoint> out;
        for (const auto& candidate : loop_->book().candidates(now_(), kFriend)) out.push_back(candidate.endpoint);
        return out;
    }

    DiscoPrivateKey friend_ = DiscoPrivateKey::generate(), liar_ = DiscoPrivateKey::generate();
    std::unique_ptr<DiscoLoop> loop_;
    std::unique_ptr<PeerRelayLoop> relays_;
    std::function<TimePoint()> now_;
};

TEST_F(DiscoLoopTest, ACallCountsOverARelayFromItsSenderOnly) {
    run([this] {
        Bytes call = call_of(friend_, loop_->key());
        loop_->deliver({kCalled, {}, call});
        EXPECT_THAT(known(), ElementsAre(kFromControl)) << "by UDP anybody may repeat it";
        loop_->on_relayed(kRegion, kLiar, call);
        EXPECT_THAT(known(), ElementsAre(kFromControl)) << "the relay names another sender";
        loop_->on_relayed(kRegion, kFriend, call_of(liar_, loop_->key()));
        EXPECT_THAT(known(), ElementsAre(kFromControl)) << "sealed by another key";
        loop_->on_relayed(kRegion, kFriend, call_of(DiscoPrivateKey::generate(), loop_->key()));
        EXPECT_THAT(known(), ElementsAre(kFromControl)) << "sealed by a key of nobody";
        loop_->on_relayed(kRegion, kFriend, call);
        EXPECT_THAT(known(), UnorderedElementsAre(kFromControl, kCalled));
    });
}

TEST_F(DiscoLoopTest, APingThroughARelayServerIsAnsweredThereUnlessItSaysThatItIsForTheServer) { // 49
    run([this] {
        relays_->set_peers({kFriend}, {});
        relays_->set_enabled(true);
        std::vector<std::string> seen;
        loop_->watch([&](const DiscoFrame& frame) {
            const bool out = frame.direction == DiscoFrame::Direction::Out;
            const bool pong = std::holds_alternative<DiscoPong>(frame.message);
            seen.push_back(fmt::format("{} {} {} {}", out ? "out" : "in", pong ? "pong" : "ping", frame.via.text(),
                                       frame.vni.value_or(99)));
        });
        auto deliver = [&](bool control, std::uint32_t vni, const DiscoPrivateKey& sender) {
            seen.clear();
            DiscoPing ping;
            ping.tx_id[0] = std::byte{7};
            Bytes sealed = DiscoBox::between(sender, loop_->key())->seal(ping);
            Bytes datagram = write_geneve({GenevePacket::Protocol::Disco, control, vni, sealed});
            relays_->on_geneve(*parse_geneve(datagram), kCalled);
        };
        deliver(false, 7, friend_);
        EXPECT_THAT(seen, ElementsAre("in ping 192.0.2.2:2 7", "out pong 192.0.2.2:2 7"));
        deliver(false, 0, friend_);
        EXPECT_THAT(seen, ElementsAre("in ping 192.0.2.2:2 0", "out pong 192.0.2.2:2 0"));
        deliver(true, 7, friend_);
        EXPECT_THAT(seen, IsEmpty());
        deliver(false, 7, DiscoPrivateKey::generate());
        EXPECT_THAT(seen, IsEmpty()) << "a stranger";
        EXPECT_THAT(known(), ElementsAre(kFromControl)) << "where the server is the peer is not";
        loop_->watch({});
    });
}

} // namespace
} // namespace tailrace
