#include "agent/path/hole_puncher.hpp"
#include "agent/path/icmp_error.hpp"
#include "base/text.hpp"
#include "tests/unit/agent/moments.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using Step = DiscoPunch::Step;

const NodeKey kAlice{std::array<std::byte, 32>{std::byte{1}}}; // behind the easy NAT
const NodeKey kBob{std::array<std::byte, 32>{std::byte{2}}};   // behind the hard one
const Endpoint kAliceOutside = *Endpoint::parse("203.0.113.10:41641");
const Endpoint kBobOutside = *Endpoint::parse("203.0.113.20:5555");
const HolePuncher::PeerFacts kOfAlice{true, false, {kAliceOutside.address}};
const HolePuncher::PeerFacts kOfBob{true, false, {kBobOutside.address}};

struct Side {
    explicit Side(std::uint32_t seed) : random(seed) {}
    std::uint32_t random;
    HolePuncher puncher{[this](std::uint32_t limit) { return (random = random * 1664525u + 1013904223u) / 7 % limit; }};
    std::vector<PunchAction> seen{};

    void take() { seen = puncher.take_actions(); }
    template <typename Action>
    std::optional<Action> did() const {
        for (const PunchAction& action : seen)
            if (const auto* found = std::get_if<Action>(&action)) return *found;
        return std::nullopt;
    }
    std::optional<DiscoPunch> said() const {
        auto say = did<PunchSay>();
        return say ? std::optional{say->message} : std::nullopt;
    }
    std::optional<Step> step_said() const {
        auto message = said();
        return message ? std::optional{message->step} : std::nullopt;
    }
};

class HolePuncherTest : public testing::Test {
protected:
    HolePuncherTest() {
        bob_.puncher.set_self({true, true, kBobOutside});
        alice_.puncher.set_self({true, false, kAliceOutside});
    }
    /// Bob relays a packet each second.
    void bob_talks(Duration from, Duration to) {
        for (Duration now = from; now <= to; now += 1s) bob_.puncher.on_relayed_packet(at(now), kAlice);
        bob_.take();
    }
    void tell_alice(Duration when, const HolePuncher::PeerFacts& facts = kOfBob) {
        auto message = bob_.said();
        ASSERT_TRUE(message);
        alice_.puncher.on_message(at(when), kBob, *message, facts);
        alice_.take();
    }
    void tell_bob(Duration when) {
        auto message = alice_.said();
        ASSERT_TRUE(message);
        bob_.puncher.on_message(at(when), kAlice, *message, kOfAlice);
        bob_.take();
    }
    /// Up to Alice's first probes, at 3 s.
    void begin() {
        bob_talks(0s, 3s);
        tell_alice(3s);
        tell_bob(3s);
        bob_.puncher.on_opened(at(3s), HolePuncher::kSockets);
        bob_.take();
        tell_alice(3s);
    }
    /// All that Alice probes from 3 s on.
    std::set<Endpoint> all_probes() {
        std::set<Endpoint> out;
        for (Duration now = 3s; now < 20s; now += 50ms) {
            for (const PunchAction& action : alice_.seen)
                if (const auto* probe = std::get_if<PunchProbe>(&action))
                    out.insert(probe->to.begin(), probe->to.end());
            alice_.puncher.on_timer(at(now), [](const Endpoint&) { return true; });
            alice_.take();
        }
        return out;
    }

    Side alice_{1}, bob_{2};
};

TEST_F(HolePuncherTest, AsksAfterSomeSecondsOfRelayedTalk) {
    bob_talks(0s, 2s);
    EXPECT_TRUE(bob_.seen.empty());
    bob_talks(3s, 3s);
    EXPECT_EQ(bob_.step_said(), Step::Ask);
    EXPECT_EQ(bob_.said()->outside, (Endpoint{kBobOutside.address, 0}));
    EXPECT_FALSE(bob_.did<PunchOpen>()) << "nothing is opened for who may not understand";
}

TEST_F(HolePuncherTest, ASingleRequestIsNotWorthIt) {
    bob_talks(0s, 1s);
    bob_talks(30s, 31s);
    EXPECT_TRUE(bob_.seen.empty());
}

TEST_F(HolePuncherTest, OnlyTheHardSideAsks) {
    for (auto varies : {std::optional<bool>{}, std::optional<bool>{false}}) {
        bob_.puncher.set_self({true, varies, kBobOutside});
        bob_talks(0s, 10s);
        EXPECT_TRUE(bob_.seen.empty());
    }
}

TEST_F(HolePuncherTest, TheSettingTurnsBothSidesOff) {
    bob_.puncher.set_self({false, true, kBobOutside});
    bob_talks(0s, 10s);
    EXPECT_TRUE(bob_.seen.empty());
    bob_.puncher.set_self({true, true, kBobOutside});
    bob_talks(20s, 23s);
    alice_.puncher.set_self({false, false, kAliceOutside});
    tell_alice(23s);
    EXPECT_EQ(alice_.step_said(), Step::Refuse);
}

TEST_F(HolePuncherTest, SwitchedOffItLeavesThePathsThatItFound) {
    begin();
    bob_.puncher.on_hit(at(4s), 50001);
    auto probe = alice_.did<PunchProbe>();
    ASSERT_TRUE(probe);
    alice_.puncher.on_heard(kBob, probe->to.front());
    for (auto [side, left] : {std::pair{&bob_, kAliceOutside}, {&alice_, probe->to.front()}}) {
        side->take();
        bool hard = side == &bob_;
        side->puncher.set_self({false, hard, hard ? kBobOutside : kAliceOutside});
        side->take();
        ASSERT_TRUE(side->did<PunchLeave>());
        EXPECT_EQ(side->did<PunchLeave>()->endpoints, std::set{left});
        EXPECT_FALSE(side->did<PunchMoves>()) << "what is on its way shall arrive";
        side->puncher.set_self({false, hard, hard ? kBobOutside : kAliceOutside});
        side->take();
        EXPECT_TRUE(side->seen.empty()) << "said once";
    }
    for (Duration now = 5s; now < 50s; now += 1s) bob_.puncher.on_timer(at(now), [](const Endpoint&) { return false; });
    bob_.take();
    EXPECT_TRUE(bob_.puncher.moves().empty());
    static_assert(HolePuncher::kLeaveFor > HolePuncher::kKeepMove + HolePuncher::kLookAtMoves);
    bob_.puncher.set_self({true, true, kBobOutside});
    bob_.take();
    EXPECT_TRUE(bob_.did<PunchForgive>());
}

TEST_F(HolePuncherTest, SwitchedOffItLeavesWhatAnEarlierAgentMoved) {
    bob_.puncher.set_self({false, true, kBobOutside});
    bob_.puncher.adopt(at(0s), {{kAliceOutside, 50001}}, {});
    bob_.take();
    ASSERT_TRUE(bob_.did<PunchLeave>());
    EXPECT_EQ(bob_.did<PunchLeave>()->endpoints, std::set{kAliceOutside});
}

TEST_F(HolePuncherTest, WhatAnEarlierAgentFoundIsLeftLikeItsOwn) {
    begin();
    Endpoint from = alice_.did<PunchProbe>()->to.front();
    alice_.puncher.on_heard(kBob, from);
    alice_.take();
    ASSERT_TRUE(alice_.did<PunchFound>());
    auto kept = alice_.did<PunchFound>()->paths;
    EXPECT_EQ(kept, (std::map<NodeKey, Endpoint>{{kBob, from}}));
    for (bool off_before : {false, true}) {
        Side next{3};
        next.puncher.set_self({!off_before, false, kAliceOutside});
        next.puncher.adopt(at(10s), {}, kept);
        next.puncher.keep_only({kBob});
        if (!off_before) {
            next.take();
            EXPECT_TRUE(next.seen.empty());
            next.puncher.set_self({false, false, kAliceOutside});
        }
        next.take();
        ASSERT_TRUE(next.did<PunchLeave>());
        EXPECT_EQ(next.did<PunchLeave>()->endpoints, std::set{from});
        EXPECT_TRUE(next.did<PunchFound>()->paths.empty()) << "the one after that need not know";
    }
    alice_.puncher.keep_only({});
    alice_.take();
    EXPECT_TRUE(alice_.did<PunchFound>()->paths.empty()) << "of a peer that is gone nothing is kept";
}

TEST_F(HolePuncherTest, OpensMappingsWhenTheEasySideIsReadyThenSaysGo) {
    bob_talks(0s, 3s);
    tell_alice(3s);
    EXPECT_EQ(alice_.step_said(), Step::Ready);
    tell_bob(3s);
    auto open = bob_.did<PunchOpen>();
    ASSERT_TRUE(open);
    EXPECT_EQ(open->remote, kAliceOutside);
    EXPECT_EQ(open->count, HolePuncher::kSockets);
    bob_.puncher.on_opened(at(3s), open->count);
    bob_.take();
    EXPECT_EQ(bob_.step_said(), Step::Go);
}

TEST_F(HolePuncherTest, FeelsBeforeItProbes) {
    begin();
    auto feelers = alice_.did<PunchProbe>();
    ASSERT_TRUE(feelers);
    EXPECT_EQ(feelers->to.size(), HolePuncher::kFeelers);
    for (const Endpoint& one : feelers->to) EXPECT_LT(one.port, 1024) << "no mapping can be there";
    alice_.puncher.on_timer(at(3s + HolePuncher::kFeelFor - 1ms), [](const Endpoint&) { return true; });
    alice_.take();
    EXPECT_FALSE(alice_.did<PunchProbe>());
}

TEST_F(HolePuncherTest, ProbesDistinctPortsOfOneAddressWithinItsBudgetAndPace) {
    begin();
    auto tick = [&](Duration when) {
        alice_.puncher.on_timer(at(3s + HolePuncher::kFeelFor + when), [](const Endpoint&) { return true; });
        alice_.take();
        return alice_.did<PunchProbe>();
    };
    auto first = tick(0ms);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->to.size(), HolePuncher::kBatch);
    EXPECT_FALSE(tick(99ms));
    auto rest = all_probes();
    rest.insert(first->to.begin(), first->to.end());
    EXPECT_EQ(rest.size(), HolePuncher::kProbes);
    for (const Endpoint& one : rest) {
        EXPECT_EQ(one.address, kBobOutside.address);
        EXPECT_GE(one.port, 1024);
    }
    EXPECT_FALSE(alice_.puncher.running_with());
}

TEST_F(HolePuncherTest, FindsAMappingAtLeastNineTimesInTen) {
    int found = 0;
    for (std::uint32_t seed = 0; seed < 20; ++seed) {
        alice_.random = seed * 77 + 5;
        alice_.puncher.on_network_change(at(0s)); // forgets what it did for whom
        bob_.puncher.on_network_change(at(0s));
        begin();
        std::set<std::uint16_t> mapped;
        std::uint32_t other = seed * 13 + 1;
        while (mapped.size() < HolePuncher::kSockets) {
            other = other * 1103515245u + 12345u;
            mapped.insert(static_cast<std::uint16_t>(1024 + (other >> 8) % 64512));
        }
        auto probes = all_probes();
        found += std::ranges::any_of(probes, [&](const Endpoint& one) { return mapped.contains(one.port); });
    }
    EXPECT_GE(found, 18);
}

TEST_F(HolePuncherTest, TheSocketThatIsHitBecomesTheWayToThePeer) {
    begin();
    bob_.puncher.on_hit(at(3500ms), 50001);
    bob_.puncher.on_hit(at(3501ms), 50002); // the second comes too late
    bob_.take();
    auto moves = bob_.did<PunchMoves>();
    ASSERT_TRUE(moves);
    EXPECT_EQ(moves->ports, (std::map<Endpoint, std::uint16_t>{{kAliceOutside, 50001}}));
    EXPECT_FALSE(bob_.did<PunchClose>()) << "a closed socket would answer a late probe with an ICMP error";
    bob_.puncher.on_timer(at(3500ms + HolePuncher::kLinger), [](const Endpoint&) { return true; });
    bob_.take();
    EXPECT_TRUE(bob_.did<PunchClose>());
    EXPECT_EQ(bob_.puncher.moves().size(), 1u);
}

TEST_F(HolePuncherTest, WhereNoPortCanBeMovedItIsNotTriedAgainSoon) {
    begin();
    bob_.puncher.on_hit(at(4s), 50001);
    bob_.puncher.on_move_failed(at(4s));
    bob_.take();
    EXPECT_TRUE(bob_.puncher.moves().empty());
    EXPECT_TRUE(bob_.did<PunchClose>());
    bob_talks(5s, 50min);
    EXPECT_TRUE(bob_.seen.empty());
}

TEST_F(HolePuncherTest, ProbingEndsWhenThePeerIsHeardFromAProbedPort) {
    begin();
    auto probe = alice_.did<PunchProbe>();
    ASSERT_TRUE(probe);
    alice_.puncher.on_heard(kBob, {kBobOutside.address, 80}); // not a port that was probed
    EXPECT_TRUE(alice_.puncher.running_with());
    alice_.puncher.on_heard(kBob, probe->to.front());
    EXPECT_FALSE(alice_.puncher.running_with());
    alice_.take();
    EXPECT_TRUE(alice_.did<PunchProbed>());
}

TEST_F(HolePuncherTest, AnIcmpErrorToTheEasySideStopsBothForLong) {
    begin();
    auto probe = alice_.did<PunchProbe>();
    ASSERT_TRUE(probe);
    EXPECT_FALSE(alice_.puncher.on_icmp_error(at(3100ms), kBobOutside)) << "not about a probe";
    EXPECT_TRUE(alice_.puncher.on_icmp_error(at(3100ms), probe->to.front()));
    alice_.take();
    EXPECT_EQ(alice_.step_said(), Step::Stop);
    EXPECT_TRUE(alice_.did<PunchProbed>());
    tell_bob(3100ms);
    EXPECT_TRUE(bob_.did<PunchClose>());
    bob_talks(4s, 59min);
    EXPECT_TRUE(bob_.seen.empty());
    bob_talks(59min, 61min);
    EXPECT_EQ(bob_.step_said(), Step::Ask);
}

TEST_F(HolePuncherTest, AnIcmpErrorToTheHardSideStopsBothForLong) {
    begin();
    bob_.puncher.on_refused(at(3100ms));
    bob_.take();
    EXPECT_TRUE(bob_.did<PunchClose>());
    EXPECT_EQ(bob_.step_said(), Step::Stop);
    tell_alice(3100ms);
    EXPECT_FALSE(alice_.puncher.running_with());
    alice_.puncher.on_message(at(10min), kBob, {Step::Ask, 7, {kBobOutside.address, 0}}, kOfBob);
    alice_.take();
    EXPECT_EQ(alice_.step_said(), Step::Refuse);
}

TEST_F(HolePuncherTest, ServesAPeerOnceAMinuteAndOnePeerAtATime) {
    begin();
    const NodeKey carol{std::array<std::byte, 32>{std::byte{3}}};
    alice_.puncher.on_message(at(4s), carol, {Step::Ask, 7, {kBobOutside.address, 0}}, kOfBob);
    alice_.take();
    EXPECT_EQ(alice_.step_said(), Step::Refuse);
    (void)all_probes();
    for (auto [when, answer] : {std::pair{40s, Step::Refuse}, {63s, Step::Ready}}) {
        alice_.puncher.on_message(at(when), kBob, {Step::Ask, 8, {kBobOutside.address, 0}}, kOfBob);
        alice_.take();
        EXPECT_EQ(alice_.step_said(), answer);
    }
}

TEST_F(HolePuncherTest, NobodyIsMadeToProbeAStranger) {
    auto asked = [&](const char* address, HolePuncher::PeerFacts facts) {
        alice_.puncher.on_message(at(0s), kBob, {Step::Ask, 7, {*IpAddress::parse(address), 0}}, facts);
        alice_.take();
        return alice_.step_said();
    };
    EXPECT_EQ(asked("203.0.113.99", kOfBob), Step::Refuse); // no address of Bob's
    for (const char* ours : {"10.0.0.1", "192.168.1.1", "127.0.0.1", "100.64.0.1", "224.0.0.1", "255.255.255.255"})
        EXPECT_EQ(asked(ours, {true, false, {*IpAddress::parse(ours)}}), Step::Refuse) << ours;
    EXPECT_EQ(asked("203.0.113.20", {false, false, {kBobOutside.address}}), Step::Refuse); // we don't talk to him
    EXPECT_EQ(asked("203.0.113.20", {true, true, {kBobOutside.address}}), Step::Refuse);   // nor need to look
    EXPECT_EQ(asked("203.0.113.20", kOfBob), Step::Ready);
}

TEST_F(HolePuncherTest, WhoeverDoesNotAnswerIsAskedEverMoreRarely) {
    std::vector<Duration> asked;
    for (Duration now{}; now < 8h; now += 1s) {
        bob_.puncher.on_relayed_packet(at(now), kAlice);
        bob_.puncher.on_timer(at(now), [](const Endpoint&) { return true; });
        bob_.take();
        EXPECT_FALSE(bob_.did<PunchOpen>());
        if (bob_.step_said() == Step::Ask) asked.push_back(now);
    }
    ASSERT_GE(asked.size(), 9u);
    EXPECT_LE(asked.size(), 14u);
    EXPECT_LT(asked[1] - asked[0], 2min);
    EXPECT_GE(asked.back() - asked[asked.size() - 2], 1h);
}

TEST_F(HolePuncherTest, MessagesOfAnotherRunOrPeerMeanNothing) {
    bob_talks(0s, 3s);
    std::uint32_t run = bob_.said()->run;
    bob_.puncher.on_message(at(3s), kAlice, {Step::Ready, run + 1, kAliceOutside}, kOfAlice);
    bob_.puncher.on_message(at(3s), kBob, {Step::Ready, run, kAliceOutside}, kOfAlice);
    bob_.take();
    EXPECT_TRUE(bob_.seen.empty());
    alice_.puncher.on_message(at(3s), kBob, {Step::Go, run, {}}, kOfBob);
    alice_.take();
    EXPECT_TRUE(alice_.seen.empty()) << "not asked first";
}

TEST_F(HolePuncherTest, AMoveEndsWhenItsPathNoLongerWorks) {
    begin();
    bob_.puncher.on_hit(at(4s), 50001);
    for (Duration now = 4s; now < 10min; now += 1s)
        bob_.puncher.on_timer(at(now), [](const Endpoint& remote) { return remote == kAliceOutside; });
    EXPECT_EQ(bob_.puncher.moves().size(), 1u);
    bob_.take();
    for (Duration now = 10min; now < 11min; now += 1s)
        bob_.puncher.on_timer(at(now), [](const Endpoint&) { return false; });
    bob_.take();
    EXPECT_TRUE(bob_.puncher.moves().empty());
    EXPECT_TRUE(bob_.did<PunchMoves>()->ports.empty());
    EXPECT_FALSE(bob_.puncher.next_timer()) << "silence costs nothing";
}

TEST_F(HolePuncherTest, AnEarlierAgentsMovesAreKeptWhileTheyWork) {
    bob_.puncher.adopt(at(0s), {{kAliceOutside, 50001}, {*Endpoint::parse("203.0.113.11:1"), 50002}}, {});
    for (Duration now = 0s; now < 1min; now += 1s)
        bob_.puncher.on_timer(at(now), [](const Endpoint& remote) { return remote == kAliceOutside; });
    EXPECT_EQ(bob_.puncher.moves(), (std::map<Endpoint, std::uint16_t>{{kAliceOutside, 50001}}));
}

TEST_F(HolePuncherTest, InAnotherNetworkAMoveMustProveItselfSoon) {
    begin();
    bob_.puncher.on_hit(at(4s), 50001);
    bob_.take();
    for (auto [from, works] : {std::pair{5s, true}, {60s, false}}) {
        bob_.puncher.on_network_change(at(from));
        bob_.take();
        for (Duration now = from; now <= from + HolePuncher::kProveAgain + HolePuncher::kLookAtMoves + 1s; now += 1s)
            bob_.puncher.on_timer(at(now), [works = works](const Endpoint&) { return works; });
        EXPECT_EQ(bob_.puncher.moves().size(), works ? 1u : 0u);
    }
}

TEST_F(HolePuncherTest, AnotherNetworkEndsARun) {
    begin();
    bob_.puncher.on_network_change(at(4s));
    bob_.take();
    EXPECT_TRUE(bob_.did<PunchClose>());
    alice_.puncher.on_network_change(at(4s));
    alice_.take();
    EXPECT_TRUE(alice_.did<PunchProbed>());
    EXPECT_FALSE(alice_.puncher.next_timer());
}

// -- ICMP errors

Bytes icmp_error(int type, int code, std::string_view options = "") {
    // IPv4 with ICMP from 203.0.113.20 to 192.168.1.5 | ICMP | IPv4 with UDP, back | ports, length, checksum
    std::string text = fmt::format("{}00 0038 0000 0000 4001 0000 cb007114 c0a80105 {} {:02x}{:02x} 0000 00000000"
                                   "45 00 0038 0000 0000 4011 0000 c0a80105 cb007114 a2a9 c350 0024 0000",
                                   options.empty() ? "45" : "46", options, type, code);
    std::erase(text, ' ');
    return *hex_decode(text);
}

TEST(IcmpError, NamesTheDatagramThatItSpeaksOf) {
    auto error = parse_icmp_error(icmp_error(3, 3));
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code, 3);
    EXPECT_EQ(error->from, *Endpoint::parse("192.168.1.5:41641"));
    EXPECT_EQ(error->to, *Endpoint::parse("203.0.113.20:50000"));
    EXPECT_EQ(parse_icmp_error(icmp_error(3, 13, "01010101"))->code, 13);
}

TEST(IcmpError, NothingElseCounts) {
    EXPECT_FALSE(parse_icmp_error(icmp_error(3, 4)));  // too big
    EXPECT_FALSE(parse_icmp_error(icmp_error(11, 0))); // time exceeded
    Bytes whole = icmp_error(3, 3);
    for (std::size_t size = 0; size < whole.size() - 4; ++size)
        EXPECT_FALSE(parse_icmp_error(BytesView{whole}.first(size))) << size;
    Bytes of_tcp = whole;
    of_tcp[20 + 8 + 9] = std::byte{6};
    EXPECT_FALSE(parse_icmp_error(of_tcp));
}

} // namespace
} // namespace tailrace
