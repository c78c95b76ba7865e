// Packet programs of one schema take the place of those of another, and the agent that does it is killed on the way.
#include "agent/dataplane/dataplane.hpp"
#include "agent/dataplane/other_schemas.hpp"
#include "tests/bpf/tun_room.hpp"

#include <bpf/bpf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <optional>
#include <vector>

namespace tailrace::test {
namespace {

constexpr unsigned kOld = TR_SCHEMA_VERSION, kNew = TR_SCHEMA_VERSION + 1;

FilterInput allow(std::vector<std::string> sources) {
    FilterInput input;
    input.rules = {FilterRule{std::move(sources), {FilterDestination{"*", {53, 53}, false}}, {}, {}, false}};
    input.own_addresses = {*IpAddress::parse(TunRoom::kR), *IpAddress::parse(TunRoom::kR6)};
    return input;
}

/// Does this system call change what the kernel holds? Those of a program that only loads and attaches.
bool changes_something(std::uint64_t number) {
    return number == SYS_bpf || number == SYS_unlinkat || number == SYS_mkdirat || number == SYS_sendmsg ||
#ifdef SYS_unlink // not where the architecture is young
           number == SYS_unlink || number == SYS_rmdir || number == SYS_mkdir ||
#endif
           number == SYS_sendto;
}

/// What comes of a system call of a child that waits to make it. LeaveUnanswered: as in a process that has no
/// descriptors left it fails if it asks for something or makes something; what is taken away goes.
enum class Call { Make, Kill, LeaveUnanswered };

/// A call that is not made, and answered by EMFILE. False where it is not known how.
bool fail_call(pid_t child) {
#ifdef __x86_64__
    user_regs_struct registers{};
    int status = 0;
    if (::ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0) return false;
    registers.orig_rax = ~0ull; // no such call
    if (::ptrace(PTRACE_SETREGS, child, nullptr, &registers) != 0) return false;
    if (::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) != 0 || ::waitpid(child, &status, 0) != child) return false;
    if (::ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0) return false;
    registers.rax = static_cast<unsigned long long>(-EMFILE);
    return ::ptrace(PTRACE_SETREGS, child, nullptr, &registers) == 0;
#else
    (void)child;
    return false;
#endif
}

/// Runs `work` in a child and calls `before_call(n)` while the child waits to make its n-th such system call. How many
/// there were, when it came to its end with success; else none.
std::optional<int> step_through(const std::function<bool()>& work, const std::function<Call(int)>& before_call) {
    pid_t child = ::fork();
    if (child == 0) {
        ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        ::raise(SIGSTOP);
        ::_exit(work() ? 0 : 1);
    }
    int status = 0, calls = 0;
    if (child < 0 || ::waitpid(child, &status, 0) != child) return std::nullopt;
    ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    for (;;) {
        if (::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) != 0 || ::waitpid(child, &status, 0) != child)
            return std::nullopt;
        if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? std::optional{calls} : std::nullopt;
        if (WIFSIGNALED(status)) return std::nullopt;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
        __ptrace_syscall_info info{};
        if (::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info) <= 0) continue;
        if (info.op != PTRACE_SYSCALL_INFO_ENTRY || !changes_something(info.entry.nr)) continue;
        const Call call = before_call(++calls);
        const bool answers = info.entry.nr == SYS_bpf || info.entry.nr == SYS_sendto || info.entry.nr == SYS_sendmsg;
        if (call == Call::Make || (call == Call::LeaveUnanswered && (!answers || fail_call(child)))) continue;
        ::kill(child, SIGKILL);
        ::waitpid(child, &status, 0);
        return std::nullopt;
    }
}

class Upgrade : public TunRoom, public ::testing::WithParamInterface<AttachMethod> {
protected:
    void SetUp() override {
        TunRoom::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        options_.attach = GetParam();
        options_.hosts = options_.pairs = options_.rows = 4096;
        options_.nets = 1024;
        options_.flows = 4096;
        auto plane = open(kOld);
        if (!plane && plane.error().code() == EPERM) // EACCES is the verifier's
            GTEST_SKIP() << "needs the privilege to load BPF programs: " << plane.error().message();
        if (!plane && GetParam() == AttachMethod::Tcx && plane.error().code() == EINVAL)
            GTEST_SKIP() << "this kernel has no TCX: " << plane.error().message();
        ASSERT_TRUE(plane) << plane.error().message();
        service_ = udp_socket(AF_INET, 53);
        begin_with(kOld);
    }
    void TearDown() override {
        service_.reset();
        (void)Dataplane::remove(kDevice, options_); // best effort: the next test starts over anyway
        TunRoom::TearDown();
    }

    Result<Dataplane> open(unsigned schema) {
        options_.schema = schema;
        return Dataplane::open(kDevice, options_);
    }
    /// What an agent of that schema leaves behind: A may come in, B may not.
    void begin_with(unsigned schema) {
        ASSERT_TRUE(Dataplane::remove(kDevice, options_));
        auto old = open(schema);
        ASSERT_TRUE(old) << old.error().message();
        ASSERT_TRUE(put_in_force(*old));
    }
    bool put_in_force(Dataplane& plane) {
        TableNumbers numbers;
        FilterInput input = allow({kA});
        input.strict_own = strict_tcp_;
        return plane.commit(compile_tables(input, numbers)) && plane.keep_attached();
    }
    bool upgrade() {
        auto plane = open(kNew);
        return plane && put_in_force(*plane);
    }
    bool gets_through(const Packet& packet) {
        arrive(packet);
        return received(service_) == 1;
    }
    void expect_policy(const std::string& when) {
        EXPECT_TRUE(gets_through(Packet{kA, kR}.udp(53))) << when;
        EXPECT_FALSE(gets_through(Packet{kB, kR}.udp(53))) << when;
    }
    void send_to_b(std::uint16_t port) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = __builtin_bswap16(port);
        to.sin_addr.s_addr = __builtin_bswap32(0x64400011); // B
        ASSERT_EQ(::sendto(service_.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 1);
    }
    /// Exactly one program on each hook, and no pins but those of one schema.
    void expect_only(unsigned schema, const std::string& when) {
        run("sleep 0.02"); // a link goes a moment after its last reference
        unsigned index = ::if_nametoindex(kDevice);
        std::size_t here = 0;
        for (int type : {46, 47}) { // BPF_TCX_INGRESS, BPF_TCX_EGRESS
            std::uint32_t ids[8] = {};
            struct bpf_prog_query_opts query {};
            query.sz = sizeof query;
            query.prog_ids = ids;
            query.prog_cnt = std::size(ids);
            if (::bpf_prog_query_opts(static_cast<int>(index), static_cast<bpf_attach_type>(type), &query) == 0)
                here += query.prog_cnt;
        }
        for (auto direction : {HookDirection::Ingress, HookDirection::Egress})
            here += filter_program_id(index, direction).value_or(0) != 0;
        EXPECT_EQ(here, 2u) << when;
        auto others = PinDirectory::others(options_.bpffs, kDevice, schema);
        EXPECT_TRUE(others && others->empty()) << when;
    }

    DataplaneOptions options_;
    Fd service_;
    bool strict_tcp_ = false; ///< towards our own addresses
};

TEST_P(Upgrade, TheOlderProgramsJudgeUntilThePolicyIsInForce) {
    auto plane = open(kNew);
    ASSERT_TRUE(plane) << plane.error().message();
    EXPECT_EQ(plane->older_schema(), kOld);
    EXPECT_FALSE(plane->has_policy());
    ASSERT_TRUE(plane->keep_attached()); // not yet
    EXPECT_TRUE(plane->is_attached());
    expect_policy("before the commit");
    ASSERT_TRUE(put_in_force(*plane));
    EXPECT_EQ(plane->older_schema(), std::nullopt);
    EXPECT_TRUE(plane->is_attached());
    expect_policy("after it");
    expect_only(kNew, "after it");
    auto next = open(kNew);
    ASSERT_TRUE(next);
    EXPECT_TRUE(next->adopted());
}

TEST_P(Upgrade, OneFilterJudgesAtEveryMoment) {
    int looks = 0;
    auto calls = step_through([&] { return upgrade(); },
                              [&](int n) {
                                  ++looks;
                                  expect_policy("before call " + std::to_string(n));
                                  return Call::Make;
                              });
    ASSERT_TRUE(calls) << "the upgrade failed";
    EXPECT_GT(looks, 50);
    expect_policy("at the end");
    expect_only(kNew, "at the end");
}

TEST_P(Upgrade, KilledAnywhereTheNextStartFinishesIt) {
    auto calls = step_through([&] { return upgrade(); }, [](int) { return Call::Make; });
    ASSERT_TRUE(calls);
    // From the last grace period of the commit on at every twelfth call, before that at some; the other kind of
    // attachment has those between. With TAILRACE_EVERY_CALL=1 at all of them.
    const int phase = GetParam() == AttachMethod::Tcx ? 1 : 0, tail = std::max(1, *calls - 60);
    const bool all = std::getenv("TAILRACE_EVERY_CALL") != nullptr;
    std::vector<int> points;
    for (int point = 1 + 50 * phase; point < tail; point += all ? 1 : 100) points.push_back(point);
    for (int point = tail + (all ? 0 : 6 * phase); point <= *calls; point += all ? 1 : 12) points.push_back(point);
    for (int point : points) {
        std::string when = "killed before call " + std::to_string(point) + " of " + std::to_string(*calls);
        begin_with(kOld);
        EXPECT_FALSE(
            step_through([&] { return upgrade(); }, [&](int n) { return n < point ? Call::Make : Call::Kill; }));
        expect_policy(when);
        EXPECT_TRUE(upgrade()) << when;
        expect_policy(when + " and finished");
        expect_only(kNew, when + " and finished");
        if (HasFailure()) break;
    }
}

TEST_P(Upgrade, NoAnswerIsNotTakenForNothing) {
#ifndef __x86_64__
    GTEST_SKIP() << "calls are made to fail by the registers of x86-64";
#endif
    auto calls = step_through([&] { return upgrade(); }, [](int) { return Call::Make; });
    ASSERT_TRUE(calls);
    // Some of those that look for what is there, and fewer of the others; the other kind of attachment has those
    // between. With TAILRACE_EVERY_CALL=1 all of them.
    const bool all = std::getenv("TAILRACE_EVERY_CALL") != nullptr;
    for (int point = all || GetParam() == AttachMethod::Tcx ? 1 : 6; point <= *calls; point += all          ? 1
                                                                                               : point < 60 ? 10
                                                                                                            : 120) {
        std::string when = "no answers from call " + std::to_string(point) + " of " + std::to_string(*calls);
        begin_with(kOld);
        (void)step_through([&] { return upgrade(); },
                           [&](int n) { return n >= point ? Call::LeaveUnanswered : Call::Make; });
        expect_policy(when);
        EXPECT_TRUE(upgrade()) << when;
        expect_policy(when + ", and it was tried again");
        expect_only(kNew, when + ", and it was tried again");
        if (HasFailure()) break;
    }
}

TEST_P(Upgrade, RepliesThatWeWaitForStillComeIn) {
    send_to_b(4000);
    ASSERT_TRUE(gets_through(Packet{kB, kR}.udp(53, 4000)));
    auto plane = open(kNew);
    ASSERT_TRUE(plane);
    EXPECT_TRUE(plane->shares_flows());
    send_to_b(4001); // while the older programs judge
    ASSERT_TRUE(put_in_force(*plane));
    EXPECT_TRUE(gets_through(Packet{kB, kR}.udp(53, 4000)));
    EXPECT_TRUE(gets_through(Packet{kB, kR}.udp(53, 4001)));
    EXPECT_FALSE(gets_through(Packet{kB, kR}.udp(53, 4002)));
}

TEST_P(Upgrade, AStrictTcpFlowOfOursGoesOn) {
    strict_tcp_ = true;
    begin_with(kOld);
    Fd raw{::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP)}; // sees what the filter let in
    ASSERT_TRUE(raw);
    Bytes syn = Packet{kR, kB}.tcp(443, kSyn, 4000).bytes();
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = __builtin_bswap32(0x64400011); // B
    ASSERT_GT(::sendto(raw.get(), syn.data() + 20, syn.size() - 20, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    auto goes_on = [&](std::uint16_t port) {
        arrive(Packet{kB, kR}.tcp(port, kAck, 443));
        return received(raw) == 1;
    };
    ASSERT_TRUE(goes_on(4000));
    ASSERT_FALSE(goes_on(4001)) << "a flow that we did not begin";
    auto plane = open(kNew);
    ASSERT_TRUE(plane);
    EXPECT_TRUE(goes_on(4000)) << "the older programs judge";
    ASSERT_TRUE(put_in_force(*plane));
    EXPECT_TRUE(goes_on(4000)) << "the newer programs judge";
    EXPECT_FALSE(goes_on(4001));
}

TEST_P(Upgrade, AnUnknownLayoutOfFlowsIsBegunAnew) {
    begin_with(TR_FLOWS_SINCE - 1);
    send_to_b(4000);
    auto plane = open(kOld);
    ASSERT_TRUE(plane);
    EXPECT_FALSE(plane->shares_flows());
    EXPECT_TRUE(gets_through(Packet{kB, kR}.udp(53, 4000)));
    ASSERT_TRUE(put_in_force(*plane));
    EXPECT_FALSE(gets_through(Packet{kB, kR}.udp(53, 4000)));
    send_to_b(4000);
    EXPECT_TRUE(gets_through(Packet{kB, kR}.udp(53, 4000)));
    expect_policy("with new flows");
    expect_only(kOld, "with new flows");
}

TEST_P(Upgrade, ShieldsThatGoUpWithItEndTheFlows) {
    send_to_b(4000);
    auto plane = open(kNew);
    ASSERT_TRUE(plane);
    FilterInput closed = allow({kA});
    closed.shields_up = true;
    TableNumbers numbers;
    ASSERT_TRUE(plane->commit(compile_tables(closed, numbers)));
    ASSERT_TRUE(plane->keep_attached());
    EXPECT_FALSE(gets_through(Packet{kB, kR}.udp(53, 4000)));
    EXPECT_FALSE(gets_through(Packet{kA, kR}.udp(53)));
}

TEST_P(Upgrade, NewerProgramsAreLeftAlone) {
    begin_with(kNew);
    auto refused = open(kOld);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("start the newer tailraced"), std::string::npos)
        << refused.error().message();
    EXPECT_FALSE(refuse_newer_schema(options_.bpffs, kDevice, kOld));
    EXPECT_TRUE(refuse_newer_schema(options_.bpffs, kDevice, kNew));
    expect_policy("after the refusal");
    expect_only(kNew, "after the refusal");
}

TEST_P(Upgrade, WhatANewerAgentNeverUsedIsNoReasonToRefuse) {
    ASSERT_TRUE(open(kNew)); // and ended before its first commit
    auto plane = open(kOld);
    ASSERT_TRUE(plane) << plane.error().message();
    EXPECT_TRUE(plane->adopted());
    expect_policy("back again");
    expect_only(kOld, "back again");
}

TEST_P(Upgrade, TwoOlderSchemasGoAtOnce) {
    // Side by side, as agents left them that looked for no others.
    const std::string old = PinDirectory::named(options_.bpffs, kDevice, kOld).path();
    const std::string oldest = PinDirectory::named(options_.bpffs, kDevice, 0).path();
    const std::string aside = options_.bpffs + "/trtest-aside";
    ASSERT_EQ(run("mv " + old + " " + aside), 0);
    begin_with(kOld);
    ASSERT_EQ(run("mkdir -p $(dirname " + oldest + ") && mv " + aside + " " + oldest), 0);
    auto plane = open(kNew);
    ASSERT_TRUE(plane) << plane.error().message();
    EXPECT_EQ(plane->older_schema(), kOld);
    expect_policy("three schemas");
    ASSERT_TRUE(put_in_force(*plane));
    expect_policy("one schema");
    expect_only(kNew, "one schema");
}

INSTANTIATE_TEST_SUITE_P(Methods, Upgrade, ::testing::Values(AttachMethod::Tcx, AttachMethod::Clsact),
                         [](const auto& info) { return info.param == AttachMethod::Tcx ? "Tcx" : "Clsact"; });

} // namespace
} // namespace tailrace::test
