// Disco, STUN and relay datagrams on the WireGuard port reach the agent's socket, everything else WireGuard's.
#include "agent/dataplane/steering.hpp"
#include "tests/bpf/tun_room.hpp"

#include <bpf/bpf.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>

namespace tailrace::test {
namespace {

constexpr std::uint16_t kWireGuardPort = 51820, kAgentPort = 40123;

Bytes bytes(std::initializer_list<int> start, std::size_t size) {
    Bytes out;
    for (int value : start) out.push_back(static_cast<std::byte>(value));
    out.resize(size, std::byte{0x55});
    return out;
}
Bytes disco(std::size_t size = 98) {
    return bytes({0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac}, size);
}
Bytes stun() {
    return bytes({0x01, 0x01, 0x00, 0x0c, 0x21, 0x12, 0xa4, 0x42}, 32);
}
Bytes geneve(int protocol) {
    return bytes({0, 0, 0x7a, protocol, 0, 0, 0x12, 0}, 60);
}
Bytes initiation() {
    return bytes({1, 0, 0, 0}, 148);
}

class Steer : public TunRoom, public ::testing::WithParamInterface<AttachMethod> {
protected:
    void SetUp() override {
        TunRoom::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        options_.attach = GetParam();
        auto steering = Steering::open(kDevice, options_);
        if (!steering && steering.error().code() == EPERM) // EACCES is the verifier's
            GTEST_SKIP() << "needs the privilege to load BPF programs: " << steering.error().message();
        ASSERT_TRUE(steering) << steering.error().message();
        steering_ = std::make_unique<Steering>(std::move(*steering));
        ASSERT_TRUE(steering_->set_ports({kWireGuardPort, kAgentPort, kAgentPort}));
        ASSERT_TRUE(steering_->set_local_addresses(
            {*IpAddress::parse(kR), *IpAddress::parse(kR6), *IpAddress::parse("127.0.0.1")}));
        auto attached = steering_->set_interfaces({kDevice, "lo", "gone0"});
        if (!attached && GetParam() == AttachMethod::Tcx && attached.error().code() == EINVAL)
            GTEST_SKIP() << "this kernel has no TCX: " << attached.error().message();
        ASSERT_TRUE(attached) << attached.error().message();
        for (int family : {AF_INET, AF_INET6}) {
            Fd& wireguard = family == AF_INET ? wireguard4_ : wireguard6_;
            Fd& agent = family == AF_INET ? agent4_ : agent6_;
            wireguard = udp_socket(family, kWireGuardPort);
            agent = udp_socket(family, kAgentPort);
        }
    }
    void TearDown() override {
        steering_.reset();
        for (Fd* socket : {&wireguard4_, &wireguard6_, &agent4_, &agent6_}) socket->reset();
        (void)Steering::remove(kDevice, options_); // best effort: the namespace goes anyway
        TunRoom::TearDown();
    }

    /// Who gets a datagram to the WireGuard port? "agent", "wireguard" or "nobody".
    std::string taker(const Bytes& payload, const char* from = kA, const char* to = kR) {
        arrive(Packet{from, to}.udp(kWireGuardPort, 41641, payload));
        return taker();
    }
    std::string taker() {
        int agent = received(agent4_) + received(agent6_), wireguard = received(wireguard4_) + received(wireguard6_);
        return agent + wireguard != 1 ? "nobody" : agent ? "agent" : "wireguard";
    }

    SteeringOptions options_;
    std::unique_ptr<Steering> steering_;
    Fd wireguard4_, wireguard6_, agent4_, agent6_;
};

TEST_P(Steer, TheAgentGetsWhatIsNotWireGuards) {
    EXPECT_EQ(taker(disco()), "agent");
    EXPECT_EQ(taker(stun()), "agent");
    EXPECT_EQ(taker(geneve(0x11)), "agent");
    EXPECT_EQ(taker(geneve(0x12)), "agent");
    EXPECT_EQ(taker(disco(), kA6, kR6), "agent");
    EXPECT_EQ(taker(stun(), kA6, kR6), "agent");
    auto counts = steering_->counts();
    ASSERT_TRUE(counts);
    EXPECT_EQ(counts->disco, 2u);
    EXPECT_EQ(counts->stun, 2u);
    EXPECT_EQ(counts->geneve, 2u);
}

TEST_P(Steer, ManyOfARelayServerAtOnceAreTakenApart) {
    Fd sender{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    Bytes many;
    for (int i = 0; i < 3; ++i) {
        Bytes one = geneve(0x12);
        many.insert(many.end(), one.begin(), one.end());
    }
    const int each = static_cast<int>(many.size() / 3);
    ASSERT_EQ(::setsockopt(sender.get(), SOL_UDP, UDP_SEGMENT, &each, sizeof each), 0);
    sockaddr_storage address{};
    socklen_t length = Endpoint{*IpAddress::parse("127.0.0.1"), kWireGuardPort}.to_sockaddr(address);
    ASSERT_EQ(::sendto(sender.get(), many.data(), many.size(), 0, reinterpret_cast<const sockaddr*>(&address), length),
              std::ssize(many));
    EXPECT_EQ(received(agent4_), 3);
    EXPECT_EQ(received(wireguard4_), 0);
    auto counts = steering_->counts();
    ASSERT_TRUE(counts);
    EXPECT_EQ(counts->geneve, 1u) << "seen as one";
}

TEST_P(Steer, WireGuardKeepsItsOwn) {
    EXPECT_EQ(taker(initiation()), "wireguard");
    EXPECT_EQ(taker(initiation(), kA6, kR6), "wireguard");
    EXPECT_EQ(taker(disco(61)), "wireguard");                                       // no room for a nonce
    EXPECT_EQ(taker(bytes({4, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42}, 64)), "wireguard"); // an index that looks like STUN
    EXPECT_EQ(taker(bytes({0, 0, 0x65, 0x58}, 64)), "wireguard");                   // Geneve of something else
    EXPECT_EQ(taker(bytes({1}, 1)), "wireguard");
    Bytes long_stun = stun();
    long_stun[3] = std::byte{0x40}; // says that it goes on behind its end
    EXPECT_EQ(taker(long_stun), "wireguard");
}

TEST_P(Steer, OnlyDatagramsToOurOwnAddressesAreTouched) {
    ASSERT_TRUE(steering_->set_local_addresses({*IpAddress::parse(kR6)}));
    EXPECT_EQ(taker(disco()), "wireguard");
    EXPECT_EQ(taker(disco(), kA6, kR6), "agent");
    ASSERT_TRUE(steering_->set_local_addresses({*IpAddress::parse(kR)}));
    EXPECT_EQ(taker(disco()), "agent");
    EXPECT_EQ(taker(disco(), kA6, kR6), "wireguard");
}

TEST_P(Steer, FragmentsAreLeftAlone) {
    Bytes whole = disco(1000);
    arrive(Packet{kA, kR}.udp(kWireGuardPort, 41641, whole).fragment(0, false)); // not fragmented after all
    EXPECT_EQ(taker(), "agent");
    arrive(Packet{kA, kR}.udp(kWireGuardPort, 41641, whole).fragment(0, true)); // its rest never comes
    EXPECT_EQ(taker(), "nobody");
}

TEST_P(Steer, WithoutAListeningAgentEverythingIsWireGuards) {
    agent4_.reset();
    EXPECT_EQ(taker(disco()), "wireguard");
    auto counts = steering_->counts();
    ASSERT_TRUE(counts);
    EXPECT_EQ(counts->no_socket, 1u);
    agent4_ = udp_socket(AF_INET, kAgentPort);
    EXPECT_EQ(taker(disco()), "agent"); // a new agent on the same port needs nothing else
}

TEST_P(Steer, LoopbackToo) {
    Fd peer = udp_socket(AF_INET, 41641);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = __builtin_bswap16(kWireGuardPort);
    to.sin_addr.s_addr = __builtin_bswap32(0x7f000001);
    Bytes payload = disco();
    ASSERT_GT(::sendto(peer.get(), payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    EXPECT_EQ(taker(), "agent");
}

TEST_P(Steer, DetachedInterfacesAreLeftAlone) {
    ASSERT_TRUE(steering_->set_interfaces({"lo"}));
    run("sleep 0.05"); // a link goes a moment after its pin
    EXPECT_EQ(taker(disco()), "wireguard");
    ASSERT_TRUE(steering_->set_interfaces({"lo", kDevice}));
    EXPECT_EQ(taker(disco()), "agent");
}

TEST_P(Steer, ARestartedAgentFindsItsProgramsAtWork) {
    steering_.reset();
    EXPECT_EQ(taker(disco()), "agent");
    auto next = Steering::open(kDevice, options_);
    ASSERT_TRUE(next) << next.error().message();
    steering_ = std::make_unique<Steering>(std::move(*next));
    ASSERT_TRUE(steering_->set_interfaces({kDevice, "lo"}));
    EXPECT_EQ(taker(disco()), "agent");
    EXPECT_EQ(steering_->counts()->disco, 2u);
}

INSTANTIATE_TEST_SUITE_P(Methods, Steer, ::testing::Values(AttachMethod::Tcx, AttachMethod::Clsact),
                         [](const auto& info) { return info.param == AttachMethod::Tcx ? "Tcx" : "Clsact"; });

} // namespace
} // namespace tailrace::test
