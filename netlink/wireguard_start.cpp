// Starts wireguard-go so that it outlives us.
#include "netlink/wireguard_uapi.hpp"

#include "base/text.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>

namespace tailrace {
namespace {

constexpr auto kStartLimit = std::chrono::seconds{10};
constexpr const char* kProgram = "wireguard-go";
// Debian's build refuses to run on Linux unless this says so.
constexpr const char* kConsent = "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1";

std::string find_program(std::string_view name) {
    const char* path = std::getenv("PATH");
    std::string all = path != nullptr ? path : "";
    all += ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    for (std::string_view directory : split(all, ':')) {
        if (directory.empty()) continue;
        std::string candidate = fmt::format("{}/{}", directory, name);
        if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    return {};
}

std::string link_target(const char* path) {
    std::array<char, PATH_MAX> target;
    ssize_t length = ::readlink(path, target.data(), target.size());
    return length > 0 ? std::string{target.data(), static_cast<std::size_t>(length)} : std::string{};
}

/// A unit that systemd starts lives in the host's network namespace: of use only when that is ours too.
bool systemd_can_start_it() {
    const auto ours = link_target("/proc/self/ns/net");
    return ::access("/run/systemd/system", F_OK) == 0 && !ours.empty() && ours == link_target("/proc/1/ns/net");
}

/// Runs a command in a session of its own until it exits; it fails with what the command said.
Result<void> run(const std::vector<std::string>& command) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return Error::from_errno(errno, "pipe");
    Fd output{ends[0]};
    Fd input{ends[1]};

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, input.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, input.get(), 2);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3); // it lives on: none of our sockets shall live on in it
    posix_spawn_file_actions_addchdir_np(&actions, "/");
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);

    std::vector<char*> arguments;
    for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    // A small environment: with LOG_LEVEL set, wireguard-go would keep our pipe open for its log.
    std::array<char*, 3> environment{const_cast<char*>(kConsent),
                                     const_cast<char*>("PATH=/usr/sbin:/usr/bin:/sbin:/bin"), nullptr};
    pid_t child = 0;
    const int failed =
        ::posix_spawn(&child, command.front().c_str(), &actions, &attributes, arguments.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (failed != 0) return Error::from_errno(failed, "start {}", command.front());
    input.reset();

    // wireguard-go puts itself into the background once device and socket stand: the end of its output is the sign.
    std::string said;
    const auto deadline = std::chrono::steady_clock::now() + kStartLimit;
    for (;;) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        pollfd wait{output.get(), POLLIN, 0};
        const int ready = left.count() > 0 ? ::poll(&wait, 1, static_cast<int>(left.count())) : 0;
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) {
            (void)::kill(child, SIGKILL);
            (void)::waitpid(child, nullptr, 0);
            return Error::make("{} did not start within {} s", command.front(), kStartLimit.count());
        }
        std::array<char, 1024> piece;
        const ssize_t got = ::read(output.get(), piece.data(), piece.size());
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        if (said.size() < 4096) said.append(piece.data(), static_cast<std::size_t>(got));
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0) {
        if (errno == ECHILD) return {}; // somebody else collects our children: the socket will tell
        if (errno != EINTR) return Error::from_errno(errno, "wait for {}", command.front());
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
    // Its last line says why; what comes before is a banner.
    const auto lines = split(trim(said), '\n');
    return Error::make("{} failed: {}", command.front(),
                       lines.empty() ? std::string_view{"no reason given"} : lines.back());
}

} // namespace

std::string UapiWireGuard::obstacle() {
    if (find_program(kProgram).empty()) return fmt::format("{} is not installed", kProgram);
    if (Fd tun{::open("/dev/net/tun", O_RDWR | O_CLOEXEC)}; !tun)
        return Error::from_errno(errno, "/dev/net/tun").message();
    if (::geteuid() != 0) return "only root may make a tun device";
    return {};
}

Result<void> UapiWireGuard::start(const std::string& name) {
    if (auto why = obstacle(); !why.empty()) return Error::make("userspace WireGuard: {}", why);
    const std::string program = find_program(kProgram);
    Result<void> started = Error::make("not tried");
    if (const std::string systemd_run = find_program("systemd-run"); systemd_can_start_it() && !systemd_run.empty()) {
        // Out of our unit's cgroup, or systemd would end it with us.
        started = run({systemd_run, "--quiet", "--collect", "--service-type=forking",
                       fmt::format("--unit=tailrace-wireguard-{}", name), fmt::format("--setenv={}", kConsent), program,
                       name});
    }
    if (!started) started = run({program, name});
    if (!started) return started.error().with("userspace WireGuard for {}", name);
    if (auto answers = connect(name); !answers) return answers.error().with("userspace WireGuard for {}", name);
    return {};
}

} // namespace tailrace
