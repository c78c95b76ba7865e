// base/io/stream.hpp - a byte stream over a descriptor, in layers: socket, TLS, records, replayed bytes.
#pragma once
#include "base/bytes.hpp"
#include "base/io/reactor.hpp"
#include "base/net.hpp"

#include <memory>

namespace tailrace {

/// Layers give the try_ functions, users the coroutines below them. One reader and one writer may wait at a time.
/// An idle stream waits for its descriptor and holds no buffer.
class Stream {
public:
    virtual ~Stream() = default;

    /// What is there now: 0 at the end of the stream, an error with code() EAGAIN when one must wait.
    virtual Result<std::size_t> try_read(std::span<std::byte> into) = 0;
    /// Takes some of `data`, perhaps into a buffer of its own; EAGAIN when one must wait.
    virtual Result<std::size_t> try_write(BytesView data) = 0;
    /// Sends what try_write() has buffered; EAGAIN when one must wait.
    virtual Result<void> try_flush() { return {}; }
    /// True when try_read() would give something although the descriptor is quiet.
    virtual bool has_buffered() const { return false; }
    virtual Descriptor& descriptor() = 0;

    /// Waits for at least one byte; 0 at the end of the stream.
    Task<Result<std::size_t>> read_some(std::span<std::byte> into);
    /// Fails when the stream ends before `into` is full.
    Task<Result<void>> read_exactly(std::span<std::byte> into);
    /// The caller keeps `data` alive.
    Task<Result<void>> write_all(BytesView data);
    /// Returns when read_some() would not wait.
    Task<Result<void>> wait_readable();
    /// Ends what waits, with ECANCELED. Safe at any time.
    void close() { descriptor().close(); }
    Reactor& reactor() { return descriptor().reactor(); }
    /// Who is at the other end; the zero value for Unix sockets.
    Endpoint peer();
};

/// A connected socket (TCP, Unix, socketpair) as it is.
class SocketStream final : public Stream {
public:
    SocketStream(Reactor& reactor, Fd socket) : descriptor_(reactor, std::move(socket)) {}
    Result<std::size_t> try_read(std::span<std::byte> into) override;
    Result<std::size_t> try_write(BytesView data) override;
    Descriptor& descriptor() override { return descriptor_; }

private:
    Descriptor descriptor_;
};

/// Another stream with bytes in front that had already been read from it.
class ReplayStream final : public Stream {
public:
    ReplayStream(std::unique_ptr<Stream> inner, Bytes first) : inner_(std::move(inner)), first_(std::move(first)) {}
    Result<std::size_t> try_read(std::span<std::byte> into) override;
    Result<std::size_t> try_write(BytesView data) override { return inner_->try_write(data); }
    Result<void> try_flush() override { return inner_->try_flush(); }
    bool has_buffered() const override { return at_ < first_.size() || inner_->has_buffered(); }
    Descriptor& descriptor() override { return inner_->descriptor(); }

private:
    std::unique_ptr<Stream> inner_;
    Bytes first_;
    std::size_t at_ = 0;
};

/// `stream` itself when there is nothing to replay.
std::unique_ptr<Stream> replay(std::unique_ptr<Stream> stream, Bytes first);

} // namespace tailrace
