// control/tailnet/services.hpp - services: names with addresses of their own ("svc:web"), and the nodes that host them.
// Pure. Source: admin-api.md 17, policy.md 3.2.
#pragma once
#include "base/result.hpp"
#include "control/model/model.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Whether a node hosts a service, or what it lacks.
enum class HostState {
    Serves,
    Stranger,   ///< it neither says that it serves it nor was approved
    Silent,     ///< approved, but it does not say that it serves it
    Drained,    ///< it takes no new connections
    Untagged,   ///< it has none of the tags that hosts must have
    PortsLack,  ///< it does not serve every port of the service
    Unapproved, ///< nobody has said that it may
    Revoked
};
HostState host_state(const Service& service, const Node& node);
/// For people: "serves", "waits for approval", ...
std::string_view host_state_text(HostState state);

/// "tcp:443" or "tcp:8000-8010"; "do-not-validate" is every port.
Result<std::vector<PortRange>> parse_service_ports(const std::vector<std::string>& texts);
std::vector<std::string> service_ports_text(const std::vector<PortRange>& ports);
/// The label of a service's name.
std::string_view service_label(std::string_view name);

/// As the store keeps it; text that is no such JSON is an error.
std::string write_hosting(const Hosting& hosting);
Result<Hosting> read_hosting(std::string_view json);

} // namespace tailrace
