#include "agent/path/path_book.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::IsEmpty;
using testing::Not;
using testing::VariantWith;

TimePoint at(Duration since_start) {
    return TimePoint{} + 1h + since_start;
}

const NodeKey kAlice{std::array<std::byte, 32>{std::byte{1}}};
const DiscoKey kAliceDisco{std::array<std::byte, 32>{std::byte{2}}};
const Endpoint kPublic = *Endpoint::parse("203.0.113.9:41641");
const Endpoint kLan = *Endpoint::parse("192.168.1.9:41641");

class PathBookTest : public testing::Test {
protected:
    PathBookTest()
        : book_([this] {
              DiscoTxId id{};
              id[0] = static_cast<std::byte>(++last_id_);
              return id;
          }) {}

    void add_alice(std::vector<Endpoint> endpoints = {kPublic, kLan}) {
        book_.set_peers(at(0s), {{kAlice, kAliceDisco, std::move(endpoints)}});
    }
    std::vector<Endpoint> pinged() {
        std::vector<Endpoint> out;
        seen_ = book_.take_actions();
        for (const PathAction& action : seen_)
            if (const auto* ping = std::get_if<SendPing>(&action)) {
                out.push_back(ping->to);
                ids_[ping->to] = ping->id;
            }
        return out;
    }
    std::optional<Endpoint> used() const {
        std::optional<Endpoint> out;
        for (const PathAction& action : seen_)
            if (const auto* use = std::get_if<UseEndpoint>(&action)) out = use->endpoint;
        return out;
    }
    void pong(Duration when, const Endpoint& from) { book_.on_pong(at(when), kAliceDisco, ids_[from], from); }

    int last_id_ = 0;
    PathBook book_;
    std::vector<PathAction> seen_;
    std::map<Endpoint, DiscoTxId> ids_;
};

TEST_F(PathBookTest, PingsEveryCandidateOfANewPeer) {
    add_alice();
    EXPECT_THAT(pinged(), testing::UnorderedElementsAre(kPublic, kLan));
}

TEST_F(PathBookTest, StartsWithThePublicAddressUnlessTheLanIsOurs) {
    add_alice();
    EXPECT_EQ(book_.endpoint(kAlice), kPublic);
    PathBook near([] { return DiscoTxId{}; });
    near.set_local_networks({*IpPrefix::parse("192.168.1.0/24")});
    near.set_peers(at(0s), {{kAlice, kAliceDisco, {kPublic, kLan}}});
    EXPECT_EQ(near.endpoint(kAlice), kLan);
}

TEST_F(PathBookTest, UsesWhatAnswersAndPrefersTheLan) {
    add_alice();
    pinged();
    pong(10ms, kPublic);
    pong(11ms, kLan);
    pinged();
    EXPECT_EQ(used(), kLan);
    EXPECT_TRUE(book_.state(at(12ms), kAlice).validated);
}

TEST_F(PathBookTest, AnswersPeersAndNobodyElse) {
    add_alice();
    pinged();
    EXPECT_FALSE(book_.on_ping(at(1s), DiscoKey{std::array<std::byte, 32>{std::byte{9}}}, {}, DiscoTxId{}, kLan));
    EXPECT_THAT(book_.take_actions(), IsEmpty());
    Endpoint natted = *Endpoint::parse("198.51.100.7:1234");
    EXPECT_TRUE(book_.on_ping(at(1s), kAliceDisco, kAlice, DiscoTxId{}, natted));
    EXPECT_THAT(pinged(), Contains(natted)); // its address is worth a try
    EXPECT_THAT(seen_, Contains(VariantWith<SendPong>(testing::Field(&SendPong::to, natted))));
}

TEST_F(PathBookTest, IgnoresPongsThatNobodyAskedFor) {
    add_alice({kLan});
    pinged();
    book_.on_pong(at(1s), kAliceDisco, DiscoTxId{std::byte{77}}, kPublic);
    EXPECT_FALSE(book_.state(at(1s), kAlice).validated);
}

TEST_F(PathBookTest, KeepsAnActivePathWarmAndAnIdleOneQuiet) {
    add_alice({kPublic});
    pinged();
    pong(10ms, kPublic);
    book_.on_timer(at(4s));
    EXPECT_THAT(pinged(), IsEmpty()); // nobody talks
    book_.on_traffic(at(4s), kAlice);
    EXPECT_THAT(pinged(), Contains(kPublic));
    pong(4010ms, kPublic);
    book_.on_timer(at(7s));
    EXPECT_THAT(pinged(), Contains(kPublic));
}

TEST_F(PathBookTest, SilentItPingsNoPathThatDataKeeps) {
    book_.set_silent(at(0s), true);
    add_alice({kPublic});
    pinged();
    pong(10ms, kPublic);
    pinged();
    book_.on_traffic(at(1s), kAlice);
    for (Duration second = 1s; second < 30s; second += 1s) {
        book_.on_data(at(second), at(second + 1s), kAlice, kPublic);
        book_.on_timer(at(second + 1s));
        EXPECT_TRUE(book_.state(at(second + 1s), kAlice).trusted);
        EXPECT_THAT(pinged(), IsEmpty());
    }
    book_.on_timer(at(29s + PathBook::kTrustFor)); // nothing came any more
    EXPECT_FALSE(book_.state(at(29s + PathBook::kTrustFor), kAlice).trusted);
    EXPECT_THAT(pinged(), Contains(kPublic));
}

TEST_F(PathBookTest, SilenceEndsWhenControlWantsItSo) {
    book_.set_silent(at(0s), true);
    add_alice({kPublic});
    pinged();
    pong(10ms, kPublic);
    book_.on_traffic(at(4s), kAlice);
    EXPECT_THAT(pinged(), IsEmpty());
    book_.set_silent(at(4s), false);
    EXPECT_THAT(pinged(), Contains(kPublic));
}

TEST_F(PathBookTest, NewAddressesLeaveWhatWorksAndLookForTheOthersAgain) {
    const NodeKey bob{std::array<std::byte, 32>{std::byte{3}}};
    const DiscoKey bobs{std::array<std::byte, 32>{std::byte{4}}};
    const Endpoint there = *Endpoint::parse("198.51.100.7:41641");
    book_.set_peers(at(0s), {{kAlice, kAliceDisco, {kPublic}}, {bob, bobs, {there}}});
    pinged();
    pong(10ms, kPublic);
    book_.on_traffic(at(1s), kAlice);
    book_.on_traffic(at(1s), bob);
    pinged();
    book_.on_new_addresses(at(2s));
    EXPECT_TRUE(book_.state(at(2s), kAlice).trusted);
    EXPECT_THAT(pinged(), testing::ElementsAre(there)) << "though it was pinged a moment ago";
    book_.on_network_change(at(3s));
    EXPECT_FALSE(book_.state(at(3s), kAlice).trusted);
    EXPECT_THAT(pinged(), testing::UnorderedElementsAre(kPublic, there));
}

TEST_F(PathBookTest, LooksElsewhereWhenThePongsStop) {
    add_alice();
    pinged();
    pong(10ms, kPublic);
    book_.on_traffic(at(1s), kAlice);
    pinged();
    book_.on_timer(at(8s));
    auto again = pinged();
    EXPECT_THAT(again, Contains(kLan));
    pong(8100ms, kLan);
    pinged();
    EXPECT_EQ(used(), kLan);
}

TEST_F(PathBookTest, FollowsTheKernelToAnUntestedAddressOnlyWhileNothingBetterIsTrusted) {
    add_alice({kPublic});
    pinged();
    Endpoint odd = *Endpoint::parse("198.51.100.7:9");
    book_.on_kernel_endpoint(at(1s), kAlice, odd);
    EXPECT_EQ(book_.endpoint(kAlice), odd);
    pinged();
    pong(1010ms, odd);
    book_.on_kernel_endpoint(at(2s), kAlice, *Endpoint::parse("198.51.100.8:9"));
    pinged();
    EXPECT_EQ(used(), odd); // put back
}

TEST_F(PathBookTest, KeepsAnAdoptedEndpointWhenTheNetmapComes) {
    add_alice({kPublic});
    book_.on_kernel_endpoint(at(0s), kAlice, kLan);
    book_.take_actions();
    book_.set_peers(at(1s), {{kAlice, kAliceDisco, {kPublic, *Endpoint::parse("10.0.0.1:1")}}});
    pinged();
    EXPECT_EQ(book_.endpoint(kAlice), kLan);
}

class LeftPathTest : public PathBookTest {
protected:
    LeftPathTest() {
        book_.set_relaying(at(0s), true);
        book_.set_peers(at(0s), {alice_});
        book_.on_traffic(at(0s), kAlice);
        pinged();
        pong(10ms, kPublic);
        pinged();
        EXPECT_EQ(used(), kPublic);
    }
    const Endpoint kRelayed = *Endpoint::parse("127.64.0.1:40000");
    const PathBook::Peer alice_{kAlice, kAliceDisco, {kPublic, kLan}, 900, kRelayed};
};

TEST_F(LeftPathTest, GoesToTheRelayAtOnceAndTellsThePeerByItsSilence) {
    book_.leave(at(1s), kPublic, 60s);
    EXPECT_EQ((pinged(), used()), kRelayed);
    EXPECT_TRUE(book_.is_contested(at(2s))) << "what the peer still sends directly drags WireGuard back";
    EXPECT_TRUE(book_.on_ping(at(2s), kAliceDisco, kAlice, DiscoTxId{std::byte{9}}, kPublic));
    EXPECT_THAT(pinged(), testing::ElementsAre(relay_endpoint(900))) << "a sign of life, else the peer would go on";
    EXPECT_THAT(seen_, Not(Contains(VariantWith<SendPong>(testing::_))));
    book_.on_kernel_endpoint(at(3s), kAlice, kPublic);
    EXPECT_EQ((pinged(), used()), kRelayed);
    for (Duration now = 4s; now < 60s; now += 1s) {
        book_.on_traffic(at(now), kAlice);
        book_.on_timer(at(now));
        EXPECT_THAT(pinged(), Not(Contains(kPublic)));
    }
}

TEST_F(LeftPathTest, APeerThatLeavesIsBelievedThoughItsWireGuardAnswers) {
    for (bool leaves : {false, true}) {
        TimePoint start = at(leaves ? 200s : 100s);
        book_.on_traffic(start, kAlice);
        book_.on_timer(start);
        pinged();
        book_.on_pong(start + 10ms, kAliceDisco, ids_[kPublic], kPublic);
        for (Duration later = 1s; later < 9s; later += 1s) {
            book_.on_traffic(start + later, kAlice);
            if (later < 8s) book_.on_data(start + later - 1s, start + later, kAlice, kPublic);
            book_.on_timer(start + later);
            if (leaves && later % 3s == 0s) // so it answers heartbeats
                book_.on_ping(start + later + 50ms, kAliceDisco, kAlice, DiscoTxId{std::byte{9}}, relay_endpoint(900));
        }
        EXPECT_EQ(book_.state(start + 9s, kAlice).trusted, !leaves);
    }
}

TEST_F(LeftPathTest, AnEarlierAgentsPathStaysLeftThoughNobodyNamesIt) {
    const Endpoint odd = *Endpoint::parse("198.51.100.8:9");
    PathBook next([] { return DiscoTxId{}; });
    next.set_relaying(at(0s), true);
    next.set_peers(at(0s), {alice_});
    next.on_kernel_endpoint(at(0s), kAlice, odd);
    ASSERT_EQ(next.endpoint(kAlice), odd);
    next.leave(at(1s), odd, 60s);
    EXPECT_EQ(next.endpoint(kAlice), kRelayed);
    for (Duration now : {2s, 30s, 60s}) {
        next.set_peers(at(now), {alice_});
        next.on_kernel_endpoint(at(now), kAlice, odd); // WireGuard follows what the peer still sends
        EXPECT_EQ(next.endpoint(kAlice), kRelayed);
    }
}

TEST_F(LeftPathTest, OtherAddressesAreUsedAsEver) {
    book_.leave(at(1s), kPublic, 60s);
    book_.on_traffic(at(6s), kAlice);
    ASSERT_THAT(pinged(), Contains(kLan));
    pong(6010ms, kLan);
    EXPECT_EQ((pinged(), used()), kLan);
}

TEST_F(LeftPathTest, ForgivenOrAfterAWhileItIsTriedAgain) {
    for (bool forgiven : {true, false}) {
        TimePoint start = at(forgiven ? 100s : 300s);
        book_.leave(start, kPublic, 60s);
        if (forgiven) book_.forgive();
        TimePoint later = start + (forgiven ? 6s : 61s);
        book_.on_traffic(later, kAlice);
        book_.on_timer(later);
        EXPECT_THAT(pinged(), Contains(kPublic)) << forgiven;
    }
}

TEST_F(LeftPathTest, OnlyTheRelayIsUsedWhereControlWantsIt) {
    book_.set_only_relay(at(1s), true);
    EXPECT_EQ((pinged(), used()), kRelayed);
    EXPECT_FALSE(book_.direct_guess(kAlice));
    book_.on_ping(at(2s), kAliceDisco, kAlice, DiscoTxId{std::byte{9}}, *Endpoint::parse("198.51.100.7:1234"));
    EXPECT_THAT(pinged(), testing::ElementsAre(relay_endpoint(900)));
    book_.on_kernel_endpoint(at(2s), kAlice, kLan);
    book_.set_relaying(at(3s), false); // no reason to go elsewhere
    for (Duration now = 4s; now < 30s; now += 1s) {
        book_.on_traffic(at(now), kAlice);
        book_.on_timer(at(now));
        EXPECT_THAT(pinged(), IsEmpty());
        EXPECT_THAT(seen_, Not(Contains(VariantWith<SendPong>(testing::_))));
        EXPECT_EQ(book_.endpoint(kAlice), kRelayed);
    }
    book_.set_relaying(at(30s), true);
    book_.set_only_relay(at(30s), false);
    book_.on_traffic(at(36s), kAlice);
    EXPECT_THAT(pinged(), Contains(kPublic));
}

TEST_F(PathBookTest, BoundsTheCandidates) {
    add_alice({kPublic});
    for (std::uint16_t port = 1; port < 300; ++port)
        book_.on_ping(at(1s), kAliceDisco, {}, DiscoTxId{}, Endpoint{kLan.address, port});
    book_.take_actions();
    book_.on_network_change(at(60s));
    EXPECT_LE(pinged().size(), PathBook::kMaxCandidates);
}

TEST_F(PathBookTest, AFloodOfCallsMakesNoFloodOfPings) {
    add_alice();
    (void)pinged();
    std::vector<Endpoint> many;
    for (std::uint32_t i = 0; i < 100'000; ++i)
        many.push_back({IpAddress::v4(0xc6336400u + i), static_cast<std::uint16_t>(1 + i % 60000)});
    std::size_t sent = 0;
    for (auto when = 0ms; when < 10s; when += 10ms) {
        std::span<const Endpoint> some{many.data() + (when / 10ms) * 100, 100};
        book_.on_call_me_maybe(at(when), kAliceDisco, kAlice, {some.begin(), some.end()});
        sent += pinged().size();
    }
    EXPECT_LE(sent, static_cast<std::size_t>(PathBook::kPeerPingBurst + 10 * PathBook::kPeerPingsPerSecond));
    EXPECT_LE(book_.candidates(at(10s), kAlice).size(), PathBook::kMaxCandidates);
    // The same call many times: each address is asked once in five seconds.
    sent = 0;
    for (auto when = 60s; when < 64s; when += 1s) {
        book_.on_call_me_maybe(at(when), kAliceDisco, kAlice, {many.begin(), many.begin() + 50});
        sent += pinged().size();
    }
    EXPECT_LE(sent, 60u);
    EXPECT_GE(sent, 50u);
}

TEST_F(PathBookTest, APeerThatFloodsUsDoesNotStarveTheOthers) {
    const DiscoKey bob_disco{std::array<std::byte, 32>{std::byte{9}}};
    const NodeKey bob{std::array<std::byte, 32>{std::byte{9}}};
    book_.set_peers(at(0s), {{kAlice, kAliceDisco, {}, 0, {}}, {bob, bob_disco, {kPublic}, 0, {}}});
    (void)pinged();
    std::size_t bobs = 0, all = 0;
    for (auto when = 10s; when < 40s; when += 1s) {
        for (auto part = 0ms; part < 1s; part += 5ms) { // alice pings from everywhere
            const int number = static_cast<int>((when + part) / 1ms);
            const IpAddress from = IpAddress::v4(0xc6336400u + static_cast<std::uint32_t>(number));
            book_.on_ping(at(when + part), kAliceDisco, kAlice, DiscoTxId{std::byte(number), std::byte(number >> 8)},
                          Endpoint{from, 1000});
        }
        book_.on_traffic(at(when + 999ms), bob);
        book_.on_timer(at(when + 999ms));
        auto to = pinged();
        all += to.size();
        bobs += static_cast<std::size_t>(std::ranges::count(to, kPublic));
    }
    EXPECT_GE(bobs, 5u);
    EXPECT_LE(all - bobs, static_cast<std::size_t>(PathBook::kPeerPingBurst + 31 * PathBook::kPeerPingsPerSecond));
}

TEST_F(PathBookTest, AnswersAQuestionOnce) {
    add_alice({kPublic});
    pinged();
    std::uint64_t question = book_.ask(at(6s), kAlice);
    EXPECT_NE(question, 0u);
    pinged();
    pong(6020ms, kPublic);
    EXPECT_THAT(book_.take_actions(),
                Contains(VariantWith<PingAnswered>(testing::Field(&PingAnswered::question, question))));
    EXPECT_EQ(book_.ask(at(7s), NodeKey{}), 0u);
}

TEST_F(PathBookTest, AQuestionOfASizeIsAskedOfThePathThatWorks) {
    add_alice({kPublic, kLan});
    pinged();
    EXPECT_NE(book_.ask(at(1s), kAlice, 1000), 0u);
    auto sizes = [&] {
        std::map<Endpoint, int> out;
        for (const PathAction& action : seen_)
            if (const auto* ping = std::get_if<SendPing>(&action); ping != nullptr && ping->packet_bytes != 0)
                out[ping->to] = ping->packet_bytes;
        return out;
    };
    pinged();
    EXPECT_EQ(sizes(), (std::map<Endpoint, int>{{kPublic, 1028}, {kLan, 1028}})) << "none works yet";
    pong(1020ms, kPublic);
    book_.take_actions();
    EXPECT_NE(book_.ask(at(2s), kAlice, 1200), 0u);
    pinged();
    EXPECT_EQ(sizes(), (std::map<Endpoint, int>{{kPublic, 1228}}));
}

TEST(IsBetterPath, FollowsTheReferenceClient) {
    auto v6 = *Endpoint::parse("[2001:db8::1]:1"), v4 = *Endpoint::parse("198.51.100.1:1"),
         lan = *Endpoint::parse("10.0.0.1:1");
    EXPECT_FALSE(is_better_path(lan, 10ms, v4, 8ms)); // 20 and 20: stay
    EXPECT_TRUE(is_better_path(v6, 10ms, v4, 9500us));
    EXPECT_FALSE(is_better_path(v6, 30ms, lan, 20ms));
    auto other4 = *Endpoint::parse("198.51.100.2:1"), here = *Endpoint::parse("127.0.0.1:1"),
         link = *Endpoint::parse("169.254.0.1:1");
    EXPECT_FALSE(is_better_path(v4, 9900us, other4, 10ms)) << "a hundredth is not worth it";
    EXPECT_TRUE(is_better_path(v4, 9800us, other4, 10ms));
    EXPECT_FALSE(is_better_path(v4, 10ms, other4, 10ms));
    EXPECT_FALSE(is_better_path(v4, 1ms, v4, 10ms)) << "the same";
    EXPECT_TRUE(is_better_path(here, 19ms, v4, 10ms));  // 50 and 48
    EXPECT_TRUE(is_better_path(link, 14ms, v4, 10ms));  // 30 and 29
    EXPECT_FALSE(is_better_path(link, 15ms, v4, 10ms)); // 30 and 34
    EXPECT_TRUE(is_better_path(v4, 10ms, Endpoint{}, Duration{}));
    EXPECT_FALSE(is_better_path(Endpoint{}, Duration{}, v4, 10ms));
}

} // namespace
} // namespace tailrace
