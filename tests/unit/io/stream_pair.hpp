// tests/unit/io/stream_pair.hpp - two ends of one connection.
#pragma once
#include "base/io/socket.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

namespace tailrace {

inline std::pair<std::unique_ptr<Stream>, std::unique_ptr<Stream>> stream_pair(Reactor& reactor) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    return {std::make_unique<SocketStream>(reactor, Fd{fds[0]}), std::make_unique<SocketStream>(reactor, Fd{fds[1]})};
}

} // namespace tailrace
