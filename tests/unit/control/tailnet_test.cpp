#include "tests/unit/control/tailnet_fixture.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

struct TailnetTest : TailnetFixture {
    Machine laptop;
    NodeId id = 0;
    void SetUp() override {
        TailnetFixture::SetUp();
        join(laptop, reusable_key());
        id = node_of(laptop)->id();
        (void)tailnet.take_changes();
    }
    const Node& node() { return *tailnet.node(id); }
};

TEST_F(TailnetTest, IsOfflineOnlyAfterTheGrace) {
    tailnet.on_stream_begin(at(0s), id, laptop.map_request());
    EXPECT_TRUE(node().report.online);
    tailnet.on_stream_end(at(5s), id);
    tailnet.on_timer(at(14s));
    EXPECT_TRUE(node().report.online);
    EXPECT_EQ(tailnet.next_timer(), at(15s));
    tailnet.on_timer(at(15s));
    EXPECT_FALSE(node().report.online);
    EXPECT_EQ(node().report.last_seen, at(15s));
}

TEST_F(TailnetTest, ANewStreamWithinTheGraceIsNoFlap) {
    tailnet.on_stream_begin(at(0s), id, laptop.map_request());
    tailnet.on_stream_end(at(5s), id);
    tailnet.on_stream_begin(at(9s), id, laptop.map_request());
    tailnet.on_timer(at(60s));
    EXPECT_TRUE(node().report.online);
}

TEST_F(TailnetTest, AfterARestartNodesThatWereOnlineStaySoForAWhile) {
    tailnet.on_stream_begin(at(0s), id, laptop.map_request());
    StoredTailnet stored;
    stored.nodes.push_back(node());
    TailnetState again{settings(), stored, owners, at(100s)};
    EXPECT_TRUE(again.node(id)->report.online);
    again.on_timer(at(120s));
    EXPECT_TRUE(again.node(id)->report.online);
    again.on_timer(at(141s));
    EXPECT_FALSE(again.node(id)->report.online);
}

TEST_F(TailnetTest, ALiteUpdateIsAReportAndNeedsNoCommit) {
    auto request = laptop.map_request();
    request.disco_key = DiscoPrivateKey::generate().public_key();
    request.endpoints = {*Endpoint::parse("203.0.113.7:41641")};
    tailnet.on_report(at(1s), id, request);
    auto changes = tailnet.take_changes();
    EXPECT_FALSE(changes.needs_commit());
    ASSERT_EQ(changes.reports.size(), 1u);
    EXPECT_EQ(node().report.disco_key, request.disco_key);
    EXPECT_EQ(node().report.cap_version, 131);
    tailnet.on_report(at(2s), id, request); // the same again is no news
    EXPECT_TRUE(tailnet.take_changes().events.empty());
}

TEST_F(TailnetTest, ABareStreamRequestChangesNothingThatWasReported) {
    auto request = laptop.map_request();
    request.disco_key = DiscoPrivateKey::generate().public_key();
    request.endpoints = {*Endpoint::parse("203.0.113.7:41641")};
    request.hostinfo.value.hostname = "laptop";
    request.hostinfo.value.net_info.emplace().preferred_derp = 900;
    tailnet.on_report(at(1s), id, request);
    tailnet.on_stream_begin(at(2s), id, laptop.map_request());
    EXPECT_EQ(node().report.disco_key, request.disco_key);
    EXPECT_EQ(node().report.endpoints, request.endpoints);
    EXPECT_EQ(node().report.home_derp, 900);
}

TEST_F(TailnetTest, AnAbsentNetInfoKeepsTheHomeRegion) {
    auto request = laptop.map_request();
    request.hostinfo.value.hostname = "laptop";
    request.hostinfo.value.net_info.emplace().preferred_derp = 900;
    tailnet.on_report(at(1s), id, request);
    request.hostinfo.value.net_info.reset();
    request.hostinfo.value.os = "linux";
    tailnet.on_report(at(2s), id, request);
    EXPECT_EQ(node().report.home_derp, 900);
    EXPECT_THAT(node().report.hostinfo, testing::HasSubstr("PreferredDERP"));
    request.hostinfo.value.net_info.emplace().preferred_derp = 0;
    tailnet.on_report(at(3s), id, request);
    EXPECT_EQ(node().report.home_derp, 900);
}

TEST_F(TailnetTest, AHostNameChangesTheNameUnlessAnAdministratorChoseIt) {
    auto request = laptop.map_request();
    request.hostinfo.value.hostname = "desk";
    tailnet.on_report(at(1s), id, request);
    EXPECT_EQ(node().record.given_name, "desk");
    EXPECT_TRUE(tailnet.take_changes().needs_commit());
    ASSERT_TRUE(tailnet.rename_node(id, "Chosen"));
    request.hostinfo.value.hostname = "other";
    tailnet.on_report(at(2s), id, request);
    EXPECT_EQ(node().record.given_name, "chosen");
    EXPECT_FALSE(tailnet.rename_node(id, "not a label"));
}

TEST_F(TailnetTest, AnEphemeralNodeGoesAfterSomeTimeOffline) {
    Machine worker;
    TailnetState::KeyWish wish;
    wish.ephemeral = true;
    join(worker, make_key(wish));
    NodeId worker_id = node_of(worker)->id();
    tailnet.on_stream_begin(at(1s), worker_id, worker.map_request());
    tailnet.on_timer(at(2h));
    EXPECT_TRUE(tailnet.node(worker_id));
    tailnet.on_stream_end(at(2h), worker_id);
    tailnet.on_timer(at(2h + 29min));
    EXPECT_TRUE(tailnet.node(worker_id));
    tailnet.on_timer(at(2h + 30min));
    EXPECT_FALSE(tailnet.node(worker_id));
    EXPECT_TRUE(tailnet.node(id));
}

TEST_F(TailnetTest, TellsWhenAKeyExpires) {
    ASSERT_TRUE(tailnet.expire_node(at(0s), id, at(100s)));
    (void)tailnet.take_changes();
    EXPECT_EQ(tailnet.next_timer(), at(100s));
    tailnet.on_timer(at(100s));
    auto changes = tailnet.take_changes();
    ASSERT_EQ(changes.events.size(), 1u);
    EXPECT_NE(changes.events[0].before, changes.events[0].after); // a fresh copy, to be serialised again
    EXPECT_FALSE(tailnet.next_timer());
}

TEST_F(TailnetTest, FindsANodeByAnythingThatNamesIt) {
    for (std::string what : {"1", "laptop", "Laptop.tail.lab.", "100.64.0.1", "fd7a:115c:a1e0::1"}) {
        auto found = tailnet.find_node(what);
        ASSERT_TRUE(found) << what;
        EXPECT_EQ((*found)->id(), id);
    }
    EXPECT_FALSE(tailnet.find_node("nobody"));
    EXPECT_FALSE(tailnet.find_node(""));
}

TEST_F(TailnetTest, AUserWithNodesCannotBeDeleted) {
    EXPECT_FALSE(tailnet.delete_user("alice"));
    EXPECT_TRUE(tailnet.delete_user("bob"));
    ASSERT_TRUE(tailnet.delete_node(id));
    EXPECT_TRUE(tailnet.delete_user("alice"));
    EXPECT_TRUE(tailnet.auth_keys().empty());
}

TEST_F(TailnetTest, ASnapshotDoesNotMove) {
    auto before = tailnet.snapshot();
    EXPECT_EQ(before, tailnet.snapshot());
    ASSERT_TRUE(tailnet.delete_node(id));
    EXPECT_EQ(before->nodes.size(), 1u);
    EXPECT_TRUE(tailnet.snapshot()->nodes.empty());
}

} // namespace
} // namespace tailrace
