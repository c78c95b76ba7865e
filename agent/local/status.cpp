#include "agent/local/status.hpp"
#include "base/json/json.hpp"

namespace tailrace {

std::string_view text(BackendState state) {
    switch (state) {
    case BackendState::NoState:
        return "NoState";
    case BackendState::InUseOtherUser:
        return "InUseOtherUser";
    case BackendState::NeedsLogin:
        return "NeedsLogin";
    case BackendState::NeedsMachineAuth:
        return "NeedsMachineAuth";
    case BackendState::Stopped:
        return "Stopped";
    case BackendState::Starting:
        return "Starting";
    case BackendState::Running:
        return "Running";
    }
    return "NoState";
}

Result<Status> parse_status(std::string_view text) {
    return json::parse<Status>(text);
}
std::string write_status(const Status& status) {
    return json::write(status);
}
Result<PingResult> parse_ping_result(std::string_view text) {
    return json::parse<PingResult>(text);
}
std::string write_ping_result(const PingResult& result) {
    return json::write(result);
}

} // namespace tailrace
