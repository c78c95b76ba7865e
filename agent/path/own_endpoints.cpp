#include "agent/path/own_endpoints.hpp"

#include <algorithm>
#include <map>

namespace tailrace {

std::vector<Endpoint> own_endpoints(const std::vector<Link>& links, const std::string& device, std::uint16_t port) {
    static const IpPrefix unique_local = *IpPrefix::parse("fc00::/7");
    std::vector<Endpoint> regular, last_resort, loopback;
    std::map<IpPrefix, int> per_prefix;
    for (const Link& link : links) {
        if (!link.up || link.name == device || link.name.starts_with("zt") || link.name == "wt0") continue;
        for (const InterfaceAddress& entry : link.addresses) {
            const IpAddress& address = entry.prefix.address();
            if (is_tailscale_address(address) || entry.tentative) continue;
            Endpoint endpoint{address, port};
            if (link.loopback || address.is_loopback()) {
                loopback.push_back(endpoint);
                continue;
            }
            if (address.is_v6() && address.is_link_local()) continue;
            if (address.is_v6() && ++per_prefix[entry.prefix.masked()] > 2) continue;
            bool weak = address.is_v6() ? unique_local.contains(address) : address.is_link_local();
            (weak ? last_resort : regular).push_back(endpoint);
        }
    }
    if (!regular.empty()) return regular;
    if (!last_resort.empty()) return last_resort;
    return loopback;
}

std::vector<OwnEndpoint> outside_endpoints(const std::optional<Endpoint>& forwarded, const NetReport& report,
                                           std::uint16_t port) {
    std::vector<OwnEndpoint> out;
    if (forwarded) out.push_back({*forwarded, 3});
    if (report.global_v4) out.push_back({*report.global_v4, 2});
    if (report.global_v6) out.push_back({*report.global_v6, 2});
    for (const Endpoint& endpoint : report.other_globals) out.push_back({endpoint, 2});
    if (report.global_v4 && report.mapping_varies_by_destination == true && port != 0)
        out.push_back({{report.global_v4->address, port}, 4});
    return out;
}

std::vector<OwnEndpoint> cloud_endpoints(const std::vector<IpAddress>& addresses, std::uint16_t port) {
    std::vector<OwnEndpoint> out;
    for (const IpAddress& address : addresses)
        if (!is_tailscale_address(address)) out.push_back({{address, port}, 1});
    return out;
}

void EndpointMemory::note(TimePoint now, const OwnEndpoint& endpoint) {
    std::erase_if(
        seen_, [&](const Seen& one) { return one.endpoint.endpoint == endpoint.endpoint || now - one.at > kLifetime; });
    seen_.insert(seen_.begin(), {endpoint, now});
    std::size_t count = 0;
    std::erase_if(seen_, [&](const Seen& one) {
        return one.endpoint.endpoint.address == endpoint.endpoint.address && ++count > kMostPerAddress;
    });
}

std::vector<OwnEndpoint> EndpointMemory::recent(TimePoint now) const {
    std::vector<OwnEndpoint> out;
    for (const Seen& one : seen_)
        if (now - one.at <= kLifetime) out.push_back(one.endpoint);
    return out;
}

} // namespace tailrace
