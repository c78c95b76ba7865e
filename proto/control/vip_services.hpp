// proto/control/vip_services.hpp - which services a client hosts, as it says when it is asked (control-protocol.md 5.7,
// c2n /vip-services). Source: tailscale tailcfg/c2ntypes.go, tailcfg.go, type VIPService.
#pragma once
#include "base/json/fields.hpp"
#include "base/result.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tailrace::wire {

struct VipService {
    std::string name;               ///< "svc:web"
    std::vector<std::string> ports; ///< that it serves: "tcp:443", "tcp:8000-8010"; "*": all
    bool active = false;            ///< false: it takes no new connections
    bool operator==(const VipService&) const = default;
};

struct VipServices {
    static constexpr std::size_t kMostServices = 256;
    static constexpr std::size_t kMostPorts = 64; ///< of one service

    std::vector<VipService> services;
    std::string hash; ///< equal to Hostinfo.ServicesHash while nothing has changed
    bool operator==(const VipServices&) const = default;
};

/// Refuses more than would be of any use.
Result<VipServices> parse_vip_services(std::string_view text);
std::string write_vip_services(const VipServices& services);

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::VipService> {
    using S = wire::VipService;
    static constexpr auto fields =
        field_table(field("Name", &S::name), field("Ports", &S::ports), field("Active", &S::active));
};
template <>
struct JsonFields<wire::VipServices> {
    using S = wire::VipServices;
    static constexpr auto fields =
        field_table(field("VIPServices", &S::services, Omit::Empty), field("ServicesHash", &S::hash));
};

} // namespace tailrace
