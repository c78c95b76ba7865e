// The guard: what it lets to WireGuard's port, what it drops and as what, and on which interfaces it sits.
#include "agent/dataplane/guard.hpp"
#include "agent/dataplane/xdp_link.hpp"
#include "tests/bpf/tun_room.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <time.h>

#include <cerrno>
#include <memory>

namespace tailrace::test {
namespace {

constexpr std::uint16_t kPort = 41641, kPeerPort = 4500;
constexpr const char* kHere = "203.0.113.5";
constexpr const char* kHere6 = "2001:db8::5";
constexpr const char* kPeer = "198.51.100.1";
constexpr const char* kPeer6 = "2001:db8:1::1";
constexpr const char* kStranger = "198.51.100.77";
constexpr const char* kStranger6 = "2001:db8:1::77";

Bytes bytes(std::initializer_list<int> start, std::size_t size) {
    Bytes out;
    for (int value : start) out.push_back(static_cast<std::byte>(value));
    out.resize(size, std::byte{0x55});
    return out;
}
Bytes wireguard(int type, std::size_t size) {
    return bytes({type, 0, 0, 0}, size);
}
Bytes initiation() {
    return wireguard(1, 148);
}
Bytes disco() {
    return bytes({0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac}, 98);
}
Bytes stun() {
    return bytes({0x01, 0x01, 0x00, 0x0c, 0x21, 0x12, 0xa4, 0x42}, 32);
}

/// With an Ethernet header, and tags behind it.
Bytes framed(const Bytes& packet, std::initializer_list<int> tags = {}) {
    Bytes out(12, std::byte{2});
    auto be16 = [&](int value) {
        out.push_back(static_cast<std::byte>(value >> 8));
        out.push_back(static_cast<std::byte>(value));
    };
    for (int tag : tags) {
        be16(tag);
        be16(7);
    }
    be16(std::to_integer<int>(packet[0]) >> 4 == 6 ? 0x86dd : 0x0800);
    out.insert(out.end(), packet.begin(), packet.end());
    return out;
}

class GuardTest : public TunRoom {
protected:
    void SetUp() override {
        TunRoom::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        open();
        if (IsSkipped() || HasFatalFailure()) return;
        // A second between two of them, which no machine is too slow for: what is not in the burst does not pass.
        ASSERT_TRUE(guard_->set_port(kPort, {1, 3}));
        ASSERT_TRUE(guard_->set_local_addresses({*IpAddress::parse(kHere), *IpAddress::parse(kHere6)}));
        auto told =
            guard_->set_endpoints({{*IpAddress::parse(kPeer), kPeerPort}, {*IpAddress::parse(kPeer6), kPeerPort}});
        ASSERT_TRUE(told) << told.error().message();
        ASSERT_EQ(*told, 0u);
    }
    void TearDown() override {
        guard_.reset();
        (void)Guard::remove(kDevice, options_); // best effort: the namespace goes anyway
        TunRoom::TearDown();
    }
    void open() {
        auto guard = Guard::open(kDevice, options_);
        if (!guard && guard.error().code() == EPERM) // EACCES is the verifier's
            GTEST_SKIP() << "needs the privilege to load BPF programs: " << guard.error().message();
        ASSERT_TRUE(guard) << guard.error().message();
        guard_ = std::make_unique<Guard>(std::move(*guard));
        auto pins = PinDirectory::open(options_.bpffs, std::string{kDevice} + "-guard", options_.schema);
        ASSERT_TRUE(pins);
        program_ = pins->get("guard");
        budget_ = pins->get("tr_guard_budget");
        ASSERT_TRUE(program_ && budget_);
    }

    std::map<std::string, std::uint64_t> counts() {
        std::map<std::string, std::uint64_t> out;
        auto found = guard_->counts();
        EXPECT_TRUE(found);
        if (found)
            for (const GuardCount& count : *found)
                if (count.counter.packets) out[(count.passes ? "pass " : "drop ") + count.name] = count.counter.packets;
        return out;
    }
    /// "pass" of what is none of its business, else verdict and reason. One that says and does two things is "wrong".
    std::string verdict(const Bytes& frame) {
        auto before = counts();
        Bytes in = frame, returned(in.size() + 64);
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.data_in = in.data();
        options.data_size_in = static_cast<std::uint32_t>(in.size());
        options.data_out = returned.data();
        options.data_size_out = static_cast<std::uint32_t>(returned.size());
        options.repeat = 1;
        if (int failed = ::bpf_prog_test_run_opts(program_.get(), &options))
            return "test run: " + std::to_string(failed);
        std::string did = options.retval == XDP_PASS ? "pass" : options.retval == XDP_DROP ? "drop" : "neither", said;
        for (const auto& [name, count] : counts())
            if (count != before[name]) said += name;
        returned.resize(options.data_size_out);
        if (returned != in) return "changed";
        if (said.empty()) return did;
        return said.starts_with(did) ? said : "wrong: " + did + ", but counted as " + said;
    }
    std::string of(const Packet& packet) { return verdict(framed(packet.bytes())); }
    std::string from_stranger(const Bytes& payload) { return of(Packet{kStranger, kHere}.udp(kPort, 12345, payload)); }
    std::string from_stranger6(const Bytes& payload) {
        return of(Packet{kStranger6, kHere6}.udp(kPort, 12345, payload));
    }
    std::string from_peer(const Bytes& payload) { return of(Packet{kPeer, kHere}.udp(kPort, kPeerPort, payload)); }
    void exhaust() {
        timespec now{};
        ::clock_gettime(CLOCK_MONOTONIC, &now);
        std::uint64_t never = (static_cast<std::uint64_t>(now.tv_sec) + 3600) * 1'000'000'000;
        for (std::uint32_t which : {TR_BUDGET_INITIATIONS, TR_BUDGET_ANSWERS})
            ASSERT_EQ(::bpf_map_update_elem(budget_.get(), &which, &never, BPF_ANY), 0);
    }

    GuardOptions options_;
    std::unique_ptr<Guard> guard_;
    Fd program_, budget_;
};

TEST_F(GuardTest, EverythingThatIsSpokenOnThePortPasses) {
    EXPECT_EQ(from_stranger(initiation()), "pass new-handshake");
    EXPECT_EQ(from_stranger(wireguard(2, 92)), "pass new-handshake");
    EXPECT_EQ(from_stranger(wireguard(3, 64)), "pass new-handshake");
    EXPECT_EQ(from_stranger(wireguard(4, 32)), "pass data");
    EXPECT_EQ(from_stranger(wireguard(4, 33)), "pass data");
    EXPECT_EQ(from_stranger(wireguard(4, 1452)), "pass data");
    EXPECT_EQ(from_stranger(disco()), "pass disco");
    EXPECT_EQ(from_stranger(stun()), "pass stun");
    EXPECT_EQ(from_stranger(bytes({0, 0, 0x7a, 0x11, 0, 0, 0x12, 0}, 60)), "pass geneve");
    EXPECT_EQ(from_stranger(bytes({0, 0, 0x7a, 0x12, 0, 0, 0x12, 0}, 60)), "pass geneve");
}

TEST_F(GuardTest, NothingElsePasses) {
    for (std::size_t size : {0u, 1u, 7u, 8u, 148u, 1400u})
        EXPECT_EQ(from_stranger(bytes({0x55}, size)), "drop not-wireguard") << size;
    EXPECT_EQ(from_stranger(wireguard(0, 148)), "drop not-wireguard");
    EXPECT_EQ(from_stranger(wireguard(5, 148)), "drop not-wireguard");
    EXPECT_EQ(from_stranger(bytes({1, 0, 0, 1}, 148)), "drop not-wireguard"); // a type of four bytes
    EXPECT_EQ(from_stranger(bytes({0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac}, 61)), "drop not-wireguard");
    EXPECT_EQ(from_stranger(bytes({0, 0, 0x65, 0x58, 0, 0, 0, 0}, 60)), "drop not-wireguard");
    Bytes long_stun = stun();
    long_stun[3] = std::byte{0x40};
    EXPECT_EQ(from_stranger(long_stun), "drop not-wireguard");
    EXPECT_EQ(from_peer(bytes({0x55}, 148)), "drop not-wireguard") << "a peer has no more to say than that, either";
}

TEST_F(GuardTest, AMessageHasTheLengthOfItsType) {
    for (auto [type, right] : {std::pair{1, 148}, {2, 92}, {3, 64}})
        for (int off : {-1, 1, 100}) {
            std::string expected = "drop wrong-length";
            EXPECT_EQ(from_stranger(wireguard(type, static_cast<std::size_t>(right + off))), expected) << type << off;
            EXPECT_EQ(from_peer(wireguard(type, static_cast<std::size_t>(right + off))), expected) << type << off;
        }
    EXPECT_EQ(from_stranger(wireguard(1, 8)), "drop wrong-length");
    EXPECT_EQ(from_stranger(wireguard(4, 31)), "drop wrong-length");
}

TEST_F(GuardTest, UnknownSourcesShareOneBudget) {
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(of(Packet{"198.51.100." + std::to_string(100 + i), kHere}.udp(kPort, 1000, initiation())),
                  "pass new-handshake");
    EXPECT_EQ(of(Packet{"198.51.100.200", kHere}.udp(kPort, 1000, initiation())), "drop initiations");
    EXPECT_EQ(from_stranger6(initiation()), "drop initiations");
    EXPECT_EQ(from_peer(initiation()), "pass peer-handshake");
    EXPECT_EQ(of(Packet{kPeer6, kHere6}.udp(kPort, kPeerPort, initiation())), "pass peer-handshake");
    // An endpoint is an address and a port.
    EXPECT_EQ(of(Packet{kPeer, kHere}.udp(kPort, kPeerPort + 1, initiation())), "drop initiations");
    EXPECT_EQ(of(Packet{kPeer6, kHere6}.udp(kPort, kPeerPort + 1, initiation())), "drop initiations");
}

TEST_F(GuardTest, AFloodOfInitiationsTakesNoAnswersAway) {
    for (int i = 0; i < 100; ++i) from_stranger(initiation());
    for (int i = 0; i < 3; ++i) EXPECT_EQ(from_stranger(wireguard(2 + i % 2, i % 2 ? 64 : 92)), "pass new-handshake");
    EXPECT_EQ(from_stranger(wireguard(2, 92)), "drop answers");
    EXPECT_EQ(from_stranger(wireguard(3, 64)), "drop answers");
    EXPECT_EQ(from_peer(wireguard(2, 92)), "pass peer-handshake");
    EXPECT_EQ(from_peer(wireguard(3, 64)), "pass peer-handshake");
}

TEST_F(GuardTest, WithoutBudgetAllElseStillPasses) {
    exhaust();
    EXPECT_EQ(from_stranger(initiation()), "drop initiations");
    EXPECT_EQ(from_stranger(wireguard(2, 92)), "drop answers");
    EXPECT_EQ(from_stranger(wireguard(4, 32)), "pass data") << "a peer that roams";
    EXPECT_EQ(from_stranger(disco()), "pass disco");
    EXPECT_EQ(from_stranger(stun()), "pass stun");
    EXPECT_EQ(from_peer(initiation()), "pass peer-handshake");
}

TEST_F(GuardTest, ABudgetFillsUpAgain) {
    ASSERT_TRUE(guard_->set_port(kPort, {100, 2}));
    auto passed = [&] { return from_stranger(initiation()) == "pass new-handshake"; };
    int early = 0;
    while (passed()) ++early;
    EXPECT_GE(early, 2);
    run("sleep 0.2"); // ten times an interval and more
    EXPECT_TRUE(passed());
    EXPECT_TRUE(passed());
}

TEST_F(GuardTest, EndpointsComeAndGo) {
    exhaust();
    Endpoint moved{*IpAddress::parse(kStranger), 12345};
    ASSERT_TRUE(guard_->add_endpoint(moved));
    EXPECT_EQ(from_stranger(initiation()), "pass peer-handshake");
    EXPECT_EQ(from_peer(initiation()), "pass peer-handshake");
    ASSERT_TRUE(guard_->set_endpoints({moved}));
    EXPECT_EQ(from_stranger(initiation()), "pass peer-handshake");
    EXPECT_EQ(from_peer(initiation()), "drop initiations");
    ASSERT_TRUE(guard_->set_endpoints({}));
    EXPECT_EQ(from_stranger(initiation()), "drop initiations");
}

TEST_F(GuardTest, MoreEndpointsThanThereIsRoomForAreCounted) {
    std::vector<Endpoint> many;
    for (std::uint32_t i = 0; i < TR_GUARD_PEERS + 5; ++i) many.push_back({IpAddress::v4(0x0a000000 + i), 41641});
    auto left_out = guard_->set_endpoints(many);
    ASSERT_TRUE(left_out) << left_out.error().message();
    EXPECT_EQ(*left_out, 5u);
    exhaust();
    EXPECT_EQ(of(Packet{"10.0.0.0", kHere}.udp(kPort, 41641, initiation())), "pass peer-handshake");
    ASSERT_TRUE(guard_->set_endpoints({many.back()}));
    EXPECT_EQ(of(Packet{"10.0.128.4", kHere}.udp(kPort, 41641, initiation())), "pass peer-handshake");
    EXPECT_EQ(of(Packet{"10.0.0.0", kHere}.udp(kPort, 41641, initiation())), "drop initiations");
}

TEST_F(GuardTest, WhatIsNotForOurPortAtOurAddressIsNotLookedAt) {
    exhaust();
    EXPECT_EQ(of(Packet{kStranger, kHere}.udp(kPort + 1, 1, initiation())), "pass");
    EXPECT_EQ(of(Packet{kStranger, "203.0.113.6"}.udp(kPort, 1, initiation())), "pass") << "it is forwarded";
    EXPECT_EQ(of(Packet{kStranger6, "2001:db8::6"}.udp(kPort, 1, initiation())), "pass");
    EXPECT_EQ(of(Packet{kStranger, kHere}.tcp(kPort, kSyn)), "pass");
    EXPECT_EQ(of(Packet{kStranger, kHere}.icmp(8)), "pass");
    EXPECT_EQ(of(Packet{kStranger, kHere}.udp(1, kPort, initiation())), "pass") << "from such a port";
    ASSERT_TRUE(guard_->set_local_addresses({*IpAddress::parse(kHere6)}));
    EXPECT_EQ(from_stranger(initiation()), "pass");
    EXPECT_EQ(from_stranger6(initiation()), "drop initiations");
    ASSERT_TRUE(guard_->set_port(0, {}));
    EXPECT_EQ(from_stranger6(initiation()), "pass");
    EXPECT_EQ(from_stranger6(bytes({0x55}, 100)), "pass");
}

TEST_F(GuardTest, TagsAndOptionsAreReadOver) {
    exhaust();
    Packet forged = Packet{kStranger, kHere}.udp(kPort, 1, initiation());
    Packet forged6 = Packet{kStranger6, kHere6}.udp(kPort, 1, initiation());
    for (const Packet& packet : {forged, forged6}) {
        EXPECT_EQ(verdict(framed(packet.bytes(), {0x8100})), "drop initiations");
        EXPECT_EQ(verdict(framed(packet.bytes(), {0x88a8, 0x8100})), "drop initiations");
        EXPECT_EQ(verdict(framed(packet.bytes(), {0x8100, 0x8100, 0x8100})), "pass") << "too deep for anybody here";
    }
    for (std::size_t options : {4u, 8u, 40u}) EXPECT_EQ(of(forged.options(options)), "drop initiations") << options;
    for (std::uint8_t header : {0, 43, 60}) EXPECT_EQ(of(forged6.extension(header)), "drop initiations") << int{header};
    EXPECT_EQ(of(forged6.extension(60).extension(43).extension(0)), "drop initiations");
    EXPECT_EQ(of(forged6.extension(51)), "pass") << "authenticated by somebody else";
    Packet deep = forged6;
    for (int i = 0; i < 8; ++i) deep = deep.extension(60);
    EXPECT_EQ(of(deep), "drop initiations");
    EXPECT_EQ(of(deep.extension(60)), "drop headers");
    EXPECT_EQ(of(Packet{kStranger6, "2001:db8::6"}.udp(kPort, 1, initiation()).extension(60)), "pass");
}

TEST_F(GuardTest, FragmentsPassUnlessTheyTogetherAreAHandshake) {
    exhaust();
    Packet data = Packet{kStranger, kHere}.udp(kPort, 1, wireguard(4, 1000));
    EXPECT_EQ(of(data.fragment(0, true)), "pass fragment");
    EXPECT_EQ(of(data.fragment(3, false)), "pass");
    EXPECT_EQ(of(data.fragment(0, false)), "pass data") << "one of one";
    Packet forged = Packet{kStranger, kHere}.udp(kPort, 1, initiation());
    EXPECT_EQ(of(forged.cut_transport(16).fragment(0, true)), "drop initiations");
    EXPECT_EQ(of(forged.cut_transport(8).fragment(0, true)), "drop initiations");
    EXPECT_EQ(of(Packet{kPeer, kHere}.udp(kPort, kPeerPort, initiation()).cut_transport(16).fragment(0, true)),
              "pass peer-handshake");
    Packet forged6 = Packet{kStranger6, kHere6}.udp(kPort, 1, initiation());
    EXPECT_EQ(of(forged6.cut_transport(16).fragment(0, true)), "drop initiations");
    EXPECT_EQ(of(forged6.fragment(0, false)), "drop initiations") << "a fragment header, and no fragment";
    EXPECT_EQ(of(forged6.fragment(2, false)), "pass");
    EXPECT_EQ(of(Packet{kStranger6, kHere6}.udp(kPort, 1, wireguard(4, 1000)).fragment(0, true)), "pass fragment");
}

TEST_F(GuardTest, WhatIsShorterThanItSaysIsLeftToTheKernel) {
    exhaust();
    for (const Packet& forged : {Packet{kStranger, kHere}.udp(kPort, 1, initiation()),
                                 Packet{kStranger6, kHere6}.udp(kPort, 1, initiation())}) {
        Bytes whole = framed(forged.bytes());
        EXPECT_EQ(verdict(whole), "drop initiations");
        for (std::size_t size = whole.size() - 1; size >= 14; --size)
            EXPECT_EQ(verdict(Bytes(whole.begin(), whole.begin() + static_cast<long>(size))), "pass") << size;
        whole.resize(whole.size() + 6); // padding is no part of it
        EXPECT_EQ(verdict(whole), "drop initiations");
    }
    // A datagram that claims more than its packet has.
    EXPECT_EQ(of(Packet{kStranger, kHere}.udp(kPort, 1, initiation()).cut_transport(100)), "pass");
    Bytes bad = framed(Packet{kStranger, kHere}.udp(kPort, 1, initiation()).bytes());
    bad[14] = std::byte{0x44}; // a header of sixteen bytes
    EXPECT_EQ(verdict(bad), "pass");
    bad[14] = std::byte{0x65}; // of another version
    EXPECT_EQ(verdict(bad), "pass");
    for (const Packet& forged :
         {Packet{kStranger, kHere}.udp(kPort, 1, initiation()), Packet{kStranger6, kHere6}.udp(kPort, 1, initiation()),
          Packet{kStranger6, kHere6}.udp(kPort, 1, initiation()).extension(60)}) {
        Bytes too_long = framed(forged.bytes());
        too_long[too_long.size() - initiation().size() - 3] = std::byte(8 + initiation().size() + 1);
        EXPECT_EQ(verdict(too_long), "pass") << "the datagram ends behind its packet";
    }
    Bytes no_udp_length = framed(Packet{kStranger, kHere}.udp(kPort, 1, initiation()).bytes());
    no_udp_length[14 + 20 + 4] = no_udp_length[14 + 20 + 5] = std::byte{0};
    EXPECT_EQ(verdict(no_udp_length), "pass");
}

class GuardOnInterfaces : public GuardTest {
protected:
    void SetUp() override {
        GuardTest::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        ASSERT_EQ(run("ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up"), 0);
    }
    /// The number of the program in the driver, 0 for none.
    static std::uint32_t program_on(const char* interface) {
        std::uint32_t id = 0;
        (void)::bpf_xdp_query_id(static_cast<int>(::if_nametoindex(interface)), XDP_FLAGS_DRV_MODE, &id);
        return id;
    }
    static bool has_program(const char* interface) { return program_on(interface) != 0; }
    /// A link goes a moment after its pin.
    static bool loses_program(const char* interface) {
        for (int tries = 0; has_program(interface) && tries < 100; ++tries) run("sleep 0.02");
        return !has_program(interface);
    }
    std::vector<Guard::Refusal> attach(const std::vector<std::string>& names) {
        auto refusals = guard_->set_interfaces(names);
        EXPECT_TRUE(refusals) << refusals.error().message();
        return refusals ? *refusals : std::vector<Guard::Refusal>{};
    }
};

TEST_F(GuardOnInterfaces, ItSitsInDriversOnly) {
    EXPECT_TRUE(attach({"v0", "gone0"}).empty());
    EXPECT_TRUE(has_program("v0"));
    EXPECT_EQ(guard_->interfaces(), 1u);
    auto refused = attach({"v0", "lo"});
    ASSERT_EQ(refused.size(), 1u);
    EXPECT_EQ(refused[0].interface, "lo");
    EXPECT_EQ(refused[0].why, "its driver takes no XDP programs");
    EXPECT_TRUE(guard_->is_in_place());
    EXPECT_TRUE(attach({}).empty());
    EXPECT_TRUE(loses_program("v0"));
}

TEST_F(GuardOnInterfaces, AnotherProgramStays) {
    GuardOptions other = options_;
    auto theirs = Guard::open("other0", other);
    ASSERT_TRUE(theirs);
    ASSERT_TRUE(theirs->set_interfaces({"v0"}));
    auto refused = attach({"v0", "v1"});
    ASSERT_EQ(refused.size(), 1u);
    EXPECT_EQ(refused[0], (Guard::Refusal{"v0", "another XDP program is there"}));
    EXPECT_EQ(guard_->interfaces(), 1u);
    ASSERT_TRUE(Guard::remove("other0", other));
    EXPECT_TRUE(loses_program("v0"));
    EXPECT_TRUE(attach({"v0", "v1"}).empty());
}

TEST_F(GuardOnInterfaces, ARestartedAgentFindsItAtWork) {
    attach({"v0"});
    exhaust();
    EXPECT_EQ(from_stranger(initiation()), "drop initiations");
    guard_.reset();
    EXPECT_TRUE(has_program("v0"));
    std::uint32_t before = program_on("v0");
    open();
    EXPECT_TRUE(attach({"v0"}).empty());
    EXPECT_NE(before, 0u);
    EXPECT_EQ(program_on("v0"), before) << "adopted";
    EXPECT_EQ(counts()["drop initiations"], 1u);
    EXPECT_EQ(from_peer(initiation()), "pass peer-handshake") << "as the agent before knew";
    ASSERT_TRUE(guard_->set_endpoints({}));
    EXPECT_EQ(from_peer(initiation()), "drop initiations");
}

TEST_F(GuardOnInterfaces, WhatSomebodyTookAwayIsPutBack) {
    attach({"v0"});
    EXPECT_TRUE(guard_->is_in_place());
    ASSERT_EQ(run("rm -f /sys/fs/bpf/tailrace/v*/trtest0-guard@*/guard_link_*"), 0);
    EXPECT_TRUE(loses_program("v0"));
    EXPECT_FALSE(guard_->is_in_place());
    EXPECT_TRUE(attach({"v0"}).empty());
    EXPECT_TRUE(guard_->is_in_place());
    EXPECT_TRUE(has_program("v0"));
}

TEST_F(GuardOnInterfaces, AnInterfaceThatGoesAndComesIsGuardedAgain) {
    attach({"v0"});
    ASSERT_EQ(run("ip link del v0"), 0);
    EXPECT_TRUE(guard_->is_in_place()) << "nothing to do for what is not there";
    EXPECT_TRUE(attach({"v0"}).empty());
    ASSERT_EQ(run("ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up"), 0);
    EXPECT_TRUE(attach({"v0"}).empty());
    EXPECT_TRUE(has_program("v0"));
}

TEST_F(GuardOnInterfaces, AnotherSchemasPlaceIsTaken) {
    attach({"v0"});
    guard_.reset();
    options_.schema = TR_SCHEMA_VERSION + 1;
    open();
    ASSERT_TRUE(has_program("v0"));
    EXPECT_TRUE(attach({"v0"}).empty());
    EXPECT_TRUE(has_program("v0"));
    EXPECT_NE(run("ls /sys/fs/bpf/tailrace/v" + std::to_string(TR_SCHEMA_VERSION) +
                  "/trtest0-guard@$(stat -L -c %i /proc/self/ns/net)"),
              0);
    guard_.reset();
    ASSERT_TRUE(Guard::remove(kDevice, options_));
    EXPECT_TRUE(loses_program("v0"));
}

TEST_F(GuardOnInterfaces, RemovedMeansGone) {
    attach({"v0", "v1"});
    guard_.reset();
    ASSERT_TRUE(Guard::remove(kDevice, options_));
    EXPECT_TRUE(loses_program("v0"));
    EXPECT_TRUE(loses_program("v1"));
    EXPECT_NE(run("ls -d /sys/fs/bpf/tailrace/v*/trtest0-guard@$(stat -L -c %i /proc/self/ns/net)"), 0);
    ASSERT_TRUE(Guard::remove(kDevice, options_)) << "once more is no error";
}

} // namespace
} // namespace tailrace::test
