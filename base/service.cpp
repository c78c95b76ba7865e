#include "base/service.hpp"

#include "base/text.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <string>

namespace tailrace {

void notify_service_manager(std::string_view state) {
    const char* path = std::getenv("NOTIFY_SOCKET");
    if (path == nullptr || *path == 0) return;
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::string name{path};
    if (name.size() >= sizeof to.sun_path) return;
    name.copy(to.sun_path, name.size());
    if (name.front() == '@') to.sun_path[0] = 0; // abstract
    Fd socket{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    (void)::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to),
                   length); // nobody to tell that nobody listens
}

std::string reloading_state() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1'000'000LL + now.tv_nsec / 1000);
}

std::optional<Duration> watchdog_interval() {
    const char* process = std::getenv("WATCHDOG_PID");
    const char* microseconds = std::getenv("WATCHDOG_USEC");
    auto meant = parse_number<pid_t>(process != nullptr ? process : "");
    auto every = parse_number<std::int64_t>(microseconds != nullptr ? microseconds : "");
    if (!every || *every <= 0 || (process != nullptr && (!meant || *meant != ::getpid()))) return std::nullopt;
    return std::chrono::microseconds{*every};
}

std::vector<Fd> take_inherited_sockets() {
    constexpr int kFirst = 3, kMost = 64;
    const char* process = std::getenv("LISTEN_PID");
    const char* number = std::getenv("LISTEN_FDS");
    auto meant = parse_number<pid_t>(process != nullptr ? process : "");
    auto count = parse_number<int>(number != nullptr ? number : "");
    bool ours = meant && count && *meant == ::getpid();
    ::unsetenv("LISTEN_PID");
    ::unsetenv("LISTEN_FDS");
    ::unsetenv("LISTEN_FDNAMES");
    std::vector<Fd> sockets;
    if (!ours) return sockets;
    for (int fd = kFirst; fd < kFirst + std::clamp(*count, 0, kMost); ++fd) {
        int flags = ::fcntl(fd, F_GETFL);
        if (flags < 0) continue; // not even open
        ::fcntl(fd, F_SETFD, FD_CLOEXEC);
        ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
        sockets.emplace_back(fd);
    }
    return sockets;
}

} // namespace tailrace
