#include "proto/control/vip_services.hpp"

#include "base/json/json.hpp"

namespace tailrace::wire {

Result<VipServices> parse_vip_services(std::string_view text) {
    constexpr std::size_t kLongestText = 200;
    auto all = json::parse<VipServices>(text);
    if (!all) return all.error().with("the list of services");
    if (all->services.size() > VipServices::kMostServices)
        return Error::make("it lists {} services, and {} are the most", all->services.size(),
                           VipServices::kMostServices);
    if (all->hash.size() > kLongestText) return Error::make("its hash is {} characters long", all->hash.size());
    for (const VipService& service : all->services) {
        if (service.name.size() > kLongestText)
            return Error::make("the name of a service is {} characters long", service.name.size());
        if (service.ports.size() > VipServices::kMostPorts)
            return Error::make("{} has {} ports, and {} are the most", service.name, service.ports.size(),
                               VipServices::kMostPorts);
        for (const std::string& ports : service.ports)
            if (ports.size() > kLongestText)
                return Error::make("a port of {} is {} characters long", service.name, ports.size());
    }
    return all;
}

std::string write_vip_services(const VipServices& services) {
    return json::write(services);
}

} // namespace tailrace::wire
