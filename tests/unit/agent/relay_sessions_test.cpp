// Pairs that a node relays for: who gets one, who shakes hands, whose packets go on, and when it ends.
#include "agent/peer_relay/relay_sessions.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

TimePoint after(Duration since_start) {
    return TimePoint{} + 1h + since_start;
}

RelayedPlace place(const char* client, const char* ours = "203.0.113.5") {
    return {*Endpoint::parse(client), *IpAddress::parse(ours)};
}

const RelayedPlace kAnna = place("198.51.100.1:41641"), kBert = place("198.51.100.2:1024"),
                   kElsewhere = place("198.51.100.3:41641");

/// A relay, and two clients that seal what they say.
class RelaySessionsTest : public testing::Test {
protected:
    struct Client {
        DiscoPrivateKey key = DiscoPrivateKey::generate();
        DiscoKey disco = key.public_key();
    };
    DiscoAllocateRequest request(const DiscoKey& one, const DiscoKey& other) {
        return {{std::min(one, other), std::max(one, other)}, 1};
    }
    std::uint32_t allocate(Duration when) {
        auto got = sessions_.allocate(after(when), request(anna_.disco, bert_.disco), anna_.disco);
        EXPECT_TRUE(got);
        return got ? got->vni : 0;
    }
    DiscoRelayHandshake bind(std::uint32_t vni, const DiscoKey& remote, std::uint32_t generation = 7) {
        DiscoRelayHandshake message;
        message.vni = vni;
        message.generation = generation;
        message.remote = remote;
        return message;
    }
    std::optional<DiscoRelayHandshake> say(Duration when, const Client& client, const DiscoRelayHandshake& message,
                                           const RelayedPlace& from) {
        auto box = DiscoBox::between(client.key, server_);
        Bytes reply = sessions_.on_control(after(when), message.vni, box->seal(message), from);
        if (reply.empty()) return std::nullopt;
        auto opened = box->open(reply);
        EXPECT_TRUE(opened);
        return std::get<DiscoRelayHandshake>(*opened);
    }
    /// The whole handshake.
    void shake(Duration when, const Client& client, const DiscoKey& remote, std::uint32_t vni,
               const RelayedPlace& from) {
        auto reply = say(when, client, bind(vni, remote), from);
        ASSERT_TRUE(reply);
        reply->step = DiscoRelayHandshake::Step::Answer;
        EXPECT_FALSE(say(when, client, *reply, from)) << "an answer is not answered";
    }
    std::uint32_t bound(Duration when) {
        std::uint32_t vni = allocate(when);
        shake(when, anna_, bert_.disco, vni, kAnna);
        shake(when, bert_, anna_.disco, vni, kBert);
        return vni;
    }
    std::optional<RelayedPlace> goes(Duration when, std::uint32_t vni, const RelayedPlace& from) {
        return sessions_.on_data(after(when), vni, from, 2, 200);
    }

    Client anna_, bert_, carl_;
    DiscoPrivateKey server_key_ = DiscoPrivateKey::generate();
    DiscoKey server_ = server_key_.public_key();
    RelaySessions sessions_{server_key_};
};

TEST_F(RelaySessionsTest, PacketsGoOnOnceBothHaveShownWhereTheyAre) {
    std::uint32_t vni = allocate(0s);
    EXPECT_FALSE(goes(0s, vni, kAnna));
    shake(0s, anna_, bert_.disco, vni, kAnna);
    EXPECT_FALSE(goes(0s, vni, kAnna)) << "bert has not come yet";
    shake(0s, bert_, anna_.disco, vni, kBert);
    EXPECT_EQ(goes(0s, vni, kAnna), kBert);
    EXPECT_EQ(goes(0s, vni, kBert), kAnna);
    EXPECT_FALSE(goes(0s, vni, kElsewhere)) << "neither of the two is there";
    EXPECT_FALSE(goes(0s, vni + 1, kAnna));
    auto state = sessions_.states().at(0);
    EXPECT_EQ(state.clients[0].packets + state.clients[1].packets, 4u);
    EXPECT_EQ(state.clients[0].bytes, 200u);
}

TEST_F(RelaySessionsTest, APairHasOneSessionWhoeverAsks) {
    auto first = sessions_.allocate(after(0s), request(anna_.disco, bert_.disco), anna_.disco);
    auto again = sessions_.allocate(after(1s), request(anna_.disco, bert_.disco), bert_.disco);
    auto other = sessions_.allocate(after(1s), request(anna_.disco, carl_.disco), carl_.disco);
    ASSERT_TRUE(first && again && other);
    EXPECT_EQ(first, again);
    EXPECT_EQ(first->server, server_);
    EXPECT_NE(first->vni, other->vni);
    EXPECT_LT(first->lamport_id, other->lamport_id);
}

TEST_F(RelaySessionsTest, NobodyAsksForOthersForHimselfOrForTheRelay) {
    EXPECT_FALSE(sessions_.allocate(after(0s), request(anna_.disco, bert_.disco), carl_.disco));
    EXPECT_FALSE(sessions_.allocate(after(0s), request(anna_.disco, anna_.disco), anna_.disco));
    EXPECT_FALSE(sessions_.allocate(after(0s), request(anna_.disco, server_), anna_.disco));
    EXPECT_TRUE(sessions_.empty());
}

TEST_F(RelaySessionsTest, AHandshakeThatIsNotRightMeetsSilence) {
    std::uint32_t vni = allocate(0s);
    EXPECT_FALSE(say(0s, anna_, bind(vni, carl_.disco), kAnna)) << "another pair";
    EXPECT_FALSE(say(0s, anna_, bind(vni, bert_.disco, 0), kAnna)) << "no generation";
    EXPECT_FALSE(say(0s, carl_, bind(vni, bert_.disco), kAnna)) << "not one of the two";
    EXPECT_FALSE(say(0s, anna_, bind(vni + 1, bert_.disco), kAnna)) << "no such session";
    auto message = bind(vni, bert_.disco);
    Bytes sealed = DiscoBox::between(anna_.key, server_)->seal(message);
    EXPECT_TRUE(sessions_.on_control(after(0s), vni + 1, sealed, kAnna).empty());
    sealed.back() ^= std::byte{1};
    EXPECT_TRUE(sessions_.on_control(after(0s), vni, sealed, kAnna).empty()) << "forged";
    for (std::size_t size = 0; size < sealed.size(); ++size)
        EXPECT_TRUE(sessions_.on_control(after(0s), vni, BytesView{sealed}.first(size), kAnna).empty()) << size;
}

TEST_F(RelaySessionsTest, AnAnswerCountsFromWhereTheChallengeWentAndForItsGeneration) {
    std::uint32_t vni = allocate(0s);
    shake(0s, bert_, anna_.disco, vni, kBert);
    auto challenge = say(0s, anna_, bind(vni, bert_.disco, 7), kAnna);
    ASSERT_TRUE(challenge);
    auto answer = *challenge;
    answer.step = DiscoRelayHandshake::Step::Answer;
    say(0s, anna_, answer, kElsewhere);
    EXPECT_FALSE(goes(0s, vni, kElsewhere)) << "the challenge did not go there";
    auto forged = answer;
    forged.challenge[5] ^= std::byte{1};
    say(0s, anna_, forged, kAnna);
    EXPECT_FALSE(goes(0s, vni, kAnna));
    EXPECT_TRUE(say(0s, anna_, bind(vni, bert_.disco, 8), kAnna)); // begins anew
    say(0s, anna_, answer, kAnna);
    EXPECT_FALSE(goes(0s, vni, kAnna)) << "of the handshake before";
}

TEST_F(RelaySessionsTest, AChallengeIsGoodForTwoPeriodsOfTheSecretAtMost) {
    std::uint32_t vni = bound(0s);
    auto answer = say(0s, anna_, bind(vni, bert_.disco), kElsewhere);
    ASSERT_TRUE(answer);
    answer->step = DiscoRelayHandshake::Step::Answer;
    Duration first = 2 * RelaySessions::kSecretLifetime - 1s;
    say(first, anna_, *answer, kElsewhere);
    EXPECT_TRUE(goes(first, vni, kElsewhere));

    answer = say(first, anna_, bind(vni, bert_.disco), kAnna);
    ASSERT_TRUE(answer);
    answer->step = DiscoRelayHandshake::Step::Answer;
    Duration second = first + 2 * RelaySessions::kSecretLifetime;
    say(second, anna_, *answer, kAnna);
    EXPECT_FALSE(goes(second, vni, kAnna));
}

TEST_F(RelaySessionsTest, AClientMayMove) {
    std::uint32_t vni = bound(0s);
    shake(10s, anna_, bert_.disco, vni, kElsewhere);
    EXPECT_EQ(goes(10s, vni, kBert), kElsewhere);
    EXPECT_FALSE(goes(10s, vni, kAnna));
}

TEST_F(RelaySessionsTest, WhatIsNotBoundOrLongSilentIsForgotten) {
    std::uint32_t vni = allocate(0s);
    shake(0s, anna_, bert_.disco, vni, kAnna);
    sessions_.expire(after(30s));
    EXPECT_FALSE(sessions_.empty());
    sessions_.expire(after(30s + 1ms));
    EXPECT_TRUE(sessions_.empty());
    vni = bound(1min);
    EXPECT_TRUE(goes(5min, vni, kAnna));
    EXPECT_TRUE(goes(6min, vni, kBert));
    sessions_.expire(after(10min));
    EXPECT_TRUE(goes(10min, vni, kBert));
    sessions_.expire(after(10min + 1ms));
    EXPECT_TRUE(sessions_.empty()) << "anna has been silent for five minutes";
    EXPECT_NE(allocate(11min), vni);
}

TEST_F(RelaySessionsTest, OneClientCannotFillIt) {
    for (std::size_t i = 0; i < RelaySessions::kMostUnbound; ++i)
        ASSERT_TRUE(
            sessions_.allocate(after(0s), request(carl_.disco, DiscoPrivateKey::generate().public_key()), carl_.disco));
    EXPECT_FALSE(sessions_.allocate(after(1s), request(carl_.disco, anna_.disco), carl_.disco));
    EXPECT_TRUE(sessions_.allocate(after(1s), request(carl_.disco, anna_.disco), anna_.disco));
    EXPECT_TRUE(sessions_.allocate(after(31s), request(carl_.disco, bert_.disco), carl_.disco)) << "they were not used";
}

} // namespace
} // namespace tailrace
