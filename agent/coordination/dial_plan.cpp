#include "agent/coordination/dial_plan.hpp"
#include "base/net.hpp"

#include <algorithm>

namespace tailrace {

std::string DialTarget::text() const {
    bool v6 = host.find(':') != std::string::npos;
    return fmt::format("{}://{}{}{}:{}", tls ? "https" : "http", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

namespace {

bool is_private_literal(const std::string& host) {
    if (host == "localhost") return true;
    auto address = IpAddress::parse(host);
    if (!address || !address->valid()) return false;
    if (address->is_loopback()) return true;
    static const char* const ranges[] = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"};
    return std::ranges::any_of(ranges, [&](const char* range) { return IpPrefix::parse(range)->contains(*address); });
}

} // namespace

DialPlan plan_dial(const Url& server) {
    if (server.scheme == "https")
        return {DialTarget{false, server.host, 80}, DialTarget{true, server.host, server.port}};
    DialPlan plan{DialTarget{false, server.host, server.port}, std::nullopt};
    if (!is_private_literal(server.host)) plan.tls = DialTarget{true, server.host, 443};
    return plan;
}

} // namespace tailrace
