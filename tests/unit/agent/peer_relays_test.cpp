// Paths through relay servers of the tailnet: who is asked, who shakes hands, what is in force, and when it ends.
#include "agent/path/peer_relays.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TimePoint moment(Duration since_start) {
    return TimePoint{} + 1h + since_start;
}

template <typename Key>
Key relay_key(int number) {
    return Key{std::array<std::byte, 32>{std::byte(number), std::byte(number >> 8)}};
}

const DiscoKey kOurRelayDisco = relay_key<DiscoKey>(1), kMetBobDisco = relay_key<DiscoKey>(2),
               kMetCarolDisco = relay_key<DiscoKey>(3), kServerDisco = relay_key<DiscoKey>(50),
               kOtherServerDisco = relay_key<DiscoKey>(51);
const NodeKey kMetBob = relay_key<NodeKey>(12), kMetCarol = relay_key<NodeKey>(13), kRelayNode = relay_key<NodeKey>(20),
              kOtherRelayNode = relay_key<NodeKey>(21);
const Endpoint kRelayAt = *Endpoint::parse("203.0.113.5:40000"), kRelayAtHome = *Endpoint::parse("10.0.0.5:40000"),
               kOtherServerAt = *Endpoint::parse("198.51.100.5:40000");
const RelayRoute kViaRelay{kRelayAt, 7};

class PeerRelaysTest : public testing::Test {
protected:
    PeerRelaysTest()
        : relays_(kOurRelayDisco, {[this](TimePoint, const NodeKey&) { return direct_; },
                                   [this](const NodeKey& node) -> std::optional<DiscoKey> {
                                       if (node == kMetBob) return bob_disco_;
                                       if (node == kMetCarol) return kMetCarolDisco;
                                       return std::nullopt;
                                   },
                                   [this](const DiscoKey& key) -> std::optional<NodeKey> {
                                       if (key == bob_disco_) return kMetBob;
                                       if (key == kMetCarolDisco) return kMetCarol;
                                       return std::nullopt;
                                   },
                                   [this] {
                                       DiscoTxId id{};
                                       id[0] = static_cast<std::byte>(++last_id_);
                                       id[1] = static_cast<std::byte>(last_id_ >> 8);
                                       return id;
                                   }}) {
        relays_.set_enabled(moment(0s), true);
        relays_.set_peers(moment(0s), {kMetBob, kMetCarol, kRelayNode}, {kRelayNode});
    }
    template <typename Action>
    std::vector<Action> take() {
        auto fresh = relays_.take_actions();
        taken_.insert(taken_.end(), fresh.begin(), fresh.end());
        std::vector<Action> out;
        std::erase_if(taken_, [&](const PeerRelayAction& action) {
            if (!std::holds_alternative<Action>(action)) return false;
            out.push_back(std::get<Action>(action));
            return true;
        });
        return out;
    }
    std::size_t nothing_else() {
        auto fresh = relays_.take_actions();
        taken_.insert(taken_.end(), fresh.begin(), fresh.end());
        return taken_.size();
    }
    DiscoRelayEndpoint endpoint(std::uint64_t lamport = 1, std::uint32_t vni = 7) const {
        DiscoRelayEndpoint out;
        out.server = kServerDisco;
        out.clients = {std::min(kOurRelayDisco, bob_disco_), std::max(kOurRelayDisco, bob_disco_)};
        out.lamport_id = lamport;
        out.vni = vni;
        out.bind_lifetime = 30s;
        out.steady_lifetime = 5min;
        out.addresses = {kRelayAt, kRelayAtHome};
        return out;
    }
    DiscoRelayEndpoint other_endpoint() const {
        DiscoRelayEndpoint out = endpoint(1, 9);
        out.server = kOtherServerDisco;
        out.addresses = {kOtherServerAt};
        return out;
    }
    void challenge(Duration when, const DiscoRelayHandshake& bind, const RelayRoute& from,
                   const DiscoKey& server = kServerDisco) {
        DiscoRelayHandshake message = bind;
        message.step = DiscoRelayHandshake::Step::Challenge;
        message.challenge[0] = std::byte{0x42};
        relays_.on_challenge(moment(when), server, from, message);
    }
    void pong_all(Duration when) {
        for (const PingVia& ping : take<PingVia>()) relays_.on_pong(moment(when), ping.disco, ping.id, ping.to);
    }
    /// From the first wish to the route in force.
    void reach(Duration when) {
        relays_.on_wish(moment(when), kMetBob);
        auto asked = take<AskRelayServer>();
        ASSERT_THAT(asked, SizeIs(1));
        relays_.on_allocated(moment(when), kRelayNode, {asked[0].request.generation, endpoint()});
        auto binds = take<ShakeWithRelay>();
        ASSERT_THAT(binds, SizeIs(2));
        challenge(when, binds[0].message, kViaRelay);
        pong_all(when + 10ms);
        ASSERT_EQ(relays_.route(moment(when + 10ms), kMetBob), kViaRelay);
        relays_.take_actions();
        taken_.clear();
    }
    /// Lets time pass as the loop does; wishes keep the peer active where `talking`.
    void pass(Duration from, Duration to, bool talking, bool answered) {
        for (Duration when = from; when <= to; when += 100ms) {
            if (talking) relays_.on_wish(moment(when), kMetBob);
            while (relays_.next_timer() && *relays_.next_timer() <= moment(when)) relays_.on_timer(moment(when));
            if (answered) pong_all(when);
        }
    }

    bool direct_ = false;
    DiscoKey bob_disco_ = kMetBobDisco;
    unsigned last_id_ = 0;
    PeerRelays relays_;
    std::vector<PeerRelayAction> taken_;
};

TEST_F(PeerRelaysTest, GoesFromTheFirstPacketToARoute) {
    relays_.on_wish(moment(0s), kMetBob);
    auto asked = take<AskRelayServer>();
    ASSERT_THAT(asked, SizeIs(1));
    EXPECT_EQ(asked[0].server, kRelayNode);
    EXPECT_THAT(asked[0].request.clients, ElementsAre(kOurRelayDisco, kMetBobDisco));
    EXPECT_NE(asked[0].request.generation, 0u);
    EXPECT_EQ(nothing_else(), 0u);

    relays_.on_allocated(moment(50ms), kRelayNode, {asked[0].request.generation, endpoint()});
    auto calls = take<CallVia>();
    ASSERT_THAT(calls, SizeIs(1));
    EXPECT_EQ(calls[0].peer, kMetBob);
    EXPECT_EQ(calls[0].endpoint, endpoint());
    auto binds = take<ShakeWithRelay>();
    ASSERT_THAT(binds, SizeIs(2));
    EXPECT_EQ(binds[0].to, kViaRelay);
    EXPECT_EQ(binds[1].to, (RelayRoute{kRelayAtHome, 7}));
    EXPECT_EQ(binds[0].message.step, DiscoRelayHandshake::Step::Bind);
    EXPECT_EQ(binds[0].message.remote, kMetBobDisco);
    EXPECT_EQ(binds[0].server, kServerDisco);
    EXPECT_TRUE(relays_.is_shaking_with(kServerDisco, 7));
    EXPECT_FALSE(relays_.is_shaking_with(kServerDisco, 8));
    EXPECT_FALSE(relays_.is_shaking_with(kOtherServerDisco, 7));
    EXPECT_EQ(relays_.on_data(moment(60ms), kViaRelay), std::nullopt) << "nobody has shaken hands there";

    challenge(100ms, binds[0].message, kViaRelay);
    auto answers = take<ShakeWithRelay>();
    ASSERT_THAT(answers, SizeIs(1));
    EXPECT_EQ(answers[0].message.step, DiscoRelayHandshake::Step::Answer);
    EXPECT_EQ(answers[0].message.challenge[0], std::byte{0x42});
    EXPECT_EQ(answers[0].to, kViaRelay);
    challenge(110ms, binds[1].message, {kRelayAtHome, 7});
    EXPECT_THAT(take<ShakeWithRelay>(), IsEmpty()) << "the first that answers is it";
    auto pings = take<PingVia>();
    ASSERT_THAT(pings, SizeIs(1));
    EXPECT_EQ(relays_.on_data(moment(110ms), kViaRelay), kMetBob);
    EXPECT_EQ(relays_.route(moment(110ms), kMetBob), std::nullopt);

    relays_.on_ping(moment(200ms), kMetBobDisco, {}, kViaRelay); // bound now, while our ping came before it was
    EXPECT_THAT(take<PongVia>(), SizeIs(1));
    pings = take<PingVia>();
    ASSERT_THAT(pings, SizeIs(1));
    relays_.on_pong(moment(230ms), kMetBobDisco, pings[0].id, kViaRelay);
    EXPECT_EQ(relays_.route(moment(230ms), kMetBob), kViaRelay);
    EXPECT_EQ(relays_.state(moment(230ms), kMetBob).round_trip, 30ms);
    auto changes = take<RouteChanged>();
    ASSERT_THAT(changes, SizeIs(1));
    EXPECT_EQ(changes[0].route, kViaRelay);
    EXPECT_FALSE(relays_.is_shaking_with(kServerDisco, 7));
    EXPECT_EQ(kViaRelay.text(), "203.0.113.5:40000:vni:7");
}

TEST_F(PeerRelaysTest, MeetsAPeerThatCalls) {
    relays_.set_peers(moment(0s), {kMetBob}, {});
    relays_.on_call(moment(0s), kMetBob, endpoint());
    auto binds = take<ShakeWithRelay>();
    ASSERT_THAT(binds, SizeIs(2));
    EXPECT_THAT(take<CallVia>(), IsEmpty()) << "who called knows";
    challenge(20ms, binds[1].message, {kRelayAtHome, 7});
    pong_all(30ms);
    EXPECT_EQ(relays_.route(moment(30ms), kMetBob), (RelayRoute{kRelayAtHome, 7}));
}

TEST_F(PeerRelaysTest, ARouteIsKeptByHeartbeatsAsLongAsSomebodyTalks) {
    reach(0s);
    pass(100ms, 20s, true, true);
    EXPECT_EQ(relays_.route(moment(20s), kMetBob), kViaRelay);
    pass(20s, 64s, false, true);
    EXPECT_EQ(relays_.route(moment(64s), kMetBob), kViaRelay) << "active for 45 s after the last packet";
    pass(64s, 80s, false, true);
    EXPECT_EQ(relays_.route(moment(80s), kMetBob), std::nullopt);
    take<PingVia>();
    pass(80s, 120s, false, true);
    EXPECT_THAT(take<PingVia>(), IsEmpty()) << "silence costs nothing";
    EXPECT_EQ(relays_.on_data(moment(120s), kViaRelay), kMetBob) << "the server still forwards";
    pass(120s, 600s, false, true);
    EXPECT_EQ(relays_.on_data(moment(600s), kViaRelay), std::nullopt);
    EXPECT_EQ(relays_.next_timer(), std::nullopt);
}

TEST_F(PeerRelaysTest, ALostServerCostsNoMoreThanTheTrust) {
    reach(0s);
    pass(100ms, 10s, true, true);
    EXPECT_EQ(relays_.route(moment(10s), kMetBob), kViaRelay);
    take<RouteChanged>();
    pass(10s + 100ms, 17s, true, false);
    EXPECT_EQ(relays_.route(moment(10s + 6500ms), kMetBob), std::nullopt);
    auto changes = take<RouteChanged>();
    ASSERT_THAT(changes, SizeIs(1));
    EXPECT_EQ(changes[0].route, std::nullopt);
    take<PingVia>();
    pass(17s, 21s, true, true); // it is back
    EXPECT_EQ(relays_.route(moment(21s), kMetBob), kViaRelay) << "an old route is tried without asking anybody";
}

TEST_F(PeerRelaysTest, NobodyIsAskedWhileThePathIsDirect) {
    direct_ = true;
    relays_.on_wish(moment(0s), kMetBob);
    EXPECT_EQ(nothing_else(), 0u);
    direct_ = false;
    relays_.on_wish(moment(1s), kMetBob);
    EXPECT_THAT(take<AskRelayServer>(), SizeIs(1));
}

TEST_F(PeerRelaysTest, ADirectPathEndsTheHeartbeatsAndTheRouteIsThereWhenItIsLost) {
    reach(0s);
    direct_ = true;
    pass(100ms, 20s, true, true);
    EXPECT_THAT(take<PingVia>(), IsEmpty());
    EXPECT_EQ(relays_.route(moment(20s), kMetBob), std::nullopt);
    direct_ = false;
    relays_.on_wish(moment(21s), kMetBob);
    pong_all(21s + 10ms);
    EXPECT_EQ(relays_.route(moment(21s + 10ms), kMetBob), kViaRelay);
}

TEST_F(PeerRelaysTest, AServerThatDoesNotAnswerIsAskedTwiceAndAgainAfterHalfAMinute) {
    pass(0s, 2900ms, true, false);
    EXPECT_THAT(take<AskRelayServer>(), SizeIs(1));
    pass(3s, 29900ms, true, false);
    auto again = take<AskRelayServer>();
    ASSERT_THAT(again, SizeIs(1));
    pass(30s, 32s, true, false);
    EXPECT_THAT(take<AskRelayServer>(), SizeIs(1));
    relays_.on_allocated(moment(32s), kRelayNode, {again[0].request.generation, endpoint()});
    EXPECT_THAT(take<ShakeWithRelay>(), IsEmpty()) << "an answer to a question that is over";
}

TEST_F(PeerRelaysTest, LostMessagesOfAHandshakeAreSaidAgainAndThenItEnds) {
    relays_.on_call(moment(0s), kMetBob, endpoint());
    pass(0s, 10s, false, false);
    auto binds = take<ShakeWithRelay>();
    EXPECT_THAT(binds, SizeIs(2 * PeerRelays::kMostBinds));
    challenge(10s, binds.back().message, kViaRelay);
    pass(10s, 29s, false, false);
    EXPECT_THAT(take<ShakeWithRelay>(), SizeIs(5)) << "answers, each with a ping";
    EXPECT_THAT(take<PingVia>(), SizeIs(5));
    for (int i = 0; i < 20; ++i) relays_.on_ping(moment(29s), kMetBobDisco, {}, kViaRelay);
    EXPECT_THAT(take<PingVia>(), SizeIs(5)) << "ten in all";
    EXPECT_THAT(take<PongVia>(), SizeIs(20));
    pass(29s, 31s, false, false);
    EXPECT_EQ(relays_.state(moment(31s), kMetBob).handshakes, 0u);
    EXPECT_EQ(relays_.on_data(moment(31s), kViaRelay), std::nullopt);
    EXPECT_EQ(relays_.next_timer(), std::nullopt);
}

TEST_F(PeerRelaysTest, AShortLifetimeEndsTheHandshakeEarlier) {
    auto brief = endpoint();
    brief.bind_lifetime = 4s;
    relays_.on_call(moment(0s), kMetBob, brief);
    EXPECT_EQ(relays_.state(moment(0s), kMetBob).handshakes, 1u);
    pass(0s, 4s, false, false);
    EXPECT_EQ(relays_.state(moment(4s), kMetBob).handshakes, 0u);
    brief.bind_lifetime = -1s;
    brief.lamport_id = 2;
    take<ShakeWithRelay>();
    relays_.on_call(moment(5s), kMetBob, brief);
    EXPECT_THAT(take<ShakeWithRelay>(), IsEmpty());
}

TEST_F(PeerRelaysTest, ChallengesThatDoNotFitAreIgnored) {
    relays_.on_call(moment(0s), kMetBob, endpoint());
    auto bind = take<ShakeWithRelay>().at(0).message;
    challenge(1ms, bind, kViaRelay, kOtherServerDisco);
    challenge(1ms, bind, {kRelayAt, 8});
    challenge(1ms, bind, {kOtherServerAt, 7}); // from where we have not been
    auto other = bind;
    other.generation += 1;
    challenge(1ms, other, kViaRelay);
    other = bind;
    other.remote = kMetCarolDisco;
    challenge(1ms, other, kViaRelay);
    relays_.on_challenge(moment(1ms), kServerDisco, kViaRelay, bind); // a bind is none
    EXPECT_EQ(nothing_else(), 0u);
    challenge(1ms, bind, kViaRelay);
    EXPECT_THAT(take<ShakeWithRelay>(), SizeIs(1));
}

TEST_F(PeerRelaysTest, EndpointsThatAreNotForThePairOrLeadToOurselvesAreIgnored) {
    auto wrong = endpoint();
    wrong.clients[1] = kMetCarolDisco;
    relays_.on_call(moment(0s), kMetBob, wrong);
    wrong = endpoint();
    wrong.vni = 0;
    relays_.on_call(moment(0s), kMetBob, wrong);
    wrong.vni = 1u << 24;
    relays_.on_call(moment(0s), kMetBob, wrong);
    wrong = endpoint();
    wrong.addresses.clear();
    for (const char* text : {"127.0.0.1:53", "0.0.0.0:1", "224.0.0.1:5353", "169.254.1.1:1", "203.0.113.5:0",
                             "127.3.3.40:900", "[::1]:53"})
        wrong.addresses.push_back(*Endpoint::parse(text));
    relays_.on_call(moment(0s), kMetBob, wrong);
    relays_.on_call(moment(0s), kRelayNode, endpoint()); // whose key nobody knows
    EXPECT_EQ(nothing_else(), 0u);
    EXPECT_EQ(relays_.next_timer(), std::nullopt);
}

TEST_F(PeerRelaysTest, OnlyANewerEndpointTakesTheRoomOfOneUnderWay) {
    relays_.on_call(moment(0s), kMetBob, endpoint(5));
    EXPECT_THAT(take<ShakeWithRelay>(), SizeIs(2));
    relays_.on_call(moment(1ms), kMetBob, endpoint(5));
    relays_.on_call(moment(2ms), kMetBob, endpoint(4, 8));
    EXPECT_THAT(take<ShakeWithRelay>(), IsEmpty());
    relays_.on_call(moment(3ms), kMetBob, endpoint(6, 8));
    EXPECT_THAT(take<ShakeWithRelay>(), SizeIs(2));
    EXPECT_FALSE(relays_.is_shaking_with(kServerDisco, 7));
    EXPECT_TRUE(relays_.is_shaking_with(kServerDisco, 8));
}

TEST_F(PeerRelaysTest, ARouteInForceIsNotShakenAnew) {
    reach(0s);
    relays_.on_call(moment(1s), kMetBob, endpoint(2));
    EXPECT_THAT(take<ShakeWithRelay>(), IsEmpty());
    relays_.on_call(moment(2s), kMetBob, endpoint(3, 8)); // the server has started over
    auto binds = take<ShakeWithRelay>();
    ASSERT_THAT(binds, SizeIs(2));
    take<PingVia>();
    challenge(2s, binds[0].message, {kRelayAt, 8});
    pong_all(2s + 500ms); // much slower than the old one, but that is gone
    EXPECT_EQ(relays_.route(moment(2s + 500ms), kMetBob), (RelayRoute{kRelayAt, 8}));
    EXPECT_EQ(relays_.on_data(moment(3s), kViaRelay), std::nullopt);
}

TEST_F(PeerRelaysTest, OfTwoServersTheBetterOneIsUsedAndBothAreListenedTo) {
    reach(0s); // in 10 ms
    relays_.on_call(moment(1s), kMetBob, other_endpoint());
    auto binds = take<ShakeWithRelay>();
    ASSERT_THAT(binds, SizeIs(1));
    take<PingVia>();
    const RelayRoute other{kOtherServerAt, 9};
    challenge(1s, binds[0].message, other, kOtherServerDisco);
    auto pings = take<PingVia>();
    ASSERT_THAT(pings, SizeIs(1));
    relays_.on_pong(moment(1s + 80ms), kMetBobDisco, pings[0].id, other);
    EXPECT_EQ(relays_.route(moment(1s + 80ms), kMetBob), kViaRelay);
    EXPECT_EQ(relays_.on_data(moment(2s), other), kMetBob) << "the peer chooses for itself";
    pass(2s, 10s, true, false);
    EXPECT_EQ(relays_.route(moment(10s), kMetBob), std::nullopt);
    relays_.on_wish(moment(10s + 100ms), kMetBob);
    for (const PingVia& ping : take<PingVia>())
        if (ping.to == other) relays_.on_pong(moment(10s + 200ms), kMetBobDisco, ping.id, other);
    pass(10s + 200ms, 14s, true, false);
    for (const PingVia& ping : take<PingVia>())
        if (ping.to == other) relays_.on_pong(moment(14s), kMetBobDisco, ping.id, other);
    EXPECT_EQ(relays_.route(moment(14s), kMetBob), other);
}

TEST_F(PeerRelaysTest, PongsCountOnceFromWhereThePingWent) {
    relays_.on_call(moment(0s), kMetBob, endpoint());
    challenge(1ms, take<ShakeWithRelay>().at(0).message, kViaRelay);
    PingVia ping = take<PingVia>().at(0);
    relays_.on_pong(moment(2ms), kMetBobDisco, ping.id, {kRelayAtHome, 7});
    relays_.on_pong(moment(2ms), kMetBobDisco, ping.id, {kRelayAt, 8});
    relays_.on_pong(moment(2ms), kMetCarolDisco, ping.id, kViaRelay);
    EXPECT_EQ(relays_.route(moment(2ms), kMetBob), std::nullopt);
    relays_.on_pong(moment(6s), kMetBobDisco, ping.id, kViaRelay);
    EXPECT_EQ(relays_.route(moment(6s), kMetBob), std::nullopt) << "too late";
}

TEST_F(PeerRelaysTest, ANumberInUseByOnePeerIsNoOthers) {
    reach(0s);
    auto theirs = endpoint(1, 7);
    theirs.server = kOtherServerDisco; // says to be where the first server is
    theirs.clients = {kOurRelayDisco, kMetCarolDisco};
    relays_.on_call(moment(1s), kMetCarol, theirs);
    auto binds = take<ShakeWithRelay>();
    ASSERT_THAT(binds, SizeIs(2));
    challenge(1s, binds[0].message, kViaRelay, kOtherServerDisco);
    EXPECT_EQ(relays_.on_data(moment(1s), kViaRelay), kMetBob);
    EXPECT_THAT(take<ShakeWithRelay>(), IsEmpty());
    challenge(7s, binds[0].message, kViaRelay, kOtherServerDisco); // the first route is over
    EXPECT_EQ(relays_.on_data(moment(7s), kViaRelay), kMetCarol);
}

TEST_F(PeerRelaysTest, ManyCallsMakeUsSendLittle) {
    std::size_t sent = 0;
    for (std::uint64_t i = 0; i < 1000; ++i) {
        relays_.on_call(moment(i * 1ms), kMetBob, endpoint(i + 1, 100 + static_cast<std::uint32_t>(i)));
        sent += take<ShakeWithRelay>().size();
    }
    EXPECT_EQ(sent, 2 * static_cast<std::size_t>(PeerRelays::kCallBurst));
    auto long_list = endpoint(5000, 5000);
    for (int i = 0; i < 3000; ++i) long_list.addresses.push_back(kRelayAt);
    relays_.on_call(moment(1min), kMetBob, long_list);
    EXPECT_THAT(take<ShakeWithRelay>(), SizeIs(PeerRelays::kMostAddresses));
}

TEST_F(PeerRelaysTest, WhoCannotOrMayNotIsNeverMet) {
    relays_.set_peers(moment(0s), {kMetCarol}, {kRelayNode});
    relays_.on_wish(moment(0s), kMetBob);
    relays_.on_call(moment(0s), kMetBob, endpoint());
    EXPECT_EQ(nothing_else(), 0u);
    relays_.set_peers(moment(0s), {kMetBob}, {kRelayNode});
    reach(1s);
    relays_.set_enabled(moment(2s), false);
    EXPECT_THAT(take<RouteChanged>(), SizeIs(1));
    EXPECT_EQ(relays_.route(moment(2s), kMetBob), std::nullopt);
    EXPECT_EQ(relays_.on_data(moment(2s), kViaRelay), std::nullopt);
    relays_.on_wish(moment(2s), kMetBob);
    relays_.on_call(moment(2s), kMetBob, endpoint());
    relays_.on_ping(moment(2s), kMetBobDisco, {}, kViaRelay);
    EXPECT_EQ(nothing_else(), 0u);
    EXPECT_EQ(relays_.next_timer(), std::nullopt);
}

TEST_F(PeerRelaysTest, AnotherKeyOfThePeerOrAnotherNetworkOfOursBeginsAnew) {
    reach(0s);
    relays_.on_network_change(moment(1s));
    EXPECT_EQ(relays_.route(moment(1s), kMetBob), std::nullopt);
    relays_.take_actions();
    reach(1s);
    bob_disco_ = relay_key<DiscoKey>(9);
    relays_.on_wish(moment(2s), kMetBob);
    EXPECT_EQ(relays_.route(moment(2s), kMetBob), std::nullopt);
    auto asked = take<AskRelayServer>();
    ASSERT_THAT(asked, SizeIs(1));
    EXPECT_THAT(asked[0].request.clients, ElementsAre(kOurRelayDisco, bob_disco_));
}

TEST_F(PeerRelaysTest, PingsForPeopleGoByTheRouteInForce) {
    EXPECT_EQ(relays_.ask(moment(0s), kMetBob), 0u);
    reach(0s);
    std::uint64_t question = relays_.ask(moment(1s), kMetBob);
    EXPECT_NE(question, 0u);
    pong_all(1s + 25ms);
    auto answers = take<AnsweredVia>();
    ASSERT_THAT(answers, SizeIs(1));
    EXPECT_EQ(answers[0].question, question);
    EXPECT_EQ(answers[0].route, kViaRelay);
    EXPECT_EQ(answers[0].round_trip, 25ms);
}

TEST_F(PeerRelaysTest, NoMoreServersThanEnoughAreAsked) {
    std::vector<NodeKey> many;
    for (int i = 0; i < 100; ++i) many.push_back(relay_key<NodeKey>(1000 + i));
    relays_.set_peers(moment(0s), {kMetBob}, many);
    relays_.on_wish(moment(0s), kMetBob);
    EXPECT_THAT(take<AskRelayServer>(), SizeIs(PeerRelays::kMostServers));
}

} // namespace
} // namespace tailrace
