// What goes to the kernel and to the UAPI socket, and what comes back.
#include "netlink/attributes.hpp"
#include "netlink/wireguard_kernel.hpp"
#include "netlink/wireguard_uapi.hpp"
#include "tests/unit/addresses.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/genetlink.h>
#include <linux/wireguard.h>

namespace tailrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Kind = WireGuardPeerChange::Kind;

WireGuardChanges many_peers(int count, int allowed_ips_each) {
    WireGuardChanges changes;
    std::uint32_t next = 0x64400000;
    for (int i = 0; i < count; ++i) {
        WireGuardPeerChange peer;
        peer.kind = Kind::Add;
        peer.public_key[0] = static_cast<std::byte>(i);
        peer.public_key[1] = static_cast<std::byte>(i >> 8);
        peer.endpoint = Endpoint{IpAddress::v4(0xc0000201), 41641};
        for (int j = 0; j < allowed_ips_each; ++j)
            peer.add_allowed_ips.push_back(IpPrefix::single(IpAddress::v4(next++)));
        changes.peers.push_back(peer);
    }
    return changes;
}

/// What the kernel would read out of the messages; get and set have the same form.
WireGuardState replay(std::vector<NetlinkMessage>& messages) {
    WireGuardState state;
    for (auto& message : messages) EXPECT_TRUE(read_kernel_device(*message.get(), state));
    return state;
}

TEST(WireGuardWire, KernelMessagesCarryManyPeers) {
    auto changes = many_peers(2000, 2);
    auto messages = kernel_set_messages(30, "tailrace0", changes);
    EXPECT_GT(messages.size(), 3u);
    for (auto& message : messages) EXPECT_LT(message.size_bytes(), 61'000u);
    EXPECT_LE(kernel_set_messages(30, "tailrace0", many_peers(5000, 1)).size(), 10u); // derp-disco-paths.md 8, 74
    auto state = replay(messages);
    ASSERT_THAT(state.peers, SizeIs(2000));
    for (std::size_t i = 0; i < state.peers.size(); ++i) {
        EXPECT_EQ(state.peers[i].public_key, changes.peers[i].public_key);
        EXPECT_EQ(state.peers[i].allowed_ips, changes.peers[i].add_allowed_ips);
        EXPECT_EQ(state.peers[i].endpoint, changes.peers[i].endpoint);
    }
}

TEST(WireGuardWire, KernelMessagesSplitAPeerWithVeryManyAllowedIps) {
    auto changes = many_peers(1, 5000);
    auto messages = kernel_set_messages(30, "tailrace0", changes);
    EXPECT_GT(messages.size(), 2u);
    for (auto& message : messages) EXPECT_LT(message.size_bytes(), 61'000u);
    auto state = replay(messages);
    ASSERT_THAT(state.peers, SizeIs(1));
    EXPECT_EQ(state.peers[0].allowed_ips, changes.peers[0].add_allowed_ips);
}

TEST(WireGuardWire, KernelMessageTakesOrphansAwayThroughAPeerThatGoesAtOnce) {
    WireGuardChanges changes;
    changes.orphaned_allowed_ips = {prefix("10.0.0.0/8")};
    auto messages = kernel_set_messages(30, "tailrace0", changes);
    ASSERT_THAT(messages, SizeIs(1));
    auto device = Attributes::of_message(*messages[0].get(), sizeof(genlmsghdr));
    std::vector<std::uint32_t> flags;
    for_each_attribute(device.bytes(WGDEVICE_A_PEERS),
                       [&](const nlattr* entry) { flags.push_back(Attributes::of_nest(entry).u32(WGPEER_A_FLAGS)); });
    EXPECT_THAT(flags, ElementsAre(0u, static_cast<std::uint32_t>(WGPEER_F_REMOVE_ME)));
}

TEST(WireGuardWire, UapiTextSaysTheSame) {
    WireGuardChanges changes;
    changes.listen_port = 41641;
    changes.fwmark = 0x80000;
    WireGuardPeerChange peer;
    peer.kind = Kind::Update;
    peer.endpoint = *Endpoint::parse("[2001:db8::1]:5");
    peer.keepalive_seconds = 25;
    peer.add_allowed_ips = {prefix("100.64.0.1/32")};
    changes.peers = {peer};
    const std::string zeros(64, '0');
    EXPECT_EQ(uapi_set_text(changes), "set=1\nfwmark=524288\nlisten_port=41641\npublic_key=" + zeros +
                                          "\nupdate_only=true\nendpoint=[2001:db8::1]:5\n"
                                          "persistent_keepalive_interval=25\nallowed_ip=100.64.0.1/32\n\n");
}

TEST(WireGuardWire, UapiStateIsRead) {
    auto state =
        parse_uapi_state("private_key=" + std::string(64, '1') + "\nlisten_port=41641\nfwmark=524288\npublic_key=" +
                         std::string(64, 'a') + "\npreshared_key=" + std::string(64, '0') +
                         "\nprotocol_version=1\nendpoint=192.0.2.1:9\nlast_handshake_time_sec=1700000000\n"
                         "last_handshake_time_nsec=5\ntx_bytes=7\nrx_bytes=8\npersistent_keepalive_interval=25\n"
                         "allowed_ip=fd7a::1/128\nallowed_ip=100.64.0.1/32\nerrno=0\n\n");
    ASSERT_TRUE(state) << state.error().message();
    EXPECT_EQ(state->listen_port, 41641);
    EXPECT_EQ(state->fwmark, 0x80000u);
    ASSERT_THAT(state->peers, SizeIs(1));
    const auto& peer = state->peers[0];
    EXPECT_EQ(peer.endpoint, *Endpoint::parse("192.0.2.1:9"));
    EXPECT_EQ(peer.tx_bytes, 7u);
    EXPECT_EQ(peer.rx_bytes, 8u);
    EXPECT_EQ(peer.last_handshake, WallTime::from_unix(1700000000, 5));
    EXPECT_FALSE(peer.has_preshared_key);
    EXPECT_THAT(peer.allowed_ips, ElementsAre(prefix("100.64.0.1/32"), prefix("fd7a::1/128")));
}

TEST(WireGuardWire, UapiErrorsAndShortAnswersAreSaid) {
    auto busy = parse_uapi_state("errno=-98\n\n");
    ASSERT_FALSE(busy);
    EXPECT_EQ(busy.error().code(), 98);
    EXPECT_FALSE(parse_uapi_state("listen_port=1\n"));
    EXPECT_FALSE(parse_uapi_state("listen_port=70000\nerrno=0\n\n"));
    EXPECT_FALSE(parse_uapi_state("public_key=zz\nerrno=0\n\n"));
    EXPECT_FALSE(parse_uapi_state("nonsense\nerrno=0\n\n"));
    EXPECT_TRUE(parse_uapi_state("errno=0\n\n"));
}

} // namespace
} // namespace tailrace
