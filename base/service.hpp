// base/service.hpp - how a daemon talks to the service manager that started it.
#pragma once
#include <string_view>

namespace tailrace {

/// "READY=1", "STOPPING=1", ... to systemd (Type=notify); nothing when nobody asked. Source: sd_notify(3).
void notify_service_manager(std::string_view state);

} // namespace tailrace
