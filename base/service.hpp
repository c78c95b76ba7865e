// base/service.hpp - how a daemon talks to the service manager that started it.
#pragma once
#include "base/fd.hpp"
#include "base/time.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// "READY=1", "STOPPING=1", ... to systemd (Type=notify); nothing when nobody asked. Source: sd_notify(3).
void notify_service_manager(std::string_view state);

/// What to send before configuration is read again; READY=1 follows. Source: sd_notify(3), RELOADING=1.
std::string reloading_state();

/// How often the service manager wants to hear that we are alive (WatchdogSec=); nothing when it does not.
/// Source: sd_watchdog_enabled(3).
std::optional<Duration> watchdog_interval();

/// The sockets that whoever started us has opened for us (socket activation), non-blocking and closed on exec. Only the
/// first call gives them. Source: sd_listen_fds(3).
std::vector<Fd> take_inherited_sockets();

} // namespace tailrace
