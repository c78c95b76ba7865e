// relay/net/transport.hpp - a non-blocking TCP connection, plain or TLS, that holds no buffer while idle.
#pragma once
#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "relay/net/tls_records.hpp"

#include <memory>
#include <string>

struct ssl_st;
struct ssl_ctx_st;

namespace tailrace::relay {

/// What one attempt came to. `bytes` counts only with Ok.
struct Attempt {
    enum class Outcome { Ok, WantRead, WantWrite, Closed };
    Outcome outcome = Outcome::Closed;
    std::size_t bytes = 0;
};

class Transport {
public:
    explicit Transport(Fd socket) : socket_(std::move(socket)) {}
    Transport(Transport&&) noexcept = default;
    Transport& operator=(Transport&&) noexcept = default;

    /// From now on it speaks TLS, as the accepting or the connecting side. `host` is for the connecting side: SNI,
    /// unless it is a literal address. False when OpenSSL has no memory.
    bool start_tls_server(ssl_ctx_st* context);
    bool start_tls_client(ssl_ctx_st* context, const std::string& host);
    /// Ok when the handshake is over; at once without TLS. A server's TLS 1.3 then leaves OpenSSL (tls_records.hpp).
    Attempt handshake();
    bool is_tls() const { return ssl_ != nullptr || records_ != nullptr; }
    ssl_st* ssl() const { return ssl_.get(); } ///< null after a handshake whose records we do ourselves

    Attempt read(std::span<std::byte> into);
    /// May take a part only. After WantWrite the next call must begin with the same bytes.
    Attempt write(BytesView data);
    /// True when read() would give something although the socket is quiet.
    bool has_buffered() const;
    /// Says goodbye: nothing more will be written.
    void finish_writing();
    int fd() const { return socket_.get(); }

private:
    Attempt explain(int done) const;
    Attempt read_records(std::span<std::byte> into);
    Attempt write_record(BytesView data);
    Attempt write_rest(BytesView sealed, std::size_t plaintext);

    struct SslFree {
        void operator()(ssl_st* ssl) const;
    };
    Fd socket_;
    // The beginning of a record, and the end of one, while they are cut off by the socket.
    struct Cut {
        Bytes arrived, unsent;
        std::size_t unsent_at = 0, unsent_plaintext = 0;
    };
    Cut& cut() {
        if (!cut_) cut_ = std::make_unique<Cut>();
        return *cut_;
    }

    std::unique_ptr<ssl_st, SslFree> ssl_;
    std::unique_ptr<TlsRecords> records_;
    std::unique_ptr<Cut> cut_;
};

} // namespace tailrace::relay
