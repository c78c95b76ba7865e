#include "bench/verdict/room.hpp"

#include "bench/vary.skel.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tailrace::bench {
namespace {

constexpr const char* kDevice = "bench0";
constexpr int kLoopback = 1; // index of lo in every namespace

Result<void> run(const std::string& command) {
    if (std::system(command.c_str()) != 0) return Error::make("{} failed", command);
    return {};
}

Result<double> timed_run(int program, const Bytes& frame, bpf_test_run_opts& options) {
    options.sz = sizeof options;
    options.data_in = frame.data();
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    if (::bpf_prog_test_run_opts(program, &options) != 0) return Error::from_errno(errno, "test run");
    return options.duration;
}

} // namespace

Result<Room> Room::create() {
    if (::unshare(CLONE_NEWNET) != 0) return Error::from_errno(errno, "make a network namespace");
    Fd space{::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)};
    Fd tun{::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)};
    ifreq wanted{};
    std::strncpy(wanted.ifr_name, kDevice, IFNAMSIZ - 1);
    wanted.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (!tun || ::ioctl(tun.get(), TUNSETIFF, &wanted) != 0) return Error::from_errno(errno, "make a TUN device");
    if (auto up = run(fmt::format("ip link set lo up && ip link set {} up", kDevice)); !up) return up.error();
    Programs programs{tr_vary_object__open_and_load(), &tr_vary_object__destroy};
    if (!programs) return Error::from_errno(errno, "load the programs of the measurement");
    return Room{std::move(programs), std::move(space), std::move(tun)};
}

void Room::enter() const {
    if (::setns(space_.get(), CLONE_NEWNET) != 0) std::abort(); // it is ours and open
}

int Room::program_that_does_nothing() const {
    return ::bpf_program__fd(programs_->progs.nothing);
}

Result<double> Room::test_run(int program, const Bytes& frame, std::uint32_t runs, std::uint32_t* verdict) {
    bpf_test_run_opts options{};
    options.repeat = static_cast<int>(runs);
    auto took = timed_run(program, frame, options);
    if (verdict) *verdict = options.retval;
    return took;
}

Result<double> Room::test_run_varied(int program, const Bytes& frame, std::uint32_t runs) {
    std::uint32_t zero = 0;
    if (::bpf_map_update_elem(::bpf_map__fd(programs_->maps.next), &zero, &program, BPF_ANY) != 0)
        return Error::from_errno(errno, "put a program behind the one that varies packets");
    return test_run(::bpf_program__fd(programs_->progs.vary), frame, runs);
}

Result<double> Room::hand_up(const Bytes& frame, std::uint32_t packets) {
    enter();
    constexpr std::uint32_t kLiveFrames = 1u << 1; // BPF_F_TEST_XDP_LIVE_FRAMES, linux 5.18
    bpf_test_run_opts options{};
    options.repeat = static_cast<int>(packets);
    options.flags = kLiveFrames;
    return timed_run(::bpf_program__fd(programs_->progs.hand_up), frame, options);
}

Result<void> Room::nft(const std::string& text) const {
    enter();
    std::FILE* pipe = ::popen("nft -f -", "w");
    if (!pipe) return Error::from_errno(errno, "run nft");
    std::fwrite(text.data(), 1, text.size(), pipe);
    if (::pclose(pipe) != 0) return Error::make("nft refuses the ruleset {}", text.substr(0, 200));
    return {};
}

Result<void> Room::end_of_way(bool stateful, bool first) {
    end_family_ = stateful ? "inet" : "netdev";
    std::string hook = stateful ? fmt::format("hook prerouting priority {}", first ? -450 : -140)
                                : fmt::format("hook ingress device lo priority {}", first ? -100 : 100);
    return nft(fmt::format("table {0} way\ndelete table {0} way\ntable {0} way {{\ncounter arrived {{}}\n"
                           "chain end {{ type filter {1}; counter name arrived drop\n}}\n}}\n",
                           end_family_, hook));
}

Result<std::uint64_t> Room::arrived() const {
    enter();
    std::FILE* pipe = ::popen(fmt::format("nft list counter {} way arrived", end_family_).c_str(), "r");
    if (!pipe) return Error::from_errno(errno, "run nft");
    std::uint64_t packets = 0;
    bool found = false;
    char line[256];
    while (std::fgets(line, sizeof line, pipe))
        if (const char* at = std::strstr(line, "packets ")) {
            packets = std::strtoull(at + 8, nullptr, 10);
            found = true;
        }
    if (::pclose(pipe) != 0 || !found) return Error::make("nft does not show the counter of the last chain");
    return packets;
}

Result<void> Room::attach(int program) {
    enter();
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = kLoopback;
    hook.attach_point = BPF_TC_INGRESS;
    if (int failed = ::bpf_tc_hook_create(&hook); failed && failed != -EEXIST)
        return Error::from_errno(-failed, "create a clsact qdisc");
    bpf_tc_opts filter{};
    filter.sz = sizeof filter;
    filter.prog_fd = program;
    if (int failed = ::bpf_tc_attach(&hook, &filter)) return Error::from_errno(-failed, "attach the policy program");
    return {};
}

Result<void> Room::send(const std::string& from, std::uint16_t from_port, const std::string& to,
                        std::uint16_t to_port) {
    enter();
    if (auto ready = run(fmt::format("ip address replace {}/10 dev {}", from, kDevice)); !ready) return ready;
    Fd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    sockaddr_in ours{}, theirs{};
    ours.sin_family = theirs.sin_family = AF_INET;
    ours.sin_port = htons(from_port);
    theirs.sin_port = htons(to_port);
    ::inet_pton(AF_INET, from.c_str(), &ours.sin_addr);
    ::inet_pton(AF_INET, to.c_str(), &theirs.sin_addr);
    if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&ours), sizeof ours) != 0 ||
        ::sendto(socket.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&theirs), sizeof theirs) != 1)
        return Error::from_errno(errno, "send a packet to {}", to);
    return {};
}

} // namespace tailrace::bench
