#include "base/service.hpp"

#include "base/fd.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>
#include <string>

namespace tailrace {

void notify_service_manager(std::string_view state) {
    const char* path = std::getenv("NOTIFY_SOCKET");
    if (path == nullptr || *path == 0) return;
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::string name{path};
    if (name.size() >= sizeof to.sun_path) return;
    name.copy(to.sun_path, name.size());
    if (name.front() == '@') to.sun_path[0] = 0; // abstract
    Fd socket{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    (void)::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to),
                   length); // nobody to tell that nobody listens
}

} // namespace tailrace
