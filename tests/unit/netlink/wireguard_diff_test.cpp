#include "netlink/wireguard.hpp"
#include "tests/fakes/fake_wireguard.hpp"
#include "tests/unit/addresses.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace tailrace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Kind = WireGuardPeerChange::Kind;

WireGuardKey key(int number) {
    WireGuardKey key{};
    key[0] = static_cast<std::byte>(number);
    key[1] = static_cast<std::byte>(number >> 8);
    key[31] = std::byte{1};
    return key;
}

Secret<32> secret(int number) {
    return Secret<32>{key(number)};
}
Endpoint endpoint(std::string_view text) {
    return *Endpoint::parse(text);
}

WireGuardPeer peer(int number, std::vector<IpPrefix> allowed_ips) {
    return {key(number), endpoint("192.0.2.1:41641"), std::move(allowed_ips), 0};
}

WireGuardConfig config(std::vector<WireGuardPeer> peers) {
    WireGuardConfig config;
    config.private_key = secret(200);
    config.listen_port = 41641;
    config.fwmark = 0x80000;
    config.peers = std::move(peers);
    return config;
}

/// A device on which `wanted` stands.
FakeWireGuard device_with(const WireGuardConfig& wanted) {
    FakeWireGuard device;
    EXPECT_TRUE(device.reconcile(wanted));
    return device;
}

TEST(WireGuardDiff, SetsUpAnEmptyDevice) {
    auto changes = diff(WireGuardState{}, config({peer(1, {prefix("100.64.0.1/32")})}));
    EXPECT_TRUE(changes.private_key.has_value());
    EXPECT_EQ(changes.listen_port, 41641);
    EXPECT_EQ(changes.fwmark, 0x80000u);
    ASSERT_THAT(changes.peers, SizeIs(1));
    EXPECT_EQ(changes.peers[0].kind, Kind::Add);
    EXPECT_THAT(changes.peers[0].add_allowed_ips, ElementsAre(prefix("100.64.0.1/32")));
}

TEST(WireGuardDiff, FindsNothingToDoWhereAllIsRight) {
    auto wanted =
        config({peer(1, {prefix("100.64.0.1/32")}), peer(2, {prefix("100.64.0.2/32"), prefix("fd7a::2/128")})});
    auto device = device_with(wanted);
    EXPECT_TRUE(diff(device.state(), wanted).empty());
    auto again = device.reconcile(wanted);
    ASSERT_TRUE(again);
    EXPECT_TRUE(again->empty());
    EXPECT_EQ(device.applied(), 1);
}

TEST(WireGuardDiff, TakesTheKernelsClampedKeyForTheSame) {
    auto wanted = config({});
    WireGuardState current;
    auto clamped = key(200);
    clamped[31] = std::byte{0x41};
    current.private_key = Secret<32>{clamped};
    current.listen_port = 41641;
    current.fwmark = 0x80000;
    EXPECT_TRUE(diff(current, wanted).empty());
}

TEST(WireGuardDiff, LeavesARoamedEndpointAloneWhenNoneIsWanted) {
    auto wanted = config({peer(1, {prefix("100.64.0.1/32")})});
    auto device = device_with(wanted);
    device.peer(key(1))->endpoint = endpoint("198.51.100.7:9");
    wanted.peers[0].endpoint.reset();
    EXPECT_TRUE(diff(device.state(), wanted).empty());
    wanted.peers[0].endpoint = endpoint("192.0.2.1:41641");
    auto changes = diff(device.state(), wanted);
    ASSERT_THAT(changes.peers, SizeIs(1));
    EXPECT_EQ(changes.peers[0].kind, Kind::Update);
    EXPECT_EQ(changes.peers[0].endpoint, endpoint("192.0.2.1:41641"));
    EXPECT_THAT(changes.peers[0].add_allowed_ips, IsEmpty());
}

TEST(WireGuardDiff, MovesAnAllowedIpByGivingItToItsNewPeerOnly) {
    auto device = device_with(
        config({peer(1, {prefix("100.64.0.1/32"), prefix("10.0.0.0/8")}), peer(2, {prefix("100.64.0.2/32")})}));
    auto changes =
        diff(device.state(),
             config({peer(1, {prefix("100.64.0.1/32")}), peer(2, {prefix("100.64.0.2/32"), prefix("10.0.0.0/8")})}));
    ASSERT_THAT(changes.peers, SizeIs(1));
    EXPECT_EQ(changes.peers[0].public_key, key(2));
    EXPECT_THAT(changes.peers[0].add_allowed_ips, ElementsAre(prefix("10.0.0.0/8")));
    EXPECT_FALSE(changes.peers[0].replace_allowed_ips);
    EXPECT_THAT(changes.orphaned_allowed_ips, IsEmpty());
}

TEST(WireGuardDiff, SwapsAllowedIpsBetweenTwoPeers) {
    auto device = device_with(config({peer(1, {prefix("10.1.0.0/16")}), peer(2, {prefix("10.2.0.0/16")})}));
    auto wanted = config({peer(1, {prefix("10.2.0.0/16")}), peer(2, {prefix("10.1.0.0/16")})});
    ASSERT_TRUE(device.reconcile(wanted));
    EXPECT_THAT(device.peer(key(1))->allowed_ips, ElementsAre(prefix("10.2.0.0/16")));
    EXPECT_THAT(device.peer(key(2))->allowed_ips, ElementsAre(prefix("10.1.0.0/16")));
}

TEST(WireGuardDiff, TakesAnAllowedIpAwayWithoutTouchingTheOthers) {
    auto device = device_with(config({peer(1, {prefix("100.64.0.1/32"), prefix("10.0.0.0/8")})}));
    auto wanted = config({peer(1, {prefix("100.64.0.1/32")})});
    auto changes = diff(device.state(), wanted);
    EXPECT_THAT(changes.peers, IsEmpty());
    EXPECT_THAT(changes.orphaned_allowed_ips, ElementsAre(prefix("10.0.0.0/8")));
    ASSERT_TRUE(device.reconcile(wanted));
    EXPECT_THAT(device.peer(key(1))->allowed_ips, ElementsAre(prefix("100.64.0.1/32")));
}

TEST(WireGuardDiff, RemovesAPeerAfterItsAllowedIpsHaveMoved) {
    auto device = device_with(config({peer(1, {prefix("10.0.0.0/8")}), peer(2, {})}));
    auto changes = diff(device.state(), config({peer(2, {prefix("10.0.0.0/8")})}));
    ASSERT_THAT(changes.peers, SizeIs(2));
    EXPECT_EQ(changes.peers[0].public_key, key(2));
    EXPECT_EQ(changes.peers[1].kind, Kind::Remove);
}

TEST(WireGuardDiff, GivesAnAllowedIpThatTwoPeersNameToTheFirst) {
    auto wanted = config({peer(1, {prefix("10.0.0.0/8")}), peer(2, {prefix("10.0.0.0/8"), prefix("10.9.9.9/8")})});
    auto device = device_with(wanted);
    EXPECT_THAT(device.peer(key(1))->allowed_ips, ElementsAre(prefix("10.0.0.0/8")));
    EXPECT_THAT(device.peer(key(2))->allowed_ips, IsEmpty());
    EXPECT_TRUE(diff(device.state(), wanted).empty());
}

TEST(WireGuardDiff, NeverAddsOurselves) {
    auto wanted = config({});
    WireGuardPeer self;
    ASSERT_EQ(crypto_scalarmult_curve25519_base(reinterpret_cast<unsigned char*>(self.public_key.data()),
                                                wanted.private_key.data()),
              0);
    wanted.peers = {self};
    EXPECT_THAT(diff(WireGuardState{}, wanted).peers, IsEmpty());
}

TEST(WireGuardDiff, ClearsAPresharedKeyThatSomebodySet) {
    auto wanted = config({peer(1, {})});
    auto device = device_with(wanted);
    device.peer(key(1))->has_preshared_key = true;
    auto changes = diff(device.state(), wanted);
    ASSERT_THAT(changes.peers, SizeIs(1));
    EXPECT_TRUE(changes.peers[0].clear_preshared_key);
}

TEST(WireGuardDiff, LeadsFromAnyStateToAnyOtherInOneStep) {
    std::mt19937 random{7};
    auto any_config = [&] {
        std::vector<WireGuardPeer> peers;
        for (int number = 1; number <= 8; ++number) {
            if (random() % 3 == 0) continue;
            WireGuardPeer made;
            made.public_key = key(number);
            if (random() % 2) made.endpoint = Endpoint{IpAddress::v4(0xc0000200 + random() % 4), 41641};
            made.keepalive_seconds = random() % 2 ? 25 : 0;
            for (int i = 0; i < 4; ++i)
                made.allowed_ips.emplace_back(IpAddress::v4(0x0a000000 + (random() % 12 << 8)), 24);
            peers.push_back(made);
        }
        return config(peers);
    };
    FakeWireGuard device;
    for (int round = 0; round < 500; ++round) {
        auto wanted = any_config();
        auto done = device.reconcile(wanted);
        ASSERT_TRUE(done) << done.error().message();
        ASSERT_TRUE(diff(device.state(), wanted).empty());
    }
}

} // namespace
} // namespace tailrace
