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

} // namespace tailrace
