#include "agent/cli/risk.hpp"

#include "base/net.hpp"
#include "base/text.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <unistd.h>

namespace tailrace::cli {
namespace {

/// Of this session; sudo takes it away from us, but not from the leader of the session.
std::string ssh_client() {
    if (const char* own = std::getenv("SSH_CLIENT")) return own;
    std::ifstream file{fmt::format("/proc/{}/environ", ::getsid(0))};
    std::string all{std::istreambuf_iterator<char>{file}, {}};
    for (std::string_view one : split(all, '\0'))
        if (one.starts_with("SSH_CLIENT=")) return std::string{one.substr(11)};
    return "";
}

} // namespace

bool comes_by_tailnet(const std::string& ssh_client) {
    auto address = IpAddress::parse(ssh_client.substr(0, ssh_client.find(' ')));
    return address && is_tailscale_address(*address);
}

bool may_cut_ssh(const std::string& accepted) {
    for (std::string_view one : split(accepted, ','))
        if (trim(one) == "all" || trim(one) == "lose-ssh") return true;
    if (!comes_by_tailnet(ssh_client())) return true;
    fmt::print(stderr, "You are connected over the tailnet; this may end your session. To skip this warning, use "
                       "--accept-risk=lose-ssh\n");
    std::string answer;
    if (::isatty(STDIN_FILENO) != 0 && ::isatty(STDERR_FILENO) != 0) {
        fmt::print(stderr, "Continue? [y/N] ");
        for (int c = std::getchar(); c != EOF && c != '\n'; c = std::getchar()) answer += static_cast<char>(c);
    }
    if (to_lower(answer) == "y" || to_lower(answer) == "yes") return true;
    fmt::print(stderr, "aborted, no changes made\n");
    return false;
}

} // namespace tailrace::cli
