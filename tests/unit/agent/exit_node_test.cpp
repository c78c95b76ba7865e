#include "agent/cli/commands.hpp"
#include "agent/cli/exit_node.hpp"
#include "agent/exit_node/choice.hpp"
#include "agent/exit_node/silence_watch.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using testing::HasSubstr;
using testing::Not;

using namespace std::chrono_literals;

class SilenceWatchTest : public testing::Test {
protected:
    bool look(Duration at, std::uint64_t sent, std::uint64_t received, const NodeKey& peer = kPeer) {
        return watch_.look(TimePoint{} + 1h + at, peer, sent, received);
    }
    static inline const NodeKey kPeer{std::array<std::byte, 32>{std::byte{1}}};
    SilenceWatch watch_;
};

TEST_F(SilenceWatchTest, WhoAnswersNothingForLongIsSilentUntilItIsHeard) {
    EXPECT_FALSE(look(0s, 100, 100));
    EXPECT_FALSE(look(1s, 200, 100));
    EXPECT_FALSE(look(20s, 300, 100));
    EXPECT_TRUE(look(21s, 300, 100));
    EXPECT_TRUE(look(60s, 900, 100));
    EXPECT_FALSE(look(61s, 900, 132));
    EXPECT_FALSE(look(90s, 1000, 132)) << "only now something was sent";
    EXPECT_TRUE(look(110s, 1000, 132));
}

TEST_F(SilenceWatchTest, WhoIsSentNothingOwesNothing) {
    EXPECT_FALSE(look(0s, 100, 100));
    EXPECT_FALSE(look(1h, 100, 100));
    EXPECT_FALSE(look(1h + 1s, 132, 100)) << "a keep-alive of ours, for data that came";
    EXPECT_FALSE(look(2h, 132, 100));
    EXPECT_FALSE(look(2h + 1s, 280, 100)) << "and a handshake that begins";
    EXPECT_TRUE(look(2h + 21s, 280, 100));
}

TEST_F(SilenceWatchTest, ADeviceThatCountsAnewHasSentNothing) {
    EXPECT_FALSE(look(0s, 148, 0));
    EXPECT_FALSE(look(1s, 0, 0));
    EXPECT_FALSE(look(30s, 0, 0));
}

TEST_F(SilenceWatchTest, AnswersOfOneSayNothingOfAnother) {
    const NodeKey other{std::array<std::byte, 32>{std::byte{2}}};
    look(0s, 100, 100);
    look(1s, 200, 100);
    EXPECT_FALSE(look(30s, 900, 7, other));
    EXPECT_FALSE(look(31s, 950, 7, other));
    EXPECT_TRUE(look(51s, 999, 7, other));
}

wire::Node exit_node(wire::NodeId id, int region) {
    wire::Node node;
    node.id = id;
    node.stable_id = "n" + std::to_string(id);
    node.name = node.stable_id + ".tail.lab.";
    node.addresses = {IpPrefix::single(IpAddress::v4(0x64400000u + static_cast<std::uint32_t>(id)))};
    node.allowed_ips = {node.addresses[0], *IpPrefix::parse("0.0.0.0/0"), *IpPrefix::parse("::/0")};
    node.online = true;
    node.home_derp = region;
    node.cap_map["suggest-exit-node"];
    return node;
}

class ExitNodes : public testing::Test {
protected:
    ExitNodes() {
        relays_.regions.emplace();
        for (int region : {1, 2}) (*relays_.regions)[region].emplace().region_id = region;
    }
    ExitNodeQuestion question(int home = 1) {
        ExitNodeQuestion question;
        for (const wire::Node& node : nodes_) question.peers.push_back(&node);
        question.relays = &relays_;
        question.home_region = home;
        question.region_latency = {{1, std::chrono::milliseconds{5}}, {2, std::chrono::milliseconds{50}}};
        return question;
    }
    std::string suggested(const ExitNodeQuestion& asked) {
        auto node = suggest_exit_node(asked);
        if (!node) return node.error().message();
        return *node == nullptr ? "" : (*node)->stable_id;
    }
    wire::DerpMap relays_;
    std::vector<wire::Node> nodes_ = {exit_node(1, 2), exit_node(2, 1), exit_node(3, 1)};
};

TEST_F(ExitNodes, SuggestTheNearestRegion) {
    EXPECT_EQ(suggested(question()), "n2");
    auto asked = question();
    asked.spread = 1;
    EXPECT_EQ(suggested(asked), "n3");
    asked.previous = "n2";
    EXPECT_EQ(suggested(asked), "n2");
    asked.region_latency = {{2, std::chrono::milliseconds{1}}};
    EXPECT_EQ(suggested(asked), "n1");
}

TEST_F(ExitNodes, SuggestNobodyWhoIsAwayOrOffersHalf) {
    nodes_[0].online = false;
    nodes_[1].allowed_ips->pop_back(); // no ::/0
    nodes_[2].cap_map.clear();
    EXPECT_EQ(suggested(question()), "");
    EXPECT_THAT(suggested(question(0)), HasSubstr("no preferred DERP"));
}

TEST_F(ExitNodes, WithoutRelaysTheNearestPlaceOfThoseTheWeightiest) {
    for (wire::Node& node : nodes_) node.home_derp = 0;
    (*relays_.regions)[1]->latitude = 52.5; // Berlin
    (*relays_.regions)[1]->longitude = 13.4;
    auto at = [&](int i, double latitude, double longitude, int priority) {
        auto& place = nodes_[static_cast<std::size_t>(i)].hostinfo.value.location.emplace();
        place.latitude = latitude;
        place.longitude = longitude;
        place.priority = priority;
    };
    at(0, 40.7, -74.0, 100); // New York
    at(1, 52.5, 13.4, 10);
    at(2, 52.4, 13.0, 20); // Potsdam
    EXPECT_EQ(suggested(question()), "n3");
}

TEST_F(ExitNodes, AutoStaysUntilItMustGo) {
    Prefs prefs;
    prefs.auto_exit_node = "any";
    prefs.exit_node_id = kUnresolvedExitNode;
    auto chosen = resolve_exit_node(prefs, question(), 1);
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->exit_node_id, "n2");
    nodes_.push_back(exit_node(0, 1)); // as good, and first in order
    EXPECT_FALSE(resolve_exit_node(*chosen, question(), 1));
    nodes_[1].online = false;
    auto next = resolve_exit_node(*chosen, question(), 1);
    ASSERT_TRUE(next);
    EXPECT_EQ(next->exit_node_id, "n0");
    for (wire::Node& node : nodes_) node.online = false;
    EXPECT_FALSE(resolve_exit_node(*next, question(), 1)) << "rather nowhere than past the tunnel";
}

TEST_F(ExitNodes, AnAddressBecomesANodeOnceItIsKnown) {
    Prefs prefs;
    prefs.exit_node_ip = "100.64.0.3";
    auto resolved = resolve_exit_node(prefs, question(), 1);
    ASSERT_TRUE(resolved);
    EXPECT_EQ(resolved->exit_node_id, "n3");
    EXPECT_EQ(resolved->exit_node_ip, "");
    prefs.exit_node_ip = "100.64.0.9";
    EXPECT_FALSE(resolve_exit_node(prefs, question(), 1));
}

TEST_F(ExitNodes, ANameBecomesANodeOnceItIsKnown) {
    nodes_[0].name = "gw.tail.lab.";
    nodes_[1].name = "gw2.tail.lab.";
    nodes_[2].name = "gw2.elsewhere.lab."; // shared in from another tailnet
    Prefs prefs;
    for (auto [name, id] : {std::pair{"gw", "n1"}, {"GW.tail.lab", "n1"}, {"gw2.elsewhere.lab.", "n3"}}) {
        prefs.exit_node_id = name;
        auto resolved = resolve_exit_node(prefs, question(), 1);
        ASSERT_TRUE(resolved) << name;
        EXPECT_EQ(resolved->exit_node_id, id) << name;
        EXPECT_FALSE(resolve_exit_node(*resolved, question(), 1)) << "it is found";
    }
    for (const char* name : {"gw2", "gw3", "g", "tail.lab"}) {
        prefs.exit_node_id = name;
        EXPECT_FALSE(resolve_exit_node(prefs, question(), 1)) << name << ": which one?";
    }
}

Status status() {
    Status out;
    out.backend_state = "Running";
    out.tailscale_ips = {{*IpAddress::parse("100.64.0.9")}};
    out.peer.emplace();
    auto add = [&](const char* name, const char* ip, bool offers, const char* place) {
        PeerStatus peer;
        peer.id = std::string{"id-"} + name;
        peer.dns_name = std::string{name} + ".tail.lab.";
        peer.tailscale_ips = {{*IpAddress::parse(ip)}};
        peer.exit_node_option = offers;
        peer.online = true;
        if (*place != 0) peer.location = RawJson{place};
        (*out.peer)[name] = peer;
    };
    add("gw", "100.64.0.1", true, "");
    add("laptop", "100.64.0.2", false, "");
    add("ber1", "100.64.0.3", true,
        R"({"Country":"Germany","CountryCode":"DE","City":"Berlin","CityCode":"BER","Priority":10})");
    add("ber2", "100.64.0.4", true,
        R"({"Country":"Germany","CountryCode":"DE","City":"Berlin","CityCode":"BER","Priority":90})");
    add("muc1", "100.64.0.5", true,
        R"({"Country":"Germany","CountryCode":"DE","City":"Munich","CityCode":"MUC","Priority":50})");
    return out;
}

std::string chosen(const char* value) {
    Prefs prefs;
    auto done = cli::choose_exit_node(prefs, value, status());
    return done ? prefs.exit_node_id : done.error().message();
}

TEST(ExitNodeFlag, TakesANameAnAddressOrAuto) {
    EXPECT_EQ(chosen("gw"), "id-gw");
    EXPECT_EQ(chosen("GW.tail.lab"), "id-gw");
    EXPECT_EQ(chosen("100.64.0.1"), "id-gw");
    EXPECT_EQ(chosen("auto:any"), "auto:any");
    EXPECT_EQ(chosen(""), "");
}

TEST(ExitNodeFlag, SaysWhatIsWrongAsTheReferenceClientDoes) {
    EXPECT_EQ(chosen("nobody"), "invalid value \"nobody\" for --exit-node; must be IP or peer hostname");
    EXPECT_EQ(chosen("100.64.0.77"), "no node found in netmap with IP 100.64.0.77");
    EXPECT_EQ(chosen("laptop"), "node \"laptop\" is not advertising an exit node");
    EXPECT_EQ(chosen("100.64.0.2"), "node 100.64.0.2 is not advertising an exit node");
    EXPECT_THAT(chosen("100.64.0.9"), HasSubstr("cannot use 100.64.0.9 as an exit node as it is a local IP address"));
}

TEST(ExitNodeList, SaysThatTheSelectedOneIsOfflineAlsoWhileWeSendToIt) {
    Status now = status();
    for (auto& [key, peer] : *now.peer)
        if (peer.id == "id-gw") {
            peer.active = peer.exit_node = true;
            peer.online = false;
        }
    EXPECT_THAT(*cli::exit_node_table(now, "", WallTime::now()), HasSubstr("selected but offline"));
}

TEST(ExitNodeList, ShowsTheBestOfEachCityAndWhoHasNoPlace) {
    auto all = cli::exit_node_table(status(), "", WallTime::now());
    ASSERT_TRUE(all);
    EXPECT_THAT(*all, HasSubstr("\n 100.64.0.1     gw.tail.lab       -           -          -          \n"));
    EXPECT_THAT(*all, HasSubstr("\n 100.64.0.4     ber2.tail.lab     Germany     Any        -"));
    EXPECT_THAT(*all, HasSubstr("\n 100.64.0.4     ber2.tail.lab     Germany     Berlin     -"));
    EXPECT_THAT(*all, HasSubstr("\n 100.64.0.5     muc1.tail.lab     Germany     Munich     -"));
    EXPECT_THAT(*all, Not(HasSubstr("ber1")));
    EXPECT_THAT(*all, Not(HasSubstr("laptop")));
    EXPECT_THAT(*cli::exit_node_table(status(), "germany", WallTime::now()), HasSubstr("ber1"));
    EXPECT_EQ(cli::exit_node_table(status(), "France", WallTime::now()).error().message(),
              "no exit nodes found for \"France\"");
    EXPECT_EQ(cli::exit_node_table(Status{}, "", WallTime::now()).error().message(), "no exit nodes found");
}

TEST(ExitNodeList, AsJsonHasAllOfThem) {
    EXPECT_THAT(cli::exit_node_json(status(), "germany"),
                AllOf(HasSubstr(R"("DNSName":"ber1.tail.lab.","Country":"Germany","City":"Berlin")"),
                      HasSubstr("ber2.tail.lab."), Not(HasSubstr("gw.tail.lab."))));
    EXPECT_THAT(cli::exit_node_json(status(), ""), HasSubstr("gw.tail.lab."));
    EXPECT_EQ(cli::exit_node_json(Status{}, ""), "[]");
}

TEST(ViaCommand, ConvertsBothWays) {
    EXPECT_EQ(*cli::via_text({"7", "10.1.2.0/24"}), "fd7a:115c:a1e0:b1a:0:7:a01:200/120\n");
    EXPECT_EQ(*cli::via_text({"0x7", "10.1.2.0/24"}), "fd7a:115c:a1e0:b1a:0:7:a01:200/120\n");
    EXPECT_EQ(*cli::via_text({"fd7a:115c:a1e0:b1a:0:7:a01:200/120"}), "site 7 (0x7), 10.1.2.0/24\n");
    EXPECT_EQ(cli::via_text({"65536", "10.1.2.0/24"}).error().message(),
              "site-id values over 65535 are currently reserved");
    EXPECT_EQ(cli::via_text({"seven", "10.1.2.0/24"}).error().message(),
              "invalid site-id \"seven\"; must be decimal or hex with 0x prefix");
    EXPECT_EQ(cli::via_text({"fd7a:115c:a1e0:b1a::/64"}).error().message(), "short length, want /96 or more");
    EXPECT_EQ(cli::via_text({"2001:db8::/96"}).error().message(), "not a via route");
}

TEST(ExitNodeSwitch, RemembersWhoItWasHoweverItWasGivenUp) {
    Prefs used;
    used.exit_node_id = "n7";
    Prefs none;
    remember_exit_node(used, none);
    EXPECT_EQ(none.internal_exit_node_prior, "n7");
    auto again = with_exit_node_enabled(none, true);
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(again->exit_node_id, "n7");
    EXPECT_EQ(*with_exit_node_enabled(*again, true), *again) << "it is on";
    EXPECT_EQ(with_exit_node_enabled(*again, false)->exit_node_id, "");

    Prefs other = used;
    other.exit_node_id = "n8";
    remember_exit_node(used, other);
    EXPECT_EQ(other.internal_exit_node_prior, "") << "one is in use";
}

TEST(ExitNodeSwitch, KnowsAddressesAndAutomaticChoice) {
    Prefs automatic, by_address, off, off_too;
    automatic.auto_exit_node = "any";
    automatic.exit_node_id = "n7"; // the one chosen now
    remember_exit_node(automatic, off);
    auto again = with_exit_node_enabled(off, true);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->auto_exit_node, "any");
    EXPECT_EQ(again->exit_node_id, kUnresolvedExitNode);
    by_address.exit_node_ip = "100.64.0.9";
    remember_exit_node(by_address, off_too);
    EXPECT_EQ(with_exit_node_enabled(off_too, true)->exit_node_ip, "100.64.0.9");
}

TEST(ExitNodeSwitch, SaysSoWhereNoneWasUsed) {
    auto on = with_exit_node_enabled(Prefs{}, true);
    ASSERT_FALSE(on);
    EXPECT_THAT(on.error().message(), HasSubstr("set --exit-node"));
    EXPECT_TRUE(with_exit_node_enabled(Prefs{}, false));
}

} // namespace
} // namespace tailrace
