#include "agent/cli/pref_flags.hpp"
#include "agent/store/prefs.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using testing::HasSubstr;

TEST(Prefs, WritesTheReferenceClientsFields) {
    Prefs prefs;
    prefs.hostname = "laptop";
    std::string text = write_prefs(prefs.without_secrets());
    EXPECT_THAT(
        text,
        HasSubstr(R"("ControlURL":"","RouteAll":false,"ExitNodeID":"","ExitNodeIP":"","InternalExitNodePrior":"")"));
    EXPECT_THAT(text,
                HasSubstr(R"("AdvertiseTags":null,"Hostname":"laptop","NotepadURLs":false,"AdvertiseRoutes":null)"));
    EXPECT_THAT(text,
                HasSubstr(R"("NoStatefulFiltering":true,"NetfilterMode":2,"AutoUpdate":{"Check":true,"Apply":null})"));
    EXPECT_THAT(text, HasSubstr(R"("PrivateNodeKey":"privkey:00000000)"));
}

TEST(Prefs, ReadsBackWhatItWrites) {
    Prefs prefs;
    prefs.advertise_routes = {*IpPrefix::parse("10.0.0.0/8")};
    prefs.config = Persist{};
    prefs.config->node_id = "7";
    auto again = parse_prefs(write_prefs(prefs));
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, prefs);
}

TEST(Prefs, ChangesOnlyMaskedFields) {
    Prefs prefs;
    prefs.hostname = "a";
    prefs.want_running = true;
    auto changed = apply_masked_prefs(prefs, R"({"WantRunning":false,"WantRunningSet":true,"Hostname":"b"})");
    ASSERT_TRUE(changed);
    EXPECT_FALSE(changed->want_running);
    EXPECT_EQ(changed->hostname, "a");
}

TEST(Prefs, NeverTakesKeysFromOutside) {
    auto changed = apply_masked_prefs(Prefs{}, R"({"Config":{"NodeID":"9"},"ConfigSet":true})");
    ASSERT_TRUE(changed);
    EXPECT_FALSE(changed->config.has_value());
    EXPECT_FALSE(apply_masked_prefs(Prefs{}, R"({"InternalExitNodePriorSet":true})"));
}

TEST(Prefs, RefusesUnmaskedRoutesAndUsingAndOfferingAnExit) {
    Prefs prefs;
    prefs.advertise_routes = {*IpPrefix::parse("10.0.0.1/8")};
    EXPECT_FALSE(check_prefs(prefs));
    prefs.advertise_routes = {*IpPrefix::parse("0.0.0.0/0"), *IpPrefix::parse("::/0")};
    EXPECT_TRUE(check_prefs(prefs));
    prefs.exit_node_id = "3";
    EXPECT_FALSE(check_prefs(prefs));
}

TEST(PrefFlags, NamesTheWholeCommandWhenSettingsWouldBeLost) {
    Prefs current;
    current.control_url = "http://10.0.0.1:8080";
    current.hostname = "laptop";
    current.route_all = true;
    cli::GivenFlags given{{"shields-up", "true"}};
    auto wanted = cli::prefs_of_up(given, current);
    ASSERT_TRUE(wanted);
    std::string text = cli::missing_flags_text(given, {}, current, *wanted);
    EXPECT_THAT(text, HasSubstr("requires mentioning all\nnon-default flags."));
    EXPECT_THAT(text, HasSubstr("\ttailrace up --shields-up --accept-routes --hostname=laptop\n"));
}

TEST(PrefFlags, SettingRoutesKeepsTheExitNodeOfferAndTheOtherWayRound) {
    Prefs prefs;
    auto exit = cli::prefs_of_set({{"advertise-exit-node", "true"}}, prefs);
    ASSERT_TRUE(exit);
    auto both = cli::prefs_of_set({{"advertise-routes", "192.168.0.0/24,10.0.0.0/8"}}, *exit);
    ASSERT_TRUE(both);
    EXPECT_TRUE(both->advertises_exit_node());
    EXPECT_EQ(both->routes().size(), 4u);
    auto only_routes = cli::prefs_of_set({{"advertise-exit-node", "false"}}, *both);
    ASSERT_TRUE(only_routes);
    EXPECT_EQ(only_routes->routes().size(), 2u);
    EXPECT_FALSE(cli::prefs_of_set({{"advertise-routes", "10.0.0.1/8"}}, prefs));
    EXPECT_FALSE(cli::prefs_of_set({{"advertise-routes", "0.0.0.0/0"}}, prefs));
}

TEST(Prefs, HardNatTraversalIsOnUntilItIsTurnedOff) {
    EXPECT_TRUE(parse_prefs("{}")->hard_nat_traversal);
    auto off = cli::prefs_of_set({{"hard-nat-traversal", "false"}}, Prefs{});
    ASSERT_TRUE(off);
    EXPECT_FALSE(parse_prefs(write_prefs(*off))->hard_nat_traversal);
    auto masked = apply_masked_prefs(Prefs{}, masked_prefs(*off, cli::prefs_named({{"hard-nat-traversal", "false"}})));
    ASSERT_TRUE(masked);
    EXPECT_EQ(*masked, *off);
}

} // namespace
} // namespace tailrace
