// The filter on a real device: what it lets through arrives at a socket, and it works on while nobody looks after it.
#include "agent/dataplane/bpffs.hpp"
#include "agent/dataplane/dataplane.hpp"
#include "tests/bpf/flip.skel.h"
#include "tests/bpf/tun_room.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
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
        if (!plane && plane.error().code() == EPERM) // EACCES is the verifier's
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

TEST_P(Attach, NothingIsPinnedWhereOthersSeeIt) {
    commit(allow({kA}, {53, 53}));
    const char* pins = "/sys/fs/bpf/tailrace/v*/trtest0@$(stat -L -c %i /proc/self/ns/net)/tr_live";
    EXPECT_EQ(run(std::string{"ls "} + pins), 0);
    EXPECT_NE(run(fmt::format("ls /proc/{}/root{}", ::getppid(), pins)), 0);
}

TEST_P(Attach, CountersAreOfTheRuleThatLetIn) {
    constexpr std::uint16_t kRules = 200; // of several values of the map
    FilterInput input = allow({}, {53, 53});
    input.rules.clear();
    for (std::uint16_t i = 0; i < kRules; ++i) {
        std::uint16_t port = static_cast<std::uint16_t>(1000 + i);
        input.rules.push_back(FilterRule{{kA}, {FilterDestination{"*", {port, port}, false}}, {}, {}, false});
    }
    commit(input);
    for (std::uint16_t i : {0, 62, 63, 64, 65, 128, 199})
        for (int times = 0; times <= i % 5; ++times) arrive(Packet{kA, kR}.udp(static_cast<std::uint16_t>(1000 + i)));
    auto hits = plane_->rule_hits();
    ASSERT_TRUE(hits);
    std::vector<std::uint64_t> packets;
    for (const auto& [rule, counter] : *hits) packets.push_back(counter.packets);
    EXPECT_EQ(packets, (std::vector<std::uint64_t>{1, 3, 4, 5, 1, 4, 5}));
}

TEST_P(Attach, RemovedMeansGone) {
    commit(allow({kA}, {53, 53}));
    plane_.reset();
    auto gone = Dataplane::remove(kDevice, options_);
    ASSERT_TRUE(gone) << gone.error().message();
    run("sleep 0.1");
    EXPECT_TRUE(gets_through(b_asks)); // nobody judges: what stops this in earnest is the backstop
    EXPECT_NE(run("ls /sys/fs/bpf/tailrace/v*/trtest0@$(stat -L -c %i /proc/self/ns/net) | grep ."), 0);
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

/// One policy, A to port 53 and B to port 54, with other numbers inside: the two swap their classes, their rule sets or
/// their ports' classes. A verdict made of two of them would let A to 54, or stop it at 53.
enum class Swapped { Nothing, Classes, RuleSets, PortClasses };

PolicyTables numbered(Swapped swapped) {
    TableNumbers numbers;
    FilterInput input = allow({}, {53, 53});
    input.rules = {FilterRule{{TunRoom::kA}, {FilterDestination{"*", {53, 53}, false}}, {}, {}, false},
                   FilterRule{{TunRoom::kB}, {FilterDestination{"*", {54, 54}, false}}, {}, {}, false}};
    PolicyTables out = compile_tables(input, numbers);
    auto other = [](auto number) { return static_cast<decltype(number)>(number == 1 ? 2 : number == 2 ? 1 : number); };
    std::vector<tr_host> hosts;
    for (auto& host : out.hosts) {
        if (swapped == Swapped::Classes && host.side == TR_SIDE_SOURCE)
            host.value.address_class = other(host.value.address_class);
        tr_host entry{
            {}, {0, host.side, static_cast<std::uint8_t>(host.prefix.address().is_v4() ? 4 : 6), 0}, host.value};
        auto bytes = host.prefix.address().bytes();
        std::copy(bytes.begin(), bytes.end(), reinterpret_cast<std::byte*>(entry.addr.bytes));
        hosts.push_back(entry);
    }
    for (tr_pair& pair : out.pairs) {
        if (swapped == Swapped::Classes) pair.src_class = other(pair.src_class);
        if (swapped == Swapped::RuleSets) pair.rule_set = other(std::uint32_t{pair.rule_set}) & 3;
    }
    for (tr_row& row : out.rows) {
        if (swapped == Swapped::RuleSets) row.rule_set = other(row.rule_set);
        if (swapped == Swapped::PortClasses) row.port_class = other(row.port_class);
    }
    if (swapped == Swapped::PortClasses) {
        auto ports = std::make_shared<tr_port_classes>(*out.ports);
        for (auto& port_class : ports->class_of) port_class = other(port_class);
        out.ports_sum = content_sum(std::as_bytes(std::span{ports.get(), 1}));
        out.ports = ports;
    }
    out.image = *lay_out(hosts, out.pairs, out.rows);
    return out;
}

/// Packets from several threads, until stop(): as many that pass as packets that don't, whatever numbering is in force.
class Traffic {
public:
    Traffic(std::vector<Bytes> allowed, std::vector<Bytes> forbidden, std::function<void(const Bytes&)> send) {
        for (int i = 0; i < 2; ++i) // a thread begins in the namespace of the one that starts it
            threads_.emplace_back([=, this] {
                while (!stop_) {
                    for (const Bytes& packet : allowed) send(packet);
                    for (const Bytes& packet : forbidden) send(packet);
                    allowed_ += allowed.size();
                    forbidden_ += forbidden.size();
                }
            });
    }
    ~Traffic() { stop(); }
    void stop() {
        stop_ = true;
        for (std::thread& thread : threads_) thread.join();
        threads_.clear();
    }
    std::uint64_t allowed() const { return allowed_; }
    std::uint64_t forbidden() const { return forbidden_; }

private:
    std::atomic<bool> stop_{false};
    std::atomic<std::uint64_t> allowed_{0}, forbidden_{0};
    std::vector<std::thread> threads_;
};

/// Packets that pass, from one thread more, as fast as the program itself, so that it is judging most of the time: what
/// two looks at the live word would see lies some nanoseconds apart. None that don't: one wrong verdict would hide
/// another.
class Drill {
public:
    Drill(Fd program, std::vector<Bytes> packets) : program_(std::move(program)) {
        thread_ = std::thread{[this, packets] {
            while (!stop_)
                for (const Bytes& packet : packets) judged_ += judge(packet);
        }};
    }
    ~Drill() { stop(); }
    void stop() {
        stop_ = true;
        if (thread_.joinable()) thread_.join();
    }
    std::uint64_t judged() const { return judged_; }
    pthread_t thread() { return thread_.native_handle(); }
    int failed() const { return failed_; }

private:
    /// How many times. The kernel takes the first bytes for an Ethernet header, the program for what they are.
    std::uint64_t judge(const Bytes& packet) {
        constexpr int kTimes = 20;
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.data_in = packet.data();
        options.data_size_in = static_cast<std::uint32_t>(packet.size());
        options.repeat = kTimes;
        if (int failed = ::bpf_prog_test_run_opts(program_.get(), &options)) {
            failed_ = failed;
            return 0;
        }
        return kTimes;
    }

    Fd program_;
    std::atomic<bool> stop_{false};
    std::atomic<std::uint64_t> judged_{0};
    std::atomic<int> failed_{0};
    std::thread thread_;
};

/// As long as it lives, this thread and another have a processor each to themselves, as far as the kernel lets us: on a
/// busy machine two threads seldom run at the same moment otherwise. To be kept short.
class AtTheSameTime {
public:
    explicit AtTheSameTime(pthread_t other) : threads_{::pthread_self(), other} {
        ::sched_getaffinity(0, sizeof all_, &all_);
        int cpu = -1;
        for (pthread_t thread : threads_) {
            do ++cpu;
            while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &all_));
            if (cpu == CPU_SETSIZE) return; // there is one only
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            ::pthread_setaffinity_np(thread, sizeof one, &one);
            sched_param first{1};
            ::pthread_setschedparam(thread, SCHED_FIFO, &first);
        }
    }
    ~AtTheSameTime() {
        for (pthread_t thread : threads_) {
            sched_param usual{0};
            ::pthread_setschedparam(thread, SCHED_OTHER, &usual);
            ::pthread_setaffinity_np(thread, sizeof all_, &all_);
        }
    }
    AtTheSameTime(const AtTheSameTime&) = delete;
    AtTheSameTime& operator=(const AtTheSameTime&) = delete;

private:
    pthread_t threads_[2];
    cpu_set_t all_{};
};

/// Switches to the other policy and back, faster than packets are judged.
class Flipper {
public:
    explicit Flipper(Fd live) : object_(tr_flip_object__open(), &tr_flip_object__destroy) {
        if (!object_ || ::bpf_map__reuse_fd(object_->maps.tr_live, live.get()) != 0) return;
        loaded_ = tr_flip_object__load(object_.get()) == 0;
    }
    /// How many times; 0 when it cannot.
    std::uint64_t flip() {
        Bytes packet(64);
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.data_in = packet.data();
        options.data_size_in = static_cast<std::uint32_t>(packet.size());
        options.repeat = 1;
        if (!loaded_ || ::bpf_prog_test_run_opts(::bpf_program__fd(object_->progs.tr_flip), &options) != 0) return 0;
        return options.retval;
    }

private:
    std::unique_ptr<tr_flip_object, void (*)(tr_flip_object*)> object_;
    bool loaded_ = false;
};

TEST_P(Attach, NoVerdictIsMadeOfTwoPolicies) {
    const PolicyTables plain = numbered(Swapped::Nothing);
    const PolicyTables others[] = {numbered(Swapped::Classes), numbered(Swapped::RuleSets),
                                   numbered(Swapped::PortClasses)};
    ASSERT_TRUE(plane_->commit(plain));
    auto pins = PinDirectory::open(options_.bpffs, kDevice, TR_SCHEMA_VERSION);
    ASSERT_TRUE(pins);
    Flipper flipper{pins->get("tr_live")};

    const std::vector<Bytes> allowed = {Packet{kA, kR}.udp(53).bytes(), Packet{kB, kR}.udp(54).bytes()};
    const std::vector<Bytes> forbidden = {Packet{kA, kR}.udp(54).bytes(), Packet{kB, kR}.udp(53).bytes()};
    Traffic traffic{allowed, forbidden, [this](const Bytes& packet) { arrive(packet); }};
    Drill drill{pins->get("policy"), allowed};
    bool long_run = GetParam() == AttachMethod::Tcx; // the hook makes no difference here: one of them is enough
    const std::uint32_t flips = long_run ? 1'000'000 : 100'000, refills = long_run ? 170 : 4;
    constexpr std::uint64_t kEnough = 10'000;
    std::uint64_t flipped = 0, flipped_meanwhile = 0;
    for (const PolicyTables& other : others) {
        ASSERT_TRUE(plane_->commit(other));
        // Only those count meanwhile packets were judged: on a busy machine this thread may be alone for long. With one
        // processor it is a matter of chance.
        auto begun = std::chrono::steady_clock::now();
        auto patience = begun + std::chrono::milliseconds{long_run ? 2000 : 200},
             more_patience = begun + std::chrono::seconds{10};
        std::uint64_t judged = 0, done = 0, meanwhile = 0;
        auto enough = [&] { return traffic.allowed() > kEnough && drill.judged() > kEnough; };
        std::optional<AtTheSameTime> together{drill.thread()};
        while (done < flips || (meanwhile < flips && std::chrono::steady_clock::now() < patience) ||
               (!enough() && std::chrono::steady_clock::now() < more_patience)) {
            std::uint64_t count = flipper.flip();
            ASSERT_GT(count, 0u);
            done += count;
            std::uint64_t by_now = drill.judged();
            if (std::exchange(judged, by_now) != by_now) meanwhile += count;
        }
        together.reset();
        flipped += done;
        flipped_meanwhile += meanwhile;
        for (std::uint32_t i = 0; i < refills; ++i) { // but for the first never what the idle table holds
            auto refilled = plane_->commit(i / 2 % 2 ? other : plain);
            ASSERT_TRUE(refilled) << refilled.error().message();
        }
        ASSERT_TRUE(plane_->commit(plain));
    }
    traffic.stop();
    drill.stop();
    EXPECT_EQ(drill.failed(), 0);
    EXPECT_EQ(count_of(*plane_, "rule"), traffic.allowed() + drill.judged());
    EXPECT_EQ(count_of(*plane_, "no-rule"), traffic.forbidden());
    EXPECT_GT(traffic.allowed(), kEnough);
    EXPECT_GT(drill.judged(), kEnough);
    RecordProperty("packets", std::to_string(traffic.allowed() + traffic.forbidden()));
    RecordProperty("judged", std::to_string(drill.judged()));
    RecordProperty("flips", std::to_string(flipped));
    RecordProperty("flips_meanwhile", std::to_string(flipped_meanwhile));
}

INSTANTIATE_TEST_SUITE_P(Methods, Attach, ::testing::Values(AttachMethod::Tcx, AttachMethod::Clsact),
                         [](const auto& info) { return info.param == AttachMethod::Tcx ? "Tcx" : "Clsact"; });

} // namespace
} // namespace tailrace::test
