#include "agent/coordination/hostinfo.hpp"
#include "agent/services/hosted_services.hpp"
#include "agent/version.hpp"
#include "base/file.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <sys/utsname.h>
#include <unistd.h>

namespace tailrace {
namespace {

std::string os_release_value(std::string_view text, std::string_view name) {
    for (std::string_view line : split(text, '\n')) {
        if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != '=') continue;
        std::string_view value = trim(line.substr(name.size() + 1));
        if (value.size() >= 2 && (value.front() == '"' || value.front() == '\''))
            value = value.substr(1, value.size() - 2);
        return std::string{value};
    }
    return "";
}

} // namespace

wire::Hostinfo read_hostinfo() {
    wire::Hostinfo info;
    info.ipn_version = std::string{kVersion} + "-tailrace";
    info.os = "linux";
    info.no_logs_no_support = true;
    struct utsname kernel {};
    if (::uname(&kernel) == 0) {
        info.os_version = kernel.release;
        info.machine = kernel.machine;
        info.hostname = kernel.nodename;
        if (auto dot = info.hostname.find('.'); dot != std::string::npos) info.hostname.resize(dot);
    }
    info.go_arch = info.machine == "x86_64" ? "amd64" : info.machine == "aarch64" ? "arm64" : info.machine;
    if (auto release = read_file("/etc/os-release", 64 << 10)) {
        info.distro = os_release_value(*release, "ID");
        info.distro_version = os_release_value(*release, "VERSION_ID");
        info.distro_code_name = os_release_value(*release, "VERSION_CODENAME");
    }
    info.container = ::access("/.dockerenv", F_OK) == 0 || ::access("/run/.containerenv", F_OK) == 0;
    info.userspace = false;
    info.userspace_router = false;
    return info;
}

wire::Hostinfo hostinfo_for(const wire::Hostinfo& machine, const Prefs& prefs) {
    wire::Hostinfo info = machine;
    if (!prefs.hostname.empty()) info.hostname = prefs.hostname;
    info.shields_up = prefs.shields_up;
    info.app_connector = prefs.app_connector.advertise;
    info.peer_relay = prefs.relay_server_port.has_value();
    info.routable_ips = prefs.routes();
    std::ranges::sort(info.routable_ips);
    info.request_tags = prefs.tags();
    std::ranges::sort(info.request_tags);
    info.request_tags.erase(std::unique(info.request_tags.begin(), info.request_tags.end()), info.request_tags.end());
    info.exit_node_id = prefs.exit_node_id;
    info.services_hash = offered_services(prefs).hash;
    return info;
}

} // namespace tailrace
