// WireGuard devices, the same tests for the kernel's and for wireguard-go's.
#include "base/random.hpp"
#include "netlink/router.hpp"
#include "netlink/wireguard.hpp"
#include "tests/unit/netlink/kernel_room.hpp"

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace tailrace::test {
namespace {

using ::testing::SizeIs;

class WireGuardOnKernel : public Kernel, public ::testing::WithParamInterface<WireGuardChoice> {
protected:
    void SetUp() override {
        Kernel::SetUp();
        if (IsSkipped()) return;
        const auto support = probe_wireguard();
        if (GetParam() == WireGuardChoice::Kernel && !support.kernel) GTEST_SKIP() << support.kernel_reason;
        if (GetParam() == WireGuardChoice::Uapi && !support.uapi) GTEST_SKIP() << support.uapi_reason;
    }
    void TearDown() override {
        if (auto left = find_wireguard(name_); left && *left) (void)(*left)->remove();
    }
    // The sockets of userspace devices are in one directory for the whole machine.
    std::string name_ = fmt::format("tr{}", ::getpid() % 1000000);
};

WireGuardConfig config_with_peers(int count) {
    WireGuardConfig config;
    config.private_key = Secret<32>{random_array<32>()};
    config.listen_port = 41641;
    config.fwmark = kBypassMark;
    for (int i = 0; i < count; ++i) {
        WireGuardPeer peer;
        peer.public_key = random_array<32>();
        peer.public_key[31] &= std::byte{0x7f};
        peer.endpoint = Endpoint{IpAddress::v4(0xc0000201), static_cast<std::uint16_t>(1000 + i)};
        if (i % 2) peer.endpoint->address = address("2001:db8::1");
        peer.allowed_ips = {IpPrefix::single(IpAddress::v4(0x64400000 + static_cast<std::uint32_t>(i))),
                            IpPrefix{IpAddress::v4(0x0a000000 + (static_cast<std::uint32_t>(i) << 8)), 24}};
        peer.keepalive_seconds = i % 3 ? 0 : 25;
        config.peers.push_back(peer);
    }
    return config;
}

TEST_P(WireGuardOnKernel, IsMadeConfiguredAdoptedAndRemoved) {
    EXPECT_EQ(*find_wireguard(name_), nullptr);
    auto opened = open_wireguard(name_, GetParam());
    ASSERT_TRUE(ok(opened));
    EXPECT_EQ(opened->how, OpenedWireGuard::How::Created);
    auto& device = *opened->device;
    EXPECT_EQ(device.kind(), GetParam() == WireGuardChoice::Kernel ? WireGuardKind::Kernel : WireGuardKind::Uapi);

    auto wanted = config_with_peers(5);
    ASSERT_TRUE(ok(device.reconcile(wanted)));
    auto again = device.reconcile(wanted);
    ASSERT_TRUE(ok(again));
    EXPECT_TRUE(again->empty());

    auto adopted = open_wireguard(name_, WireGuardChoice::Auto);
    ASSERT_TRUE(ok(adopted));
    EXPECT_EQ(adopted->how, OpenedWireGuard::How::Adopted);
    EXPECT_EQ(adopted->device->kind(), device.kind());
    again = adopted->device->reconcile(wanted);
    ASSERT_TRUE(ok(again));
    EXPECT_TRUE(again->empty());

    // Move, take away, swap, drop, change.
    wanted.peers[0].allowed_ips.push_back(prefix("192.168.0.0/16"));
    std::swap(wanted.peers[1].allowed_ips, wanted.peers[2].allowed_ips);
    wanted.peers[3].allowed_ips.pop_back();
    wanted.peers[3].keepalive_seconds = 7;
    wanted.peers.pop_back();
    ASSERT_TRUE(ok(adopted->device->reconcile(wanted)));
    wanted.peers[0].allowed_ips.pop_back();
    wanted.peers[1].allowed_ips.push_back(prefix("192.168.0.0/16"));
    ASSERT_TRUE(ok(adopted->device->reconcile(wanted)));
    auto state = device.read();
    ASSERT_TRUE(ok(state));
    EXPECT_THAT(state->peers, SizeIs(4));
    EXPECT_EQ(state->listen_port, 41641);
    EXPECT_EQ(state->fwmark, kBypassMark);

    ASSERT_TRUE(ok(device.remove()));
    EXPECT_EQ(*find_wireguard(name_), nullptr);
    ASSERT_TRUE(ok(device.remove()));
}

TEST_P(WireGuardOnKernel, CarriesThousandsOfPeers) {
    auto opened = open_wireguard(name_, GetParam());
    ASSERT_TRUE(ok(opened));
    const int count = GetParam() == WireGuardChoice::Kernel ? 2000 : 200;
    auto wanted = config_with_peers(count);
    for (std::uint32_t i = 0; i < 3000; ++i)
        wanted.peers[7].allowed_ips.push_back(IpPrefix::single(IpAddress::v4(0x0b000000 + i)));
    ASSERT_TRUE(ok(opened->device->reconcile(wanted)));
    wanted.peers.erase(wanted.peers.begin() + 3);
    auto one = opened->device->reconcile(wanted);
    ASSERT_TRUE(ok(one));
    EXPECT_THAT(one->peers, SizeIs(1));
}

TEST_P(WireGuardOnKernel, AnEndpointForAPeerThatHasGoneMakesNoPeer) { // derp-disco-paths.md 8, 72
    auto opened = open_wireguard(name_, GetParam());
    ASSERT_TRUE(ok(opened));
    auto wanted = config_with_peers(2);
    ASSERT_TRUE(ok(opened->device->reconcile(wanted)));
    WireGuardChanges moves;
    for (const auto& key : {wanted.peers[0].public_key, random_array<32>()}) {
        WireGuardPeerChange move;
        move.kind = WireGuardPeerChange::Kind::Update;
        move.public_key = key;
        move.endpoint = Endpoint{IpAddress::v4(0xc0000263), 99};
        moves.peers.push_back(move);
    }
    ASSERT_TRUE(ok(opened->device->apply(moves)));
    auto state = opened->device->read();
    ASSERT_TRUE(ok(state));
    ASSERT_THAT(state->peers, SizeIs(2));
    for (const auto& peer : state->peers)
        EXPECT_EQ(peer.endpoint->port == 99, peer.public_key == wanted.peers[0].public_key);
}

TEST_P(WireGuardOnKernel, SaysThatAPortIsInUse) {
    auto opened = open_wireguard(name_, GetParam());
    ASSERT_TRUE(ok(opened));
    auto link = links_->find(name_);
    ASSERT_TRUE(ok(links_->set_state((*link)->index, LinkState::Up)));
    auto wanted = config_with_peers(1);
    wanted.listen_port = 0;
    // A userspace device follows the link's state a moment later: once it has taken its first port it is up.
    for (int i = 0; i < 500 && opened->device->read()->listen_port == 0; ++i) ::usleep(10000);
    Fd other{::socket(AF_INET6, SOCK_DGRAM, 0)};
    sockaddr_in6 here{};
    here.sin6_family = AF_INET6;
    here.sin6_port = htons(41641);
    ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&here), sizeof here), 0);
    wanted.listen_port = 41641;
    auto refused = opened->device->reconcile(wanted);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), EADDRINUSE) << refused.error().message();
}

TEST_P(WireGuardOnKernel, IsNotMadeOverALinkOfAnotherKind) {
    device(name_);
    auto refused = open_wireguard(name_, GetParam());
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message(), ::testing::HasSubstr("no WireGuard device"));
}

/// Two devices in one namespace that talk to each other over lo.
TEST_P(WireGuardOnKernel, ShakesHandsAndKeepsTheSessionWhenItIsSetUpAgain) {
    auto one = open_wireguard(name_, GetParam());
    auto two = open_wireguard(name_ + "b", GetParam());
    ASSERT_TRUE(ok(one));
    ASSERT_TRUE(ok(two));
    auto config_of = [](std::uint16_t port) {
        auto config = config_with_peers(0);
        config.listen_port = port;
        return config;
    };
    auto config_one = config_of(1001);
    auto config_two = config_of(1002);
    auto peer_of = [](const WireGuardConfig& config, std::string_view allowed) {
        WireGuardPeer peer;
        (void)crypto_scalarmult_curve25519_base(reinterpret_cast<unsigned char*>(peer.public_key.data()),
                                                config.private_key.data());
        peer.endpoint = Endpoint{IpAddress::v4(0x7f000001), config.listen_port};
        peer.allowed_ips = {prefix(allowed)};
        return peer;
    };
    config_one.peers = {peer_of(config_two, "100.64.0.2/32")};
    config_one.peers[0].keepalive_seconds = 1; // a keep-alive begins the handshake
    config_two.peers = {peer_of(config_one, "100.64.0.1/32")};
    for (auto* device : {&*one, &*two})
        ASSERT_TRUE(ok(links_->set_state((*links_->find(device->device->name()))->index, LinkState::Up)));
    ASSERT_TRUE(ok(two->device->reconcile(config_two)));
    ASSERT_TRUE(ok(one->device->reconcile(config_one)));

    std::optional<WallTime> handshake;
    for (int i = 0; i < 500 && !handshake; ++i) {
        handshake = two->device->read()->peers.at(0).last_handshake;
        if (!handshake) ::usleep(10000);
    }
    ASSERT_TRUE(handshake.has_value());
    auto adopted = open_wireguard(name_, WireGuardChoice::Auto);
    config_one.peers[0].allowed_ips.push_back(prefix("10.0.0.0/8"));
    ASSERT_TRUE(ok(adopted->device->reconcile(config_one)));
    config_one.peers[0].allowed_ips.pop_back();
    ASSERT_TRUE(ok(adopted->device->reconcile(config_one)));
    auto state = adopted->device->read();
    ASSERT_TRUE(ok(state));
    EXPECT_TRUE(state->peers.at(0).last_handshake.has_value());
    EXPECT_GT(state->peers.at(0).tx_bytes, 0u);
    (void)two->device->remove();
}

INSTANTIATE_TEST_SUITE_P(BothKinds, WireGuardOnKernel,
                         ::testing::Values(WireGuardChoice::Kernel, WireGuardChoice::Uapi), [](const auto& info) {
                             return info.param == WireGuardChoice::Kernel ? "Module" : "Userspace";
                         });

} // namespace
} // namespace tailrace::test
