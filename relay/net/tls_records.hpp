// relay/net/tls_records.hpp - TLS 1.3 records after the handshake, in 400 bytes instead of OpenSSL's 14.7 KB.
//
// A relay has tens of thousands of clients that say nothing for a minute. OpenSSL 3.0 keeps 7.6 KB for a fresh
// connection and 14.7 KB after its handshake (measured), which no option lowers. So OpenSSL does the handshake, and all
// ciphers; what is done here is RFC 8446 section 5 (records), 4.6.3 (key updates) and 7.2 (the next key), for the
// server's side only. TLS 1.2 stays with OpenSSL.
#pragma once
#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"

#include <memory>

struct ssl_st;
struct ssl_ctx_st;

namespace tailrace::relay {

/// Of one connection. Pure: bytes in, bytes out.
class TlsRecords {
public:
    static constexpr std::size_t kHeader = 5, kTag = 16;
    static constexpr std::size_t kMaxPlaintext = 16 * 1024;
    /// The longest record on the wire, and what sealing adds to a piece of kMaxPlaintext or less.
    static constexpr std::size_t kMaxRecord = kHeader + kMaxPlaintext + 256;
    static constexpr std::size_t kOverhead = kHeader + 1 + kTag;

    /// Makes the contexts of this kind remember, for each connection, what from_handshake() needs.
    static void prepare(ssl_ctx_st* context);
    /// Right after the handshake, before any byte of the application: null when the connection must stay with OpenSSL.
    static std::unique_ptr<TlsRecords> from_handshake(ssl_st* ssl);

    enum class Suite : std::uint8_t { Aes128, Aes256, ChaCha20 };
    /// The secrets of RFC 8446 section 7.1, 32 bytes or 48 with Aes256.
    static Result<std::unique_ptr<TlsRecords>> create(Suite suite, BytesView client_secret, BytesView server_secret);

    struct Opened {
        std::size_t taken = 0;     ///< of the ciphertext: whole records
        std::size_t plaintext = 0; ///< written to the front of `into`
        bool closed = false;       ///< the client says goodbye
    };
    /// Opens all whole records at the front of `ciphertext`, as far as their content is sure to fit. An error means
    /// that the connection is broken, or attacked.
    Result<Opened> open(BytesView ciphertext, std::span<std::byte> into);
    /// One record with up to kMaxPlaintext bytes, appended to `out`. Key updates that are due come before it.
    bool seal(BytesView plaintext, Bytes& out);
    /// "close_notify".
    void seal_goodbye(Bytes& out);

    ~TlsRecords();

private:
    // Content types, RFC 8446 section 5.1.
    enum class Content : std::uint8_t { Alert = 21, Handshake = 22, Application = 23 };

    struct Direction {
        Secret<48> secret; // for the next key
        Secret<32> key;
        std::array<std::byte, 12> iv{};
        std::uint64_t sequence = 0;
        std::uint64_t key_id = 0; // of all keys of this process, so that a cipher knows which one it has
    };
    explicit TlsRecords(Suite suite) : suite_(suite) {}
    void derive(Direction& direction);
    void next_key(Direction& direction);
    bool seal_record(Content type, BytesView content, Bytes& out);
    bool seal_key_update(Bytes& out);
    Result<std::size_t> open_record(BytesView record, std::span<std::byte> into, Content& type);
    Result<void> on_handshake_message(BytesView message);

    Suite suite_;
    bool owes_key_update_ = false;
    int empty_records_ = 0;
    Direction from_client_, to_client_;
};

} // namespace tailrace::relay
