#include "control/server/policy_input.hpp"
#include "control/tailnet/attributes.hpp"
#include "tests/unit/control/tailnet_fixture.hpp"

#include <gmock/gmock.h>

using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

namespace tailrace {
namespace {

using namespace std::chrono_literals;

TEST(ReportedPosture, IsWhatAClientSaysOfItself) {
    wire::Hostinfo hostinfo;
    EXPECT_TRUE(reported_posture(hostinfo).empty());
    hostinfo.os = "macOS";
    hostinfo.os_version = "14.5.0";
    hostinfo.ipn_version = "1.103.24-t53a0d659a-g0123";
    hostinfo.state_encrypted = true;
    EXPECT_THAT(reported_posture(hostinfo), UnorderedElementsAre(Pair("node:os", PostureValue{"macos"}),
                                                                 Pair("node:osVersion", PostureValue{"14.5.0"}),
                                                                 Pair("node:tsVersion", PostureValue{"1.103.24"}),
                                                                 Pair("node:tsReleaseTrack", PostureValue{"unstable"}),
                                                                 Pair("node:tsAutoUpdate", PostureValue{false}),
                                                                 Pair("node:tsStateEncrypted", PostureValue{true})));
    hostinfo.ipn_version = "1.102.3";
    EXPECT_EQ(reported_posture(hostinfo).at("node:tsReleaseTrack"), PostureValue{"stable"});
}

TEST(Attributes, HaveNamesAndValuesOfTheServicesForm) {
    for (const char* good : {"custom:tier", "custom:a:b_9"}) EXPECT_TRUE(check_attribute_name(good)) << good;
    for (const char* bad : {"", "custom:", "node:os", "custom:a-b", "Custom:a", "custom:a b"})
        EXPECT_FALSE(check_attribute_name(bad)) << bad;
    EXPECT_FALSE(check_attribute_name("custom:" + std::string(44, 'a')));
    EXPECT_EQ(*parse_attribute("true"), PostureValue{true});
    EXPECT_EQ(*parse_attribute("-12"), PostureValue{-12.0});
    EXPECT_EQ(*parse_attribute("v1.2_x"), PostureValue{std::string{"v1.2_x"}});
    EXPECT_EQ(*parse_attribute("9007199254740991"), PostureValue{9007199254740991.0});
    for (const char* bad : {"", "9007199254740992", "a b", "-", "1e5-", "\xff"})
        EXPECT_FALSE(parse_attribute(bad)) << bad;
    EXPECT_FALSE(parse_attribute(std::string(51, 'a')));
}

TEST(Attributes, ComeBackFromTheStore) {
    CustomAttributes attributes{
        {"custom:tier", {std::string{"17"}, at(5s)}}, {"custom:level", {17.0, {}}}, {"custom:managed", {false, {}}}};
    auto back = read_attributes(write_attributes(attributes));
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(*back, attributes);
    EXPECT_FALSE(read_attributes("[{\"name\":\"node:os\",\"kind\":\"a string\",\"value\":\"x\"}]"));
    EXPECT_FALSE(read_attributes("[{\"name\":\"custom:a\",\"kind\":\"a number\",\"value\":\"x\"}]"));
    EXPECT_FALSE(read_attributes("{"));
}

struct Attributed : TailnetFixture {
    NodeId join(const std::string& name) {
        Machine machine;
        machine.hostname = name;
        auto request = machine.request(reusable_key());
        request.hostinfo.value.os = "linux";
        (void)tailnet.on_register(at(now), machine.machine, request);
        return tailnet.node_by_key(machine.key)->id();
    }
    Result<void> set(NodeId id, const char* name, PostureValue value, WallTime expires = {}) {
        return tailnet.change_attributes(at(now), id, {{name, CustomAttribute{std::move(value), expires}}});
    }
    PostureValues posture(NodeId id) {
        for (const TailnetNode& node : policy_tailnet(*tailnet.snapshot()).nodes)
            if (node.id == id) return node.attributes;
        return {};
    }
};

TEST_F(Attributed, ReachThePolicyWithWhatTheNodeReports) {
    NodeId id = join("one");
    EXPECT_THAT(posture(id), testing::Contains(Pair("node:os", PostureValue{"linux"})));
    (void)tailnet.take_changes();
    ASSERT_TRUE(set(id, "custom:tier", std::string{"gold"}));
    EXPECT_THAT(posture(id), testing::Contains(Pair("custom:tier", PostureValue{"gold"})));
    auto changes = tailnet.take_changes();
    ASSERT_EQ(changes.events.size(), 1u);
    EXPECT_TRUE(concerns_policy(changes.events[0]));
    EXPECT_TRUE(changes.needs_commit());
    ASSERT_TRUE(tailnet.change_attributes(at(now), id, {{"custom:tier", std::nullopt}}));
    EXPECT_FALSE(posture(id).contains("custom:tier"));
    auto none = tailnet.change_attributes(at(now), id, {{"custom:tier", std::nullopt}});
    ASSERT_FALSE(none);
    EXPECT_THAT(none.error().message(), HasSubstr("has no attribute custom:tier"));
}

TEST_F(Attributed, AreOfOneKindInAllOfTheTailnet) {
    NodeId one = join("one"), two = join("two");
    ASSERT_TRUE(set(one, "custom:tier", std::string{"gold"}));
    auto other = set(two, "custom:tier", 3.0);
    ASSERT_FALSE(other);
    EXPECT_THAT(other.error().message(), HasSubstr("custom:tier is a string for one, so it can't be a number here"));
    EXPECT_FALSE(set(two, "custom:Tier", std::string{"gold"}));
    EXPECT_TRUE(set(one, "custom:tier", 3.0)) << "nobody else has it";
    EXPECT_FALSE(set(one, "node:os", std::string{"plan9"}));
}

TEST_F(Attributed, EndWhenTheyExpire) {
    NodeId id = join("one");
    EXPECT_FALSE(set(id, "custom:access", true, at(now)));
    ASSERT_TRUE(set(id, "custom:access", true, at(now + 60s)));
    ASSERT_TRUE(set(id, "custom:tier", std::string{"gold"}));
    EXPECT_EQ(tailnet.next_timer(), at(now + 60s));
    tailnet.on_timer(at(now + 59s));
    EXPECT_TRUE(posture(id).contains("custom:access"));
    (void)tailnet.take_changes();
    tailnet.on_timer(at(now + 60s));
    EXPECT_FALSE(posture(id).contains("custom:access"));
    EXPECT_TRUE(posture(id).contains("custom:tier"));
    auto changes = tailnet.take_changes();
    ASSERT_EQ(changes.events.size(), 1u);
    EXPECT_TRUE(concerns_policy(changes.events[0]));
    EXPECT_EQ(tailnet.next_timer(), std::nullopt);
}

TEST_F(Attributed, ARoleOfAUserReachesThePolicy) {
    EXPECT_FALSE(tailnet.set_role("nobody", UserRole::Admin));
    ASSERT_TRUE(tailnet.set_role("alice", UserRole::Admin));
    auto changes = tailnet.take_changes();
    EXPECT_TRUE(changes.users_changed);
    EXPECT_TRUE(changes.needs_commit());
    for (const TailnetUser& user : policy_tailnet(*tailnet.snapshot()).users)
        EXPECT_EQ(user.role, user.login == "alice@" ? UserRole::Admin : UserRole::Member) << user.login;
}

} // namespace
} // namespace tailrace
