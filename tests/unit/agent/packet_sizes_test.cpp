// How large packets to a peer may be, found out by pings of several sizes.
#include "agent/path/path_book.hpp"
#include "agent/path/udp_packet.hpp"
#include "tests/unit/agent/moments.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

const NodeKey kSized{std::array<std::byte, 32>{std::byte{1}}};
const DiscoKey kSizedDisco{std::array<std::byte, 32>{std::byte{2}}};
const Endpoint kSizedNear = *Endpoint::parse("192.168.1.9:41641"), kSizedFar = *Endpoint::parse("203.0.113.9:41641");
const Endpoint kSizedRelayed = *Endpoint::parse("127.64.0.1:40000");

class PacketSizesTest : public testing::Test {
protected:
    PacketSizesTest()
        : book_([this] {
              DiscoTxId id{};
              id[0] = static_cast<std::byte>(++last_id_);
              id[1] = static_cast<std::byte>(last_id_ >> 8);
              return id;
          }) {}
    void begin(Duration now, const std::vector<Endpoint>& endpoints) {
        book_.set_relaying(at(now), true);
        book_.set_peers(at(now), {{kSized, kSizedDisco, endpoints, 900, kSizedRelayed}});
        book_.on_traffic(at(now), kSized);
    }
    std::vector<SendPing> pings() {
        std::vector<SendPing> out;
        for (const PathAction& action : book_.take_actions())
            if (const auto* ping = std::get_if<SendPing>(&action)) out.push_back(*ping);
        return out;
    }
    static std::vector<int> sizes(const std::vector<SendPing>& pings, const Endpoint& to) {
        std::vector<int> out;
        for (const SendPing& ping : pings)
            if (ping.to == to) out.push_back(ping.packet_bytes);
        return out;
    }
    /// Those that fit arrive.
    void answer(Duration now, const std::vector<SendPing>& pings, int largest) {
        for (const SendPing& ping : pings)
            if (ping.packet_bytes <= largest) book_.on_pong(at(now), kSizedDisco, ping.id, ping.to);
    }
    int found(Duration now) { return book_.state(at(now), kSized).packet_bytes; }

    int last_id_ = 0;
    PathBook book_;
};

TEST_F(PacketSizesTest, PaddingFillsThePacket) { // the table of derp-disco-paths.md 3.6
    EXPECT_EQ(disco_ping_padding(1280, false), 1128u);
    EXPECT_EQ(disco_ping_padding(1360, false), 1208u);
    EXPECT_EQ(disco_ping_padding(1400, false), 1248u);
    EXPECT_EQ(disco_ping_padding(1500, false), 1348u);
    EXPECT_EQ(disco_ping_padding(8000, false), 7848u);
    EXPECT_EQ(disco_ping_padding(9000, false), 8848u);
    EXPECT_EQ(disco_ping_padding(1280, true), 1108u);
    EXPECT_EQ(disco_ping_padding(9000, true), 8828u);
    for (std::size_t bytes : {0, 28, 100, 151, 152}) EXPECT_EQ(disco_ping_padding(bytes, false), 0u);
    auto box = DiscoBox::between(DiscoPrivateKey::generate(), DiscoPrivateKey::generate().public_key());
    ASSERT_TRUE(box);
    for (bool v6 : {false, true}) {
        DiscoPing ping;
        ping.node_key = kSized;
        ping.padding = disco_ping_padding(1400, v6);
        const Endpoint from = *Endpoint::parse(v6 ? "[2001:db8::1]:1" : "192.0.2.1:1");
        EXPECT_EQ(build_udp_packet(from, from, box->seal(ping)).size(), 1400u);
    }
}

TEST_F(PacketSizesTest, APacketThatMustArriveWholeSaysSo) {
    const Endpoint from = *Endpoint::parse("192.0.2.1:1");
    EXPECT_EQ(build_udp_packet(from, from, as_bytes("x"))[6], std::byte{0});
    EXPECT_EQ(build_udp_packet(from, from, as_bytes("x"), Fragments::Never)[6], std::byte{0x40});
}

TEST_F(PacketSizesTest, AreTriedOnlyWhereThatIsWanted) {
    begin(0s, {kSizedFar});
    EXPECT_THAT(sizes(pings(), kSizedFar), ElementsAre(0));
    book_.set_probing_sizes(at(5s), true);
    book_.on_timer(at(5s));
    EXPECT_THAT(sizes(pings(), kSizedFar), ElementsAre(0, 1280, 1360, 1400, 1500, 8000, 9000));
    book_.set_probing_sizes(at(10s), false);
    book_.on_timer(at(10s));
    EXPECT_THAT(sizes(pings(), kSizedFar), ElementsAre(0));
}

TEST_F(PacketSizesTest, ThePongOfTheLargestThatArrivesProvesIt) {
    book_.set_probing_sizes(at(0s), true);
    begin(0s, {kSizedFar});
    auto sent = pings();
    EXPECT_EQ(found(1ms), 0);
    answer(10ms, sent, 1400);
    EXPECT_EQ(found(11ms), 1400);
    EXPECT_EQ(book_.candidates(at(11ms), kSized).front().packet_bytes, 1400);
    EXPECT_EQ(book_.endpoint(kSized), kSizedFar);
    book_.on_timer(at(5s + 1ms)); // those that were too large are given up, and the path is not
    EXPECT_TRUE(book_.state(at(5s + 1ms), kSized).trusted);
    EXPECT_EQ(found(5s + 1ms), 1400);
}

TEST_F(PacketSizesTest, ALaterAndSmallerPongTakesNothingBack) {
    book_.set_probing_sizes(at(0s), true);
    begin(0s, {kSizedFar});
    auto sent = pings();
    std::ranges::reverse(sent);
    answer(10ms, sent, 1500);
    EXPECT_EQ(found(11ms), 1500);
}

TEST_F(PacketSizesTest, HeartbeatsAreAsSmallAsEver) {
    book_.set_probing_sizes(at(0s), true);
    begin(0s, {kSizedFar});
    answer(1ms, pings(), 1500);
    for (Duration now = 3s + 1ms; now < 60s; now += 3s) {
        book_.on_traffic(at(now), kSized);
        book_.on_timer(at(now));
        auto beat = pings();
        EXPECT_THAT(sizes(beat, kSizedFar), ElementsAre(0)) << now.count();
        answer(now + 1ms, beat, 1500);
    }
    EXPECT_EQ(found(58s), 1500);
}

TEST_F(PacketSizesTest, APathThatWasLostProvesItsSizeAnew) {
    book_.set_probing_sizes(at(0s), true);
    begin(0s, {kSizedFar});
    answer(1ms, pings(), 1500);
    book_.on_traffic(at(20s), kSized);
    book_.on_timer(at(20s));
    answer(20s + 1ms, pings(), 1280);
    EXPECT_EQ(found(20s + 2ms), 1280);
}

TEST_F(PacketSizesTest, APathThatThePeerFoundIsTriedToo) {
    book_.set_probing_sizes(at(0s), true);
    begin(0s, {});
    (void)pings();
    book_.on_ping(at(1s), kSizedDisco, kSized, DiscoTxId{std::byte{0xff}}, kSizedFar);
    auto answers = pings();
    EXPECT_THAT(sizes(answers, kSizedFar), ElementsAre(0)) << "what others make us send stays small";
    answer(1s + 1ms, answers, 0);
    book_.on_timer(at(1s + 2ms));
    auto sent = pings();
    EXPECT_THAT(sizes(sent, kSizedFar), ElementsAre(0, 1280, 1360, 1400, 1500, 8000, 9000));
    answer(1s + 4ms, sent, 1500);
    EXPECT_EQ(found(1s + 5ms), 1500);
}

TEST_F(PacketSizesTest, OverTheRelayNothingIsTried) {
    book_.set_probing_sizes(at(0s), true);
    begin(0s, {kSizedFar});
    (void)pings();
    EXPECT_NE(book_.ask(at(1s), kSized), 0u);
    auto asked = pings();
    EXPECT_THAT(sizes(asked, relay_endpoint(900)), ElementsAre(0));
    EXPECT_EQ(sizes(asked, kSizedFar).size(), 7u) << "a person's ping finds out too";
}

TEST_F(PacketSizesTest, AFloodOfCandidatesStaysWithinThePeersBudget) {
    book_.set_probing_sizes(at(0s), true);
    std::vector<Endpoint> many;
    for (int i = 0; i < 100; ++i) many.push_back({IpAddress::v4(0xc6336401 + static_cast<std::uint32_t>(i)), 1});
    begin(0s, many);
    EXPECT_LE(pings().size(), static_cast<std::size_t>(PathBook::kPeerPingBurst));
    for (Duration now = 1s; now <= 20s; now += 1s) {
        book_.on_call_me_maybe(at(now), kSizedDisco, kSized, many);
        book_.on_timer(at(now));
        EXPECT_LE(pings().size(), static_cast<std::size_t>(2 * PathBook::kPeerPingsPerSecond)) << now.count();
    }
}

TEST_F(PacketSizesTest, OnASlowPathAllAddressesAreTriedAgainEachMinute) {
    book_.set_probing_sizes(at(0s), true);
    begin(0s, {kSizedNear, kSizedFar});
    auto first = pings();
    EXPECT_EQ(first.size(), 14u);
    answer(20ms, first, 1500);
    std::size_t large = 0;
    for (Duration now = 3s; now < 63s; now += 3s) {
        book_.on_traffic(at(now), kSized);
        book_.on_timer(at(now));
        auto sent = pings();
        for (const SendPing& ping : sent) large += ping.packet_bytes > 0;
        answer(now + 20ms, sent, 1500);
    }
    EXPECT_EQ(large, 6u) << "the other address's";
}

} // namespace
} // namespace tailrace
