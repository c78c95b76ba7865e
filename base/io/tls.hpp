// base/io/tls.hpp - TLS 1.2 and 1.3 by OpenSSL, directly on the descriptor.
#pragma once
#include "base/io/stream.hpp"

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

struct ssl_ctx_st;
struct x509_st;

namespace tailrace {

/// A certificate chain and its key, PEM.
struct TlsIdentity {
    std::string certificate;
    std::string key;
};
/// ECDSA P-256, ten years unless said otherwise, for names and literal addresses.
Result<TlsIdentity> make_self_signed(const std::vector<std::string>& names,
                                     std::chrono::seconds valid_for = std::chrono::hours{24 * 3650});

/// "sha256-raw:<hex>" of a certificate: what a DERP map node's CertName says about one that no authority vouches for
/// (derp-disco-paths.md 1.1). Of PEM text the first certificate.
Result<std::string> certificate_pin(std::string_view pem);
Result<std::string> certificate_pin(const x509_st* certificate);
/// The digest in such a text; an error for any other.
Result<std::array<std::byte, 32>> parse_certificate_pin(std::string_view text);

class TlsContext {
public:
    /// Strict checks the certificate against the system's authorities and the name; None is for channels that are
    /// authenticated inside (Noise over /ts2021, control-protocol.md 3.2).
    enum class Verify { Strict, None };
    static Result<TlsContext> server(const TlsIdentity& identity);
    /// `name`: that the certificate must have where it is another one than the host that is asked for (in SNI).
    static Result<TlsContext> client(Verify verify, std::string name = {});
    /// Takes a server by the SHA-256 of its certificate (DER); no authority vouches for it, but it must be valid now
    /// and, unless the host is an address, have the host's name. Certificates whose common name begins with "derpkey"
    /// may come behind it (derp-disco-paths.md 1.1).
    static Result<TlsContext> pinned(const std::array<std::byte, 32>& sha256);

    ssl_ctx_st* get() const { return context_.get(); }
    Verify verify() const { return verify_; }
    const std::string& name() const { return name_; }

private:
    TlsContext(std::shared_ptr<ssl_ctx_st> context, Verify verify, std::string name = {})
        : context_(std::move(context)), verify_(verify), name_(std::move(name)) {}
    std::shared_ptr<ssl_ctx_st> context_;
    Verify verify_;
    std::string name_;
};

/// What the other side showed in the handshake.
struct TlsPeer {
    struct Certificate {
        std::string common_name;
        std::optional<std::uint64_t> serial; ///< empty: longer than that
    };
    bool tls13 = false;
    std::vector<Certificate> certificates; ///< as sent, its own first
};
/// Empty when the stream is not TLS.
std::optional<TlsPeer> tls_peer(Stream& stream);

/// The stream must be a plain socket. ALPN offers http/1.1 only.
Task<Result<std::unique_ptr<Stream>>> tls_accept(TlsContext context, std::unique_ptr<Stream> socket, Duration timeout);
Task<Result<std::unique_ptr<Stream>>> tls_connect(TlsContext context, std::unique_ptr<Stream> socket, std::string host,
                                                  Duration timeout);

} // namespace tailrace
