// WireGuard's datagrams to some peers leave from another port, the answers come back, and nobody else notices.
#include "agent/dataplane/steering.hpp"
#include "tests/bpf/tun_room.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>

namespace tailrace::test {
namespace {

constexpr std::uint16_t kWireGuardPort = 51820, kMovedPort = 50001, kAgentPort = 40123, kPeerPort = 4500;

Bytes bytes(std::initializer_list<int> start, std::size_t size) {
    Bytes out;
    for (int value : start) out.push_back(static_cast<std::byte>(value));
    out.resize(size, std::byte{0x55});
    return out;
}
Bytes wireguard() {
    return bytes({4, 0, 0, 0}, 148);
}
Bytes disco() {
    return bytes({0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac}, 98);
}

/// An IPv4 UDP packet as it left.
struct Left {
    std::uint16_t src_port = 0, dst_port = 0;
    std::string to;
    bool right_checksum = false;
    std::size_t payload_bytes = 0;
};
std::uint16_t be16(const Bytes& packet, std::size_t at) {
    return static_cast<std::uint16_t>(static_cast<int>(packet[at]) << 8 | static_cast<int>(packet[at + 1]));
}
Left read_udp(const Bytes& packet) {
    Left out;
    out.to = IpAddress::from_bytes(BytesView{packet}.subspan(16, 4)).text();
    out.src_port = be16(packet, 20);
    out.dst_port = be16(packet, 22);
    out.payload_bytes = packet.size() - 28;
    std::uint32_t sum = 17 + static_cast<std::uint32_t>(packet.size() - 20); // pseudo header
    for (std::size_t at = 12; at + 1 < packet.size(); at += 2) sum += be16(packet, at);
    if (packet.size() % 2 != 0) sum += static_cast<std::uint32_t>(packet.back()) << 8;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    out.right_checksum = sum == 0xffff;
    return out;
}

class Move : public TunRoom, public ::testing::WithParamInterface<AttachMethod> {
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
        ASSERT_TRUE(steering_->set_local_addresses({*IpAddress::parse(kR), *IpAddress::parse(kR6)}));
        auto attached = steering_->set_interfaces({kDevice, "lo"});
        if (!attached && GetParam() == AttachMethod::Tcx && attached.error().code() == EINVAL)
            GTEST_SKIP() << "this kernel has no TCX: " << attached.error().message();
        ASSERT_TRUE(attached) << attached.error().message();
        wireguard_ = udp_socket(AF_INET, kWireGuardPort);
        other_ = udp_socket(AF_INET, kWireGuardPort + 1);
        agent_ = udp_socket(AF_INET, kAgentPort);
        moved_ = udp_socket(AF_INET, kMovedPort);
        ASSERT_TRUE(steering_->set_moves({peer_}));
        while (depart()) {
        } // what the kernel says of itself
    }
    void TearDown() override {
        steering_.reset();
        (void)Steering::remove(kDevice, options_); // best effort: the namespace goes anyway
        TunRoom::TearDown();
    }
    static void send(const Fd& socket, const char* to, std::uint16_t port, const Bytes& payload) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        ASSERT_EQ(::inet_pton(AF_INET, to, &address.sin_addr), 1);
        ASSERT_EQ(::sendto(socket.get(), payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&address),
                           sizeof address),
                  static_cast<ssize_t>(payload.size()))
            << std::strerror(errno);
    }
    /// The next IPv4 UDP packet that left.
    std::optional<Left> left() {
        while (auto packet = depart())
            if (packet->size() >= 28 && (*packet)[0] == std::byte{0x45} && (*packet)[9] == std::byte{17})
                return read_udp(*packet);
        return std::nullopt;
    }
    std::string taker() {
        std::string out;
        for (auto [name, socket] : {std::pair{"wireguard", &wireguard_}, {"agent", &agent_}, {"moved", &moved_}})
            for (int i = received(*socket); i > 0; --i) out += std::string(out.empty() ? "" : " ") + name;
        return out;
    }

    SteeringOptions options_;
    PortMove peer_{{*IpAddress::parse(kA), kPeerPort}, kMovedPort};
    std::unique_ptr<Steering> steering_;
    Fd wireguard_, other_, agent_, moved_;
};

TEST_P(Move, WireGuardsDatagramsToThePeerLeaveFromTheOtherPort) {
    for (std::size_t size : {32u, 33u, 148u, 1400u}) {
        send(wireguard_, kA, kPeerPort, bytes({4, 0, 0, 0}, size));
        auto packet = left();
        ASSERT_TRUE(packet);
        EXPECT_EQ(packet->src_port, kMovedPort);
        EXPECT_EQ(packet->dst_port, kPeerPort);
        EXPECT_EQ(packet->payload_bytes, size);
        EXPECT_TRUE(packet->right_checksum) << size;
    }
}

TEST_P(Move, SegmentsThatTheKernelCutsLaterToo) {
    int segment = 500;
    ASSERT_EQ(::setsockopt(wireguard_.get(), SOL_UDP, UDP_SEGMENT, &segment, sizeof segment), 0)
        << std::strerror(errno);
    send(wireguard_, kB, kPeerPort, bytes({4, 0, 0, 0}, 1250));
    while (auto packet = left()) EXPECT_TRUE(packet->right_checksum) << "of what is not moved";
    send(wireguard_, kA, kPeerPort, bytes({4, 0, 0, 0}, 1250));
    std::vector<std::size_t> sizes;
    while (auto packet = left()) {
        EXPECT_EQ(packet->src_port, kMovedPort);
        EXPECT_TRUE(packet->right_checksum);
        sizes.push_back(packet->payload_bytes);
    }
    EXPECT_EQ(sizes, (std::vector<std::size_t>{500, 500, 250}));
}

TEST_P(Move, OtherDatagramsLeaveAsTheyAre) {
    send(wireguard_, kB, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kWireGuardPort); // another peer
    send(wireguard_, kA, kPeerPort + 1, wireguard());
    EXPECT_EQ(left()->src_port, kWireGuardPort);
    send(other_, kA, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kWireGuardPort + 1); // not WireGuard's
    ASSERT_TRUE(steering_->set_local_addresses({*IpAddress::parse(kR6)}));
    send(wireguard_, kA, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kWireGuardPort) << "forwarded for somebody else";
}

TEST_P(Move, AnswersReachWireGuardAndTheAgent) {
    arrive(Packet{kA, kR}.udp(kMovedPort, kPeerPort, wireguard()));
    EXPECT_EQ(taker(), "wireguard"); // the kernel drops what has a wrong checksum
    arrive(Packet{kA, kR}.udp(kMovedPort, kPeerPort, disco()));
    EXPECT_EQ(taker(), "agent");
    arrive(Packet{kA, kR}.udp(kWireGuardPort, kPeerPort, wireguard()));
    EXPECT_EQ(taker(), "wireguard") << "the port itself is open still";
}

TEST_P(Move, OtherArrivalsStayWhereTheyGo) {
    arrive(Packet{kB, kR}.udp(kMovedPort, kPeerPort, wireguard()));
    EXPECT_EQ(taker(), "moved");
    arrive(Packet{kA, kR}.udp(kMovedPort, kPeerPort + 1, wireguard()));
    EXPECT_EQ(taker(), "moved");
    ASSERT_TRUE(steering_->set_local_addresses({*IpAddress::parse(kR6)}));
    arrive(Packet{kA, kR}.udp(kMovedPort, kPeerPort, wireguard()));
    EXPECT_EQ(taker(), "moved") << "to an address that is not known as ours";
}

TEST_P(Move, FragmentsOfAnAnswerStayTogether) {
    Packet whole = Packet{kA, kR}.udp(kMovedPort, kPeerPort, bytes({4, 0, 0, 0}, 1000));
    Bytes packet = whole.bytes();
    auto piece = [&](std::size_t from, std::size_t to, bool more) {
        Bytes out(packet.begin(), packet.begin() + 20);
        out.insert(out.end(), packet.begin() + 20 + static_cast<long>(from),
                   packet.begin() + 20 + static_cast<long>(to));
        out[2] = static_cast<std::byte>(out.size() >> 8);
        out[3] = static_cast<std::byte>(out.size());
        out[6] = static_cast<std::byte>((more ? 0x20 : 0) | (from / 8) >> 8);
        out[7] = static_cast<std::byte>(from / 8);
        out[10] = out[11] = std::byte{0};
        std::uint32_t sum = 0;
        for (std::size_t at = 0; at < 20; at += 2) sum += be16(out, at);
        while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
        out[10] = static_cast<std::byte>(~sum >> 8);
        out[11] = static_cast<std::byte>(~sum);
        return out;
    };
    arrive(piece(0, 504, true));
    arrive(piece(504, 1008, false));
    EXPECT_EQ(taker(), "wireguard");
}

TEST_P(Move, NothingIsMovedAfterTheEnd) {
    ASSERT_TRUE(steering_->set_moves({}));
    EXPECT_TRUE(steering_->moves()->empty());
    send(wireguard_, kA, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kWireGuardPort);
    arrive(Packet{kA, kR}.udp(kMovedPort, kPeerPort, wireguard()));
    EXPECT_EQ(taker(), "moved");
}

TEST_P(Move, ARestartedAgentFindsThemInForce) {
    steering_.reset();
    send(wireguard_, kA, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kMovedPort) << "without an agent";
    auto next = Steering::open(kDevice, options_);
    ASSERT_TRUE(next) << next.error().message();
    steering_ = std::make_unique<Steering>(std::move(*next));
    ASSERT_TRUE(steering_->set_ports({kWireGuardPort, kAgentPort, kAgentPort}));
    ASSERT_TRUE(steering_->set_interfaces({kDevice, "lo"}));
    EXPECT_EQ(*steering_->moves(), std::vector{peer_});
    send(wireguard_, kA, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kMovedPort);
    arrive(Packet{kA, kR}.udp(kMovedPort, kPeerPort, wireguard()));
    EXPECT_EQ(taker(), "wireguard");
}

TEST_P(Move, AnotherSchemaGoesOnWithThem) {
    steering_.reset();
    SteeringOptions newer = options_;
    ++newer.schema;
    auto next = Steering::open(kDevice, newer);
    ASSERT_TRUE(next) << next.error().message();
    EXPECT_EQ(*next->moves(), std::vector{peer_});
    send(wireguard_, kA, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kMovedPort) << "the older programs are at work still";
    ASSERT_TRUE(next->set_ports({kWireGuardPort, kAgentPort, kAgentPort}));
    ASSERT_TRUE(next->set_local_addresses({*IpAddress::parse(kR), *IpAddress::parse(kR6)}));
    ASSERT_TRUE(next->set_interfaces({kDevice, "lo"}));
    EXPECT_FALSE(PinDirectory::named(options_.bpffs, std::string{kDevice} + "-steer", options_.schema).get("tr_moves"))
        << "nothing is left of the older ones";
    send(wireguard_, kA, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kMovedPort);
    arrive(Packet{kA, kR}.udp(kMovedPort, kPeerPort, wireguard()));
    EXPECT_EQ(taker(), "wireguard");
    ASSERT_TRUE(next->set_moves({}));
    send(wireguard_, kA, kPeerPort, wireguard());
    EXPECT_EQ(left()->src_port, kWireGuardPort);
    options_ = newer; // for whoever cleans up
}

TEST_P(Move, OnlyIPv4IsMoved) {
    EXPECT_FALSE(steering_->set_moves({{{*IpAddress::parse(kA6), kPeerPort}, kMovedPort}}));
}

INSTANTIATE_TEST_SUITE_P(Methods, Move, ::testing::Values(AttachMethod::Tcx, AttachMethod::Clsact),
                         [](const auto& info) { return info.param == AttachMethod::Tcx ? "Tcx" : "Clsact"; });

} // namespace
} // namespace tailrace::test
