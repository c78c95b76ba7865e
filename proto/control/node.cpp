#include "proto/control/node.hpp"

#include "base/json/json.hpp"
#include "proto/control/derp_map.hpp"
#include "proto/control/register.hpp"

namespace tailrace::wire {
namespace {

constexpr std::string_view kDerpMagicAddress = "127.3.3.40:";

} // namespace

int Node::home_region() const {
    if (home_derp != 0) return home_derp;
    if (legacy_derp.rfind(kDerpMagicAddress, 0) != 0) return 0;
    return parse_number<std::uint16_t>(std::string_view{legacy_derp}.substr(kDerpMagicAddress.size())).value_or(0);
}

std::string legacy_derp_text(int region) {
    return region == 0 ? std::string{} : fmt::format("{}{}", kDerpMagicAddress, region);
}

Result<Node> parse_node(std::string_view text) {
    return json::parse<Node>(text);
}
std::string write_node(const Node& node) {
    return json::write(node);
}
std::string write_user_profile(const UserProfile& profile) {
    return json::write(profile);
}

Result<Hostinfo> parse_hostinfo(std::string_view text) {
    return json::parse<Hostinfo>(text);
}
std::string write_hostinfo(const Hostinfo& hostinfo) {
    return json::write(hostinfo);
}

Result<DerpMap> parse_derp_map(std::string_view text) {
    return json::parse<DerpMap>(text);
}
std::string write_derp_map(const DerpMap& map) {
    return json::write(map);
}

Result<RegisterRequest> parse_register_request(std::string_view text) {
    return json::parse<RegisterRequest>(text);
}
std::string write_register_request(const RegisterRequest& request) {
    return json::write(request);
}
Result<RegisterResponse> parse_register_response(std::string_view text) {
    return json::parse<RegisterResponse>(text);
}
std::string write_register_response(const RegisterResponse& response) {
    return json::write(response);
}

} // namespace tailrace::wire
