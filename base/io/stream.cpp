#include "base/io/stream.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

bool must_wait(const Error& error) {
    return error.code() == EAGAIN || error.code() == EWOULDBLOCK;
}

} // namespace

Task<Result<std::size_t>> Stream::read_some(std::span<std::byte> into) {
    for (;;) {
        auto count = try_read(into);
        if (count || !must_wait(count.error())) co_return count;
        auto ready = co_await descriptor().readable();
        if (!ready) co_return ready.error();
    }
}

Task<Result<void>> Stream::read_exactly(std::span<std::byte> into) {
    while (!into.empty()) {
        auto count = co_await read_some(into);
        if (!count) co_return count.error();
        if (*count == 0) co_return Error::make("the connection ended early");
        into = into.subspan(*count);
    }
    co_return Result<void>{};
}

Task<Result<void>> Stream::write_all(BytesView data) {
    while (!data.empty()) {
        auto count = try_write(data);
        if (count) {
            data = data.subspan(*count);
            continue;
        }
        if (!must_wait(count.error())) co_return count.error();
        auto ready = co_await descriptor().writable();
        if (!ready) co_return ready.error();
    }
    for (;;) {
        auto flushed = try_flush();
        if (flushed || !must_wait(flushed.error())) co_return flushed;
        auto ready = co_await descriptor().writable();
        if (!ready) co_return ready.error();
    }
}

Task<Result<void>> Stream::wait_readable() {
    if (has_buffered()) co_return Result<void>{};
    auto ready = co_await descriptor().readable();
    co_return ready;
}

Endpoint Stream::peer() {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getpeername(descriptor().fd(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
}

Result<std::size_t> SocketStream::try_read(std::span<std::byte> into) {
    for (;;) {
        ssize_t count = ::recv(descriptor_.fd(), into.data(), into.size(), 0);
        if (count >= 0) return static_cast<std::size_t>(count);
        if (errno != EINTR) return Error::from_errno(errno, "read");
    }
}

Result<std::size_t> SocketStream::try_write(BytesView data) {
    for (;;) {
        ssize_t count = ::send(descriptor_.fd(), data.data(), data.size(), MSG_NOSIGNAL);
        if (count >= 0) return static_cast<std::size_t>(count);
        if (errno != EINTR) return Error::from_errno(errno, "write");
    }
}

Result<std::size_t> ReplayStream::try_read(std::span<std::byte> into) {
    if (at_ == first_.size()) return inner_->try_read(into);
    std::size_t count = std::min(into.size(), first_.size() - at_);
    std::copy_n(first_.begin() + static_cast<std::ptrdiff_t>(at_), count, into.begin());
    at_ += count;
    if (at_ == first_.size()) {
        first_ = {};
        at_ = 0;
    }
    return count;
}

std::unique_ptr<Stream> replay(std::unique_ptr<Stream> stream, Bytes first) {
    if (first.empty()) return stream;
    return std::make_unique<ReplayStream>(std::move(stream), std::move(first));
}

} // namespace tailrace
