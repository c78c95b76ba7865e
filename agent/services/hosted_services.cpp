#include "agent/services/hosted_services.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"

#include <sodium.h>

#include <algorithm>
#include <map>
#include <set>

namespace tailrace {

namespace {

constexpr const char* kEveryPort = "*"; // Source: tailscale tailcfg/proto_port_range.go, of any protocol and any port

std::string hash_of(const std::vector<wire::VipService>& services) {
    const std::string text = json::write(services) + "\n"; // as Go's encoder ends it
    std::array<std::byte, crypto_hash_sha256_BYTES> digest{};
    crypto_hash_sha256(reinterpret_cast<unsigned char*>(digest.data()), as_uchars(as_bytes(text)), text.size());
    return hex_encode(digest);
}

using Addresses = std::map<std::string, std::vector<IpAddress>>; // by the name of the service

Result<Addresses> addresses_given(const wire::Node& self) {
    Addresses out;
    auto said = self.cap_map.find(kServiceHostCap);
    if (said == self.cap_map.end()) return out;
    for (const RawJson& value : said->second) {
        auto given = json::parse<Addresses>(value.text);
        if (!given) return given.error();
        out.merge(*given);
    }
    return out;
}

} // namespace

wire::VipServices offered_services(const Prefs& prefs) {
    wire::VipServices out;
    const std::vector<std::string> names = prefs.services();
    for (const std::string& name : std::set<std::string>{names.begin(), names.end()})
        out.services.push_back({name, {kEveryPort}, true});
    if (!out.services.empty()) out.hash = hash_of(out.services);
    return out;
}

HostedServices hosted_services(const wire::Node& self, const Prefs& prefs) {
    HostedServices out;
    if (prefs.services().empty()) return out;
    auto given = addresses_given(self);
    if (!given) {
        out.notes.push_back(
            fmt::format("No service is hosted: what control says of them is not understood: {}.", given.error()));
        return out;
    }
    std::set<IpAddress> addresses;
    std::vector<std::string> waiting;
    for (const wire::VipService& offered : offered_services(prefs).services) {
        auto found = given->find(offered.name);
        if (found == given->end()) {
            waiting.push_back(offered.name);
            continue;
        }
        for (const IpAddress& address : found->second) {
            // Others would stay on the device when the service goes, and could be those of the host's own networks.
            const IpAddress plain = address.unmapped();
            const bool is_own = std::ranges::find(self.addresses, IpPrefix::single(plain)) != self.addresses.end();
            if (is_tailscale_address(plain) && !is_own)
                addresses.insert(plain);
            else
                out.notes.push_back(
                    fmt::format("{} is no address that {} can have: it is left out.", address.text(), offered.name));
        }
    }
    out.addresses.assign(addresses.begin(), addresses.end());
    if (!waiting.empty())
        out.notes.push_back(fmt::format("This node offers to host {}, and control does not let it: a service must "
                                        "exist, name one of this node's tags, and the node be approved; "
                                        "\"tailrace-control services list\" says what is missing.",
                                        join(waiting, ", ")));
    return out;
}

} // namespace tailrace
