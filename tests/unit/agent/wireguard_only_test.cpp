// Which address of a peer is used that speaks WireGuard and nothing else.
#include "agent/path/path_book.hpp"
#include "agent/path/path_report.hpp"
#include "tests/unit/agent/moments.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const NodeKey kExit{std::array<std::byte, 32>{std::byte{7}}};
const Endpoint kExitFirst = *Endpoint::parse("203.0.113.7:51820"), kExitSecond = *Endpoint::parse("198.51.100.7:51820");
const Endpoint kExitSixth = *Endpoint::parse("[2001:db8::7]:51820"),
               kExitElsewhere = *Endpoint::parse("192.0.2.77:40000");

class WireGuardOnlyTest : public testing::Test {
protected:
    WireGuardOnlyTest() : book_([this] { return DiscoTxId{static_cast<std::byte>(chance_)}; }) {
        introduce(0s, {kExitFirst, kExitSecond, kExitSixth});
    }
    void introduce(Duration now, const std::vector<Endpoint>& endpoints) {
        PathBook::Peer peer{kExit, {}, endpoints};
        peer.wireguard_only = true;
        book_.set_peers(at(now), {peer});
        take();
    }
    /// Whose echo is to be measured.
    std::vector<Endpoint> take() {
        std::vector<Endpoint> echoes;
        for (const PathAction& action : book_.take_actions()) {
            if (const auto* echo = std::get_if<SendEcho>(&action)) echoes.push_back(echo->to);
            EXPECT_FALSE(std::holds_alternative<SendPing>(action)) << "it knows nothing of disco";
        }
        return echoes;
    }
    std::vector<Endpoint> send(Duration now) {
        book_.on_traffic(at(now), kExit);
        return take();
    }
    void hear(Duration now, const Endpoint& from) {
        book_.on_kernel_endpoint(at(now), kExit, from); // WireGuard has followed
        book_.on_data(at(now - 1s), at(now), kExit, from);
    }
    /// Where WireGuard sends at that time.
    std::optional<Endpoint> used(Duration now) {
        book_.on_timer(at(now));
        take();
        return book_.endpoint(kExit);
    }
    std::string reason(Duration now) {
        return path_reason(book_.state(at(now), kExit), book_.candidates(at(now), kExit));
    }

    unsigned chance_ = 0;
    PathBook book_;
};

TEST_F(WireGuardOnlyTest, EchoesAreMeasuredWhenSomethingIsSentAndNotBefore) {
    EXPECT_EQ(used(0s), kExitFirst);
    EXPECT_EQ(used(100s), kExitFirst);
    EXPECT_THAT(send(100s), UnorderedElementsAre(kExitFirst, kExitSecond, kExitSixth));
    EXPECT_TRUE(book_.state(at(100s), kExit).trusted) << "tried for a second";
    EXPECT_FALSE(book_.state(at(101s), kExit).trusted);
    EXPECT_TRUE(book_.state(at(100s), kExit).wireguard_only);
}

TEST_F(WireGuardOnlyTest, TheQuickestAnswerDecidesOnceTheFirstSecondIsOver) {
    send(0s);
    book_.on_echo(at(50ms), kExit, kExitFirst, 50ms);
    book_.on_echo(at(90ms), kExit, kExitSecond, 20ms);
    book_.on_echo(at(91ms), kExit, kExitSixth, 30ms);
    EXPECT_EQ(used(999ms), kExitFirst);
    EXPECT_EQ(used(1s), kExitSecond);
    EXPECT_THAT(reason(1s), HasSubstr("WireGuard only: it answers an echo there in 20.0 ms, and 3 of 3 addresses"));
}

TEST_F(WireGuardOnlyTest, OfTwoThatAreEquallyQuickTheOneWithIpv6) {
    for (bool v6_first : {true, false}) {
        introduce(0s, {});
        introduce(0s, {kExitFirst, kExitSixth});
        const Duration start = v6_first ? 0s : 20s;
        send(start);
        book_.on_echo(at(start), kExit, v6_first ? kExitSixth : kExitFirst, 20ms);
        book_.on_echo(at(start), kExit, v6_first ? kExitFirst : kExitSixth, 20ms);
        EXPECT_EQ(used(start + 1s), kExitSixth);
    }
    send(100s);
    book_.on_echo(at(100s), kExit, kExitSixth, 20ms + 1us);
    book_.on_echo(at(100s), kExit, kExitFirst, 20ms);
    EXPECT_EQ(used(101s), kExitFirst);
}

TEST_F(WireGuardOnlyTest, WhatIsHeardIsBestForFiveSecondsWhereverItComesFrom) {
    send(0s);
    book_.on_echo(at(10ms), kExit, kExitSecond, 10ms);
    hear(500ms, kExitElsewhere);
    EXPECT_EQ(used(5499ms), kExitElsewhere) << "though another address is quicker";
    EXPECT_THAT(reason(5s), HasSubstr("its packets come from there"));
    hear(5499ms, kExitElsewhere);
    EXPECT_EQ(used(10s), kExitElsewhere);
    EXPECT_EQ(used(10499ms), kExitSecond) << "the next packet goes where echoes are answered";
}

TEST_F(WireGuardOnlyTest, RoundsAreTenSecondsApartAndNoneAreMadeWhileItIsHeard) {
    EXPECT_EQ(send(0s).size(), 3u);
    for (Duration now = 1s; now <= 10s; now += 1s) EXPECT_THAT(send(now), IsEmpty()) << now.count();
    EXPECT_EQ(send(11s).size(), 3u);
    for (Duration now = 12s; now <= 60s; now += 1s) {
        hear(now, kExitFirst);
        EXPECT_THAT(send(now), IsEmpty()) << "it answers";
    }
    used(65s);
    hear(100s, kExitFirst); // it was silent, and both are seen at one look at the device
    EXPECT_EQ(send(100s).size(), 3u);
}

TEST_F(WireGuardOnlyTest, WithoutAnswersAnotherAddressIsTriedUntilOneIsHeard) {
    std::set<Endpoint> tried;
    for (Duration now = 0s; now < 50s; now += 5s) { // as often as WireGuard tries
        chance_ = static_cast<unsigned>(now / 10s);
        send(now);
        for (const Endpoint& endpoint : {kExitFirst, kExitSecond, kExitSixth})
            book_.on_echo(at(now), kExit, endpoint, std::nullopt);
        auto before = book_.endpoint(kExit);
        EXPECT_EQ(used(now + 2499ms), before) << "an answer is seen a second after it has come";
        EXPECT_NE(used(now + 2500ms), before) << "what was tried in vain is left";
        tried.insert(*book_.endpoint(kExit));
    }
    EXPECT_EQ(tried.size(), 3u);
    hear(60s, kExitSecond);
    used(65s);
    EXPECT_EQ(used(200s), kExitSecond) << "silence alone is no reason to leave";
}

TEST_F(WireGuardOnlyTest, AnAnswerThatIsSeenAtTheNextLookKeepsTheAddress) {
    send(0s); // at this look the answer is still under way
    EXPECT_EQ(used(1s), kExitFirst);
    hear(1001ms, kExitFirst);
    EXPECT_EQ(used(3s), kExitFirst);
    EXPECT_EQ(used(60s), kExitFirst);
    send(61s);
    EXPECT_EQ(used(62s), kExitFirst);
    send(62s); // more for nothing; the time counts from the first
    EXPECT_NE(used(63500ms), kExitFirst);
}

TEST_F(WireGuardOnlyTest, AnAddressThatAnswersNoMoreIsNotQuickAnyMore) {
    send(0s);
    book_.on_echo(at(10ms), kExit, kExitSecond, 10ms);
    EXPECT_EQ(used(1s), kExitSecond);
    send(20s);
    book_.on_echo(at(20030ms), kExit, kExitFirst, 30ms);
    book_.on_echo(at(25s), kExit, kExitSecond, std::nullopt);
    EXPECT_EQ(used(25s), kExitFirst);
}

TEST_F(WireGuardOnlyTest, WithOneAddressThereIsNothingToMeasure) {
    introduce(1s, {kExitFirst});
    EXPECT_THAT(send(1s), IsEmpty());
    EXPECT_EQ(used(3s), kExitFirst);
    EXPECT_THAT(reason(3s), HasSubstr("it has no other address"));
}

TEST_F(WireGuardOnlyTest, AnAddressThatControlWithdrawsIsLeftUnlessThePeerIsHeardThere) {
    hear(0s, kExitFirst);
    introduce(1s, {kExitSecond, kExitSixth});
    EXPECT_EQ(book_.endpoint(kExit), kExitFirst);
    used(5s);
    introduce(6s, {kExitSecond, kExitSixth});
    EXPECT_EQ(book_.endpoint(kExit), kExitSecond);
    EXPECT_EQ(book_.candidates(at(6s), kExit).size(), 2u);
}

TEST_F(WireGuardOnlyTest, OnAnotherNetworkAllIsMeasuredAnew) {
    send(0s);
    book_.on_echo(at(10ms), kExit, kExitSecond, 10ms);
    EXPECT_EQ(used(1s), kExitSecond);
    book_.on_network_change(at(2s));
    EXPECT_EQ(send(3s).size(), 3u);
    EXPECT_THAT(reason(3s), Not(HasSubstr("echo there")));
}

TEST_F(WireGuardOnlyTest, AnEchoOfWhoIsGoneOrOfAnotherKindChangesNothing) {
    const NodeKey other{std::array<std::byte, 32>{std::byte{8}}};
    book_.on_echo(at(0s), other, kExitFirst, 1ms);
    book_.on_echo(at(0s), kExit, kExitElsewhere, 1ms);
    EXPECT_EQ(book_.candidates(at(0s), kExit).size(), 3u);
    book_.set_peers(at(0s), {{other, DiscoKey{std::array<std::byte, 32>{std::byte{1}}}, {kExitFirst, kExitSecond}}});
    book_.on_echo(at(0s), other, kExitSecond, 1ms);
    EXPECT_FALSE(book_.candidates(at(0s), other).front().ponged_ago);
}

} // namespace
} // namespace tailrace
