#include "agent/router/udp_gro.hpp"

#include <fmt/format.h>

namespace tailrace {

std::string udp_gro_trouble(const InterfaceFeatures& tunnel, const std::string& uplink,
                            const InterfaceFeatures& features) {
    auto is_on = [](const InterfaceFeatures& of, const char* name) {
        auto found = of.find(name);
        return found != of.end() && found->second;
    };
    if (!is_on(tunnel, "tx-udp-segmentation")) return "";
    if (!features.contains("rx-udp-gro-forwarding")) return "";
    if (is_on(features, "rx-udp-gro-forwarding") && !is_on(features, "rx-gro-list")) return "";
    return fmt::format("UDP GRO forwarding is suboptimally configured on {}, UDP forwarding throughput capability will "
                       "increase with a configuration change.\nSee https://tailscale.com/s/ethtool-config-udp-gro",
                       uplink);
}

} // namespace tailrace
