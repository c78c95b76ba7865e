// base/service.hpp - how a daemon talks to the service manager that started it.
#pragma once
#include "base/fd.hpp"

#include <string_view>
#include <vector>

namespace tailrace {

/// "READY=1", "STOPPING=1", ... to systemd (Type=notify); nothing when nobody asked. Source: sd_notify(3).
void notify_service_manager(std::string_view state);

/// The sockets that whoever started us has opened for us (socket activation), non-blocking and closed on exec. Only the
/// first call gives them. Source: sd_listen_fds(3).
std::vector<Fd> take_inherited_sockets();

} // namespace tailrace
