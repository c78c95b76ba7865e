#include "agent/cli/commands.hpp"
#include "agent/path/disco_frame.hpp"
#include "agent/path/path_report.hpp"

#include <gmock/gmock.h>

using namespace tailrace;
using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

namespace {

const Endpoint kNear = *Endpoint::parse("192.0.2.7:41641"), kFar = *Endpoint::parse("203.0.113.7:41641");

std::vector<PathBook::CandidateState> two_that_answer() {
    PathBook::CandidateState near{kNear, true, false, false, false, 1s, std::nullopt, 1s, 2ms};
    PathBook::CandidateState far{kFar, false, true, true, false, 2s, 3s, 2s, 20ms};
    return {near, far};
}

TEST(PathReportTest, SaysWhereAnAddressWasLearntFrom) {
    auto candidates = two_that_answer();
    EXPECT_THAT(learnt_from(candidates[0]), ElementsAre("control"));
    EXPECT_THAT(learnt_from(candidates[1]), ElementsAre("their call", "their ping", "WireGuard"));
}

TEST(PathReportTest, SaysWhyThePathWasChosen) {
    PathBook::State state;
    EXPECT_THAT(path_reason(state, {}), HasSubstr("none"));
    state.relayed = true;
    EXPECT_THAT(path_reason(state, two_that_answer()), HasSubstr("nobody talks"));
    state.active = true;
    EXPECT_EQ(path_reason(state, {}), "relayed: no direct address is known");
    EXPECT_EQ(path_reason(state, two_that_answer()), "relayed: of 2 direct addresses that were pinged, none answers");
    PeerRelays::State via;
    via.route = RelayRoute{kFar, 7};
    via.round_trip = std::chrono::milliseconds{25};
    EXPECT_EQ(path_reason(state, two_that_answer(), via),
              "peer relay: 203.0.113.7:41641:vni:7 answered in 25.0 ms, and no direct address does");
    state.relayed = false;
    state.endpoint = kNear;
    EXPECT_THAT(path_reason(state, two_that_answer()), HasSubstr("without proof"));
    state.trusted = true;
    EXPECT_EQ(path_reason(state, two_that_answer()),
              "direct: it answered 1.0 s ago in 2.0 ms, the best of 2 addresses that answer");
    EXPECT_THAT(path_reason(state, {}), HasSubstr("the peer's packets come from there"));
}

TEST(PathReportTest, IsShownAsATableWithAStarAtThePathInForce) {
    PathBook::State state;
    state.endpoint = kNear;
    state.trusted = true;
    std::string json = "{\"Peers\":[" +
                       write_peer_paths(TimePoint{} + 1h, "bob.tail.lab.", NodeKey{}, state, two_that_answer()) + "]}";
    auto text = cli::paths_text(json);
    ASSERT_TRUE(text) << text.error().message();
    EXPECT_THAT(*text, HasSubstr("bob.tail.lab.  192.0.2.7:41641\n    direct: it answered 1.0 s ago in 2.0 ms"));
    EXPECT_THAT(*text, HasSubstr("  * 192.0.2.7:41641 "));
    EXPECT_THAT(*text, HasSubstr("    203.0.113.7:41641 "));
    EXPECT_THAT(*text, HasSubstr("their call, their ping, WireGuard 2.0s ago"));
    EXPECT_THAT(*text, Not(HasSubstr("peer relay")));
    EXPECT_FALSE(cli::paths_text("[]"));
    state.relayed = true;
    PeerRelays::State via;
    via.servers = 2;
    via.questions = 1;
    json = "{\"Peers\":[" + write_peer_paths(TimePoint{} + 1h, "bob.tail.lab.", NodeKey{}, state, {}, via) + "]}";
    EXPECT_THAT(*cli::paths_text(json),
                HasSubstr("    peer relay: none, of 2 relay servers 1 is asked now, 0 handshakes go on\n"));
}

TEST(PathReportTest, ShowsWhatWasProbedForWhereSomethingWas) {
    PathBook::State state;
    state.endpoint = kNear;
    state.trusted = true;
    auto candidates = two_that_answer();
    const TimePoint now = TimePoint{} + 1h;
    auto show = [&] {
        auto text =
            cli::paths_text("{\"Peers\":[" + write_peer_paths(now, "bob.", NodeKey{}, state, candidates) + "]}");
        return text ? *text : text.error().message();
    };
    EXPECT_THAT(show(), HasSubstr("LATENCY  \n"));
    EXPECT_THAT(show(), Not(HasSubstr("MTU")));
    EXPECT_THAT(show(), Not(HasSubstr("silence:")));
    candidates[0].packet_bytes = state.packet_bytes = 1400;
    EXPECT_THAT(show(), HasSubstr("LATENCY   MTU\n"));
    EXPECT_THAT(show(), HasSubstr("2.0ms     1400\n"));
    EXPECT_THAT(show(), HasSubstr("20.0ms    -\n"));
    EXPECT_THAT(write_peer_paths(now, "bob.", NodeKey{}, state, candidates), HasSubstr("\"PathMTU\":1400,"));
    state.lifetime = UdpLifetime::Result{kFar, 0, now - 5s};
    EXPECT_THAT(show(), HasSubstr("    silence: 203.0.113.7:41641 was lost within 10 s (5.0s ago)\n"));
    state.lifetime->outlived = 1;
    EXPECT_THAT(show(), HasSubstr("outlived 10 s of it, and was lost within 30 s (5.0s ago)\n"));
    state.lifetime->outlived = 3;
    EXPECT_THAT(show(), HasSubstr("outlived 60 s of it (5.0s ago)\n"));
}

TEST(DiscoFrameTest, IsALineForPeopleAndAnObjectForPrograms) {
    DiscoPing ping;
    ping.tx_id[0] = std::byte{0xab};
    std::string json =
        write_disco_frame({DiscoFrame::Direction::Out, kFar, NodeKey{}, ping}, WallTime::from_unix(1, 5000), "bob", 0);
    EXPECT_EQ(json, R"({"Time":"1970-01-01T00:00:01.000005Z","Direction":"out","Via":"203.0.113.7:41641","Peer":"bob",)"
                    R"("Type":"ping","TxID":"ab0000000000000000000000"})");
    EXPECT_EQ(*cli::disco_frame_text(json),
              "00:00:01.000005Z    > bob              ping          203.0.113.7:41641 tx ab0000000000000000000000\n");

    DiscoPong pong;
    pong.seen_from = relay_endpoint(900);
    auto text = cli::disco_frame_text(
        write_disco_frame({DiscoFrame::Direction::In, relay_endpoint(900), NodeKey{}, pong}, {}, "bob", 3));
    EXPECT_THAT(*text, HasSubstr("(3 frames were lost here)\n"));
    EXPECT_THAT(*text, HasSubstr("pong          relay 900 tx 000000000000000000000000 seen from relay 900\n"));

    DiscoCallMeMaybe call{{kNear, kFar}};
    text = cli::disco_frame_text(
        write_disco_frame({DiscoFrame::Direction::In, relay_endpoint(0), NodeKey{}, call}, {}, "bob", 0));
    EXPECT_THAT(*text, HasSubstr("call-me-maybe relay 192.0.2.7:41641, 203.0.113.7:41641\n"));
    DiscoPunch punch{DiscoPunch::Step::Ready, 7, kFar};
    json = write_disco_frame({DiscoFrame::Direction::In, relay_endpoint(900), NodeKey{}, punch}, {}, "bob", 0);
    EXPECT_THAT(json, HasSubstr(R"("Type":"punch","Step":"ready","Run":7,"Outside":"203.0.113.7:41641")"));
    EXPECT_THAT(*cli::disco_frame_text(json), HasSubstr("punch         relay 900 ready\n"));
    DiscoRelayHandshake handshake;
    handshake.step = DiscoRelayHandshake::Step::Challenge;
    json = write_disco_frame({DiscoFrame::Direction::In, kFar, NodeKey{}, handshake, 7}, {}, "bob", 0);
    EXPECT_THAT(json, HasSubstr(R"("Via":"203.0.113.7:41641:vni:7","Peer":"bob","Type":"relay-challenge")"));
    DiscoCallMeMaybeVia meet;
    meet.endpoint.vni = 9;
    meet.endpoint.addresses = {kNear, kFar};
    json = write_disco_frame({DiscoFrame::Direction::In, relay_endpoint(900), NodeKey{}, meet}, {}, "bob", 0);
    EXPECT_THAT(json, HasSubstr(R"("Type":"call-me-maybe-via","VNI":9,"Endpoints":[)"));
    EXPECT_THAT(*cli::disco_frame_text(json),
                HasSubstr("call-me-maybe-via relay 900 192.0.2.7:41641, 203.0.113.7:41641\n"));
    EXPECT_FALSE(cli::disco_frame_text("7"));
}

} // namespace
