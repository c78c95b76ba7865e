#include "tests/bpf/tun_room.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace tailrace::test {
namespace {

/// The machine's BPF file system stays as it is: what tests pin is in one of their own, and goes with their process,
/// also when that is killed.
class OwnBpffs : public ::testing::Environment {
    void SetUp() override {
        if (::unshare(CLONE_NEWNS) != 0) return; // the tests say that they lack the privilege
        ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0) << std::strerror(errno);
        ASSERT_EQ(::mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700"), 0) << std::strerror(errno);
    }
};

const ::testing::Environment* const own_bpffs = ::testing::AddGlobalTestEnvironment(new OwnBpffs);

} // namespace

int TunRoom::run(const std::string& command) {
    return std::system((command + " >/dev/null 2>&1").c_str());
}

void TunRoom::SetUp() {
    home_ = Fd{::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)};
    if (::unshare(CLONE_NEWNET) != 0) {
        home_.reset();
        GTEST_SKIP() << "needs the privilege to make a network namespace: " << std::strerror(errno);
    }
    tun_ = Fd{::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)};
    if (!tun_) GTEST_SKIP() << "needs /dev/net/tun: " << std::strerror(errno);
    ifreq wanted{};
    std::strncpy(wanted.ifr_name, kDevice, IFNAMSIZ - 1);
    wanted.ifr_flags = IFF_TUN | IFF_NO_PI;
    ASSERT_EQ(::ioctl(tun_.get(), TUNSETIFF, &wanted), 0) << std::strerror(errno);
    std::string device = kDevice;
    ASSERT_EQ(run("ip link set lo up"), 0);
    run("sysctl -w net.ipv6.conf." + device + ".accept_dad=0");
    ASSERT_EQ(run("ip link set " + device + " up"), 0);
    ASSERT_EQ(run("ip address add 100.64.0.16/10 dev " + device), 0);
    ASSERT_EQ(run("ip address add fd7a:115c:a1e0::10/48 nodad dev " + device), 0);
    // The kernel puts an IPv6 address into its table of local routes a moment later, from a work queue.
    bool local = false;
    for (int attempt = 0; attempt < 1000 && !local; ++attempt) {
        local = run("ip -6 route get fd7a:115c:a1e0::10 | grep -q ^local") == 0;
        if (!local) ::usleep(10'000);
    }
    ASSERT_TRUE(local) << "the room's IPv6 address did not come up within 10 s";
}

void TunRoom::TearDown() {
    tun_.reset(); // the device goes with its descriptor
    if (home_) (void)::setns(home_.get(), CLONE_NEWNET);
}

void TunRoom::arrive(const Bytes& packet) {
    ASSERT_EQ(::write(tun_.get(), packet.data(), packet.size()), static_cast<ssize_t>(packet.size()))
        << std::strerror(errno);
}

std::optional<Bytes> TunRoom::depart() {
    Bytes packet(65536);
    ssize_t bytes = ::read(tun_.get(), packet.data(), packet.size());
    if (bytes < 0) return std::nullopt;
    packet.resize(static_cast<std::size_t>(bytes));
    return packet;
}

Fd TunRoom::udp_socket(int family, std::uint16_t port) {
    Fd socket{::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    int result = -1;
    if (family == AF_INET) {
        sockaddr_in any{};
        any.sin_family = AF_INET;
        any.sin_port = htons(port);
        result = ::bind(socket.get(), reinterpret_cast<sockaddr*>(&any), sizeof any);
    } else {
        int one = 1;
        ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
        sockaddr_in6 any{};
        any.sin6_family = AF_INET6;
        any.sin6_port = htons(port);
        result = ::bind(socket.get(), reinterpret_cast<sockaddr*>(&any), sizeof any);
    }
    EXPECT_EQ(result, 0) << std::strerror(errno);
    return socket;
}

int TunRoom::received(const Fd& socket) {
    int count = 0;
    char byte;
    while (::recv(socket.get(), &byte, 1, 0) >= 0) ++count;
    return count;
}

} // namespace tailrace::test
