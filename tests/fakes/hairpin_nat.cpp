// The NAT of a box of kind "hairpin" in the lab: routing of the box leads all UDP that crosses it to a TUN device, and
// what comes back from there with other addresses is routed on. Errors of ICMP about what it sends find no way in.
#include "base/fd.hpp"
#include "base/result.hpp"
#include "tests/fakes/udp_nat.hpp"

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string>
#include <vector>

namespace {

using namespace tailrace;

struct Options {
    std::string device, outside;
    std::vector<std::string> inside;
};

Result<Fd> open_tun(const std::string& name) {
    Fd tun{::open("/dev/net/tun", O_RDWR | O_CLOEXEC)};
    if (!tun) return Error::from_errno(errno, "open /dev/net/tun");
    ifreq wanted{};
    wanted.ifr_flags = IFF_TUN | IFF_NO_PI;
    name.copy(wanted.ifr_name, sizeof wanted.ifr_name - 1);
    if (::ioctl(tun.get(), TUNSETIFF, &wanted) != 0) return Error::from_errno(errno, "use TUN device {}", name);
    return tun;
}

Result<fakes::UdpNat> make_nat(const Options& options) {
    auto outside = IpAddress::parse(options.outside);
    if (!outside || !outside->is_v4()) return Error::make("--outside {}: not an IPv4 address", options.outside);
    std::vector<IpPrefix> inside;
    for (const std::string& text : options.inside) {
        auto lan = IpPrefix::parse(text);
        if (!lan) return lan.error().with("--inside {}", text);
        inside.push_back(*lan);
    }
    return fakes::UdpNat{*outside, std::move(inside)};
}

Result<void> run(const Options& options) {
    auto nat = make_nat(options);
    if (!nat) return nat.error();
    auto tun = open_tun(options.device);
    if (!tun) return tun.error();
    std::puts("ready");
    std::fflush(stdout);
    SystemClock clock;
    std::array<std::byte, 65536> buffer{};
    for (;;) {
        ssize_t size = ::read(tun->get(), buffer.data(), buffer.size());
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return Error::from_errno(errno, "read from {}", options.device);
        std::span<std::byte> packet{buffer.data(), static_cast<std::size_t>(size)};
        auto flow = fakes::flow_of(packet);
        auto becomes = flow ? nat->translate(clock.now(), *flow) : std::nullopt;
        if (!becomes) continue;
        fakes::readdress(packet, *becomes);
        // What the kernel does not take is lost, as on any wire.
        (void)!::write(tun->get(), packet.data(), packet.size());
    }
}

} // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app{"A NAT for UDP that hairpins, behind a TUN device"};
    app.add_option("--device", options.device, "The TUN device, which is there")->required();
    app.add_option("--outside", options.outside, "The address that all inside share")->required();
    app.add_option("--inside", options.inside, "A network behind the NAT; may be repeated")->required();
    CLI11_PARSE(app, argc, argv);
    auto done = run(options);
    fmt::print(stderr, "hairpin_nat: {}\n", done.error());
    return 1;
}
