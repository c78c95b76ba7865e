#include "agent/router/ip_forwarding.hpp"
#include "base/file.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr const char* kMore = "\nSee https://tailscale.com/s/ip-forwarding";
constexpr const char* kAll4 = "net/ipv4/ip_forward";
constexpr const char* kAll6 = "net/ipv6/conf/all/forwarding";

Result<bool> is_on(const std::string& path, const ReadSetting& read) {
    auto text = read(path);
    if (!text && text.error().code() == ENOENT) return false; // a kernel without IPv6 forwards none
    if (!text) return text.error();
    if (*text == "1" || *text == "2") return true; // 2: and takes router advertisements all the same
    if (*text == "0") return false;
    return Error::make("/proc/sys/{} says \"{}\"", path, *text);
}

/// In the form of sysctl(8), where a dot in a name is written as a slash.
std::string setting_name(std::string interface) {
    std::ranges::replace(interface, '.', '/');
    return fmt::format("net.ipv4.conf.{}.forwarding", interface);
}

} // namespace

Result<std::string> read_kernel_setting(const std::string& path) {
    auto content = read_file("/proc/sys/" + path, 256);
    if (!content) return content.error();
    return std::string{trim(*content)};
}

std::string ip_forwarding_trouble(const ForwardingQuestion& question, const ReadSetting& read) {
    bool want4 = false, want6 = false;
    for (const IpPrefix& route : question.routes) {
        if (route.is_single() && std::ranges::find(question.own, route.address()) != question.own.end()) continue;
        (route.address().is_v4() ? want4 : want6) = true;
    }
    if (!want4 && !want6) return "";
    auto cannot_tell = [](const Error& error) {
        return fmt::format(
            "Couldn't check system's IP forwarding configuration, subnet routing/exit nodes may not work: {}{}",
            error.message(), kMore);
    };
    auto on4 = is_on(kAll4, read), on6 = is_on(kAll6, read);
    if (!on4) return cannot_tell(on4.error());
    if (!on6) return cannot_tell(on6.error());
    if (*on4 && *on6) return "";
    if (!want4)
        return *on6 ? "" : fmt::format("IPv6 forwarding is disabled, subnet routing/exit nodes may not work.{}", kMore);
    std::vector<std::string> troubles;
    if (want6 && !*on6) troubles.emplace_back("IPv6 forwarding is disabled.");
    bool any = false;
    for (const std::string& interface : question.interfaces) {
        auto on = is_on(fmt::format("net/ipv4/conf/{}/forwarding", interface), read);
        if (!on) return cannot_tell(on.error());
        any = any || *on;
        if (!*on)
            troubles.push_back(fmt::format("Traffic received on {} won't be forwarded ({} disabled)", interface,
                                           setting_name(interface)));
    }
    if (!any) return fmt::format("IP forwarding is disabled, subnet routing/exit nodes will not work.{}", kMore);
    if (troubles.empty()) return "";
    return fmt::format("{}\nSubnet routes and exit nodes may not work correctly.{}", join(troubles, "\n"), kMore);
}

} // namespace tailrace
