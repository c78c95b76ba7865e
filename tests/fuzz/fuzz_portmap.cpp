// A datagram of the gateway, or of somebody who says so: NAT-PMP and PCP.
#include "proto/portmap/nat_pmp.hpp"
#include "proto/portmap/pcp.hpp"

#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    BytesView data{reinterpret_cast<const std::byte*>(bytes), size};
    auto pmp = nat_pmp::parse_response(data);
    auto pcp = pcp::parse_response(data);
    if (pmp && pcp) std::abort(); // they differ in their first byte
    if (pmp) {
        std::visit([](const auto& response) { (void)nat_pmp::result_text(response.result).size(); }, *pmp);
        if (data.size() < 8 || data.size() > 16) {
            const auto* map = std::get_if<nat_pmp::MapResponse>(&*pmp);
            if (data.size() < 8 || (map != nullptr && map->result == nat_pmp::kOk)) std::abort();
        }
    }
    if (pcp) {
        if (pcp->mapping.has_value() != (pcp->kind == pcp::Response::Kind::Map)) std::abort();
        if (pcp->mapping && (data.size() < 60 || !pcp->mapping->external_address.valid())) std::abort();
    }
    return 0;
}
