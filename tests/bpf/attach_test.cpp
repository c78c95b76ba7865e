// The filter on a real device: what it lets through arrives at a socket, and it works on while nobody looks after it.
#include "agent/dataplane/dataplane.hpp"
#include "tests/bpf/tun_room.hpp"

#include <bpf/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <thread>

namespace tailrace::test {
namespace {

FilterInput allow(std::vector<std::string> sources, PortRange ports) {
    FilterInput input;
    input.rules = {FilterRule{std::move(sources), {FilterDestination{"*", ports, false}}, {}, {}, false}};
    input.own_addresses = {*IpAddress::parse(TunRoom::kR), *IpAddress::parse(TunRoom::kR6)};
    return input;
}

std::uint64_t count_of(const Dataplane& plane, const std::string& name) {
    auto reasons = plane.reasons();
    if (!reasons) return 0;
    for (const ReasonCount& reason : *reasons)
        if (reason.name == name) return reason.counter.packets;
    return 0;
}

class Attach : public TunRoom, public ::testing::WithParamInterface<AttachMethod> {
protected:
    void SetUp() override {
        TunRoom::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        options_.attach = GetParam();
        options_.hosts = options_.pairs = options_.rows = 4096;
        options_.nets = 1024;
        options_.flows = 4096;
        auto plane = Dataplane::open(kDevice, options_);
        if (!plane && (plane.error().code() == EPERM || plane.error().code() == EACCES))
            GTEST_SKIP() << "needs the privilege to load BPF programs: " << plane.error().message();
        if (!plane && GetParam() == AttachMethod::Tcx && plane.error().code() == EINVAL)
            GTEST_SKIP() << "this kernel has no TCX: " << plane.error().message();
        ASSERT_TRUE(plane) << plane.error().message();
        plane_ = std::make_unique<Dataplane>(std::move(*plane));
        service_ = udp_socket(AF_INET, 53);
    }
    void TearDown() override {
        plane_.reset();
        service_.reset();
        (void)Dataplane::remove(kDevice, options_); // best effort: the next test starts over anyway
        TunRoom::TearDown();
    }

    void commit(const FilterInput& input) {
        auto done = plane_->commit(compile_tables(input, numbers_));
        ASSERT_TRUE(done) << done.error().message();
    }
    bool gets_through(const Packet& packet) {
        arrive(packet);
        return received(service_) == 1;
    }

    DataplaneOptions options_;
    TableNumbers numbers_;
    std::unique_ptr<Dataplane> plane_;
    Fd service_;
    const Packet a_asks = Packet{kA, kR}.udp(53), b_asks = Packet{kB, kR}.udp(53);
};

TEST_P(Attach, NothingPassesBeforeTheFirstPolicy) {
    EXPECT_EQ(plane_->attach_method(), GetParam());
    EXPECT_FALSE(plane_->adopted());
    EXPECT_FALSE(plane_->has_policy());
    EXPECT_FALSE(gets_through(a_asks));
    EXPECT_EQ(count_of(*plane_, "no-policy"), 1u);
    commit(allow({kA}, {53, 53}));
    EXPECT_TRUE(gets_through(a_asks));
    EXPECT_FALSE(gets_through(b_asks));
    EXPECT_EQ(count_of(*plane_, "rule"), 1u);
    EXPECT_EQ(count_of(*plane_, "no-rule"), 1u);
    auto hits = plane_->rule_hits();
    ASSERT_TRUE(hits);
    EXPECT_EQ(hits->size(), 1u);
}

TEST_P(Attach, ItGoesOnWithoutTheAgentAndTheNextOneAdoptsIt) {
    commit(allow({kA}, {53, 53}));
    std::uint32_t serial = 0;
    plane_.reset();
    EXPECT_TRUE(gets_through(a_asks));
    EXPECT_FALSE(gets_through(b_asks));

    auto next = Dataplane::open(kDevice, options_);
    ASSERT_TRUE(next) << next.error().message();
    plane_ = std::make_unique<Dataplane>(std::move(*next));
    EXPECT_TRUE(plane_->adopted());
    EXPECT_TRUE(plane_->has_policy());
    EXPECT_EQ(count_of(*plane_, "rule"), 1u);
    EXPECT_TRUE(gets_through(a_asks));
    numbers_ = {}; // the new agent does not know the old numbers
    auto done = plane_->commit(compile_tables(allow({kB}, {53, 53}), numbers_));
    ASSERT_TRUE(done) << done.error().message();
    serial = done->serial;
    EXPECT_EQ(serial, 2u);
    EXPECT_FALSE(gets_through(a_asks));
    EXPECT_TRUE(gets_through(b_asks));
}

TEST_P(Attach, AFilterThatWasTakenAwayIsPutBack) {
    commit(allow({kA}, {53, 53}));
    EXPECT_TRUE(plane_->is_attached());
    if (GetParam() == AttachMethod::Clsact)
        ASSERT_EQ(run("tc qdisc del dev trtest0 clsact"), 0);
    else
        ASSERT_EQ(run("rm -f /sys/fs/bpf/tailrace/v*/trtest0@*/*_link"), 0);
    // A link goes with its last reference, a moment after its pin.
    for (int tries = 0; plane_->is_attached() && tries < 100; ++tries) run("sleep 0.01");
    EXPECT_FALSE(plane_->is_attached());
    auto kept = plane_->keep_attached();
    ASSERT_TRUE(kept) << kept.error().message();
    EXPECT_TRUE(plane_->is_attached());
    EXPECT_TRUE(gets_through(a_asks));
    EXPECT_FALSE(gets_through(b_asks));
}

TEST_P(Attach, MapsOfOtherSizesStartOver) {
    commit(allow({kA}, {53, 53}));
    plane_.reset();
    options_.hosts *= 2;
    auto next = Dataplane::open(kDevice, options_);
    ASSERT_TRUE(next) << next.error().message();
    plane_ = std::make_unique<Dataplane>(std::move(*next));
    EXPECT_FALSE(plane_->adopted());
    EXPECT_FALSE(gets_through(a_asks));
    commit(allow({kA}, {53, 53}));
    EXPECT_TRUE(gets_through(a_asks));
}

TEST_P(Attach, RemovedMeansGone) {
    commit(allow({kA}, {53, 53}));
    plane_.reset();
    auto gone = Dataplane::remove(kDevice, options_);
    ASSERT_TRUE(gone) << gone.error().message();
    run("sleep 0.1");
    EXPECT_TRUE(gets_through(b_asks)); // nobody judges: what stops this in earnest is the backstop
    EXPECT_NE(run("ls /sys/fs/bpf/tailrace/v*/trtest0@* | grep ."), 0);
}

TEST_P(Attach, WhatWeAskedComesBack) {
    commit(allow({}, {53, 53}));
    EXPECT_FALSE(gets_through(Packet{kB, kR}.udp(53, 4000)));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = __builtin_bswap16(4000);
    to.sin_addr.s_addr = __builtin_bswap32(0x64400011); // B
    ASSERT_EQ(::sendto(service_.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 1);
    EXPECT_TRUE(gets_through(Packet{kB, kR}.udp(53, 4000)));
    EXPECT_FALSE(gets_through(Packet{kB, kR}.udp(53, 4001)));
}

TEST_P(Attach, NoVerdictIsMadeOfTwoPolicies) {
    // A may use one port, B the other, and they change places. A packet for the wrong port passes under neither policy.
    auto one = compile_tables(allow({kA}, {53, 53}), numbers_);
    FilterInput both = allow({kA}, {54, 54});
    both.rules[0].dst_ports[0].ports = {54, 54};
    both.rules.push_back(FilterRule{{kB}, {FilterDestination{"*", {53, 53}, false}}, {}, {}, false});
    auto other = compile_tables(both, numbers_);
    FilterInput first = allow({kA}, {53, 53});
    first.rules.push_back(FilterRule{{kB}, {FilterDestination{"*", {54, 54}, false}}, {}, {}, false});
    one = compile_tables(first, numbers_);
    ASSERT_TRUE(plane_->commit(one));

    std::atomic<bool> stop{false};
    std::uint64_t sent = 0;
    std::thread traffic{[&] { // a thread begins in the namespace of the one that starts it
        Bytes packets[] = {Packet{kA, kR}.udp(53).bytes(), Packet{kB, kR}.udp(54).bytes(),
                           Packet{kA, kR}.udp(54).bytes(), Packet{kB, kR}.udp(53).bytes()};
        while (!stop)
            for (const Bytes& packet : packets) {
                arrive(packet);
                ++sent;
            }
    }};
    constexpr int kSwitches = 200;
    for (int i = 0; i < kSwitches; ++i) ASSERT_TRUE(plane_->commit(i % 2 ? one : other));
    stop = true;
    traffic.join();
    // Of each four packets two pass, whichever policy is in force; a switch in the middle of four may add or take one.
    std::uint64_t passed = count_of(*plane_, "rule"), dropped = count_of(*plane_, "no-rule");
    EXPECT_EQ(passed + dropped, sent);
    EXPECT_NEAR(static_cast<double>(passed), static_cast<double>(sent) / 2, kSwitches * 2);
    RecordProperty("packets", std::to_string(sent));
}

INSTANTIATE_TEST_SUITE_P(Methods, Attach, ::testing::Values(AttachMethod::Tcx, AttachMethod::Clsact),
                         [](const auto& info) { return info.param == AttachMethod::Tcx ? "Tcx" : "Clsact"; });

} // namespace
} // namespace tailrace::test
