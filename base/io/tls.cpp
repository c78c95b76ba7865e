#include "base/io/tls.hpp"

#include "base/io/openssl.hpp"
#include "base/random.hpp"
#include "base/text.hpp"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <cerrno>

namespace tailrace {
namespace {

void free_bio(BIO* bio) {
    BIO_free_all(bio);
}
using OwnedBio = OpensslOwned<BIO, free_bio>;

constexpr std::string_view kPin = "sha256-raw:";
constexpr unsigned char kHttp11[] = "\x08http/1.1";

int choose_protocol(SSL*, const unsigned char** out, unsigned char* length, const unsigned char* offered,
                    unsigned offered_length, void*) {
    unsigned char* chosen = nullptr;
    if (SSL_select_next_proto(&chosen, length, kHttp11, sizeof kHttp11 - 1, offered, offered_length) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

class TlsStream final : public Stream {
public:
    TlsStream(std::unique_ptr<Stream> socket, SSL* ssl) : socket_(std::move(socket)), ssl_(ssl) {}
    SSL* ssl() const { return ssl_.get(); }

    Result<std::size_t> try_read(std::span<std::byte> into) override {
        ERR_clear_error();
        std::size_t count = 0;
        int done = SSL_read_ex(ssl_.get(), into.data(), into.size(), &count);
        if (done == 1) return count;
        int why = SSL_get_error(ssl_.get(), done);
        if (why == SSL_ERROR_ZERO_RETURN) return std::size_t{0};
        // A peer that closes the socket without close_notify is common; the protocols above frame their messages.
        if (why == SSL_ERROR_SYSCALL && errno == 0) return std::size_t{0};
        if (why == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
            ERR_clear_error();
            return std::size_t{0};
        }
        return explain(why, "TLS read");
    }
    Result<std::size_t> try_write(BytesView data) override {
        ERR_clear_error();
        std::size_t count = 0;
        int done = SSL_write_ex(ssl_.get(), data.data(), data.size(), &count);
        if (done == 1) return count;
        return explain(SSL_get_error(ssl_.get(), done), "TLS write");
    }
    bool has_buffered() const override { return SSL_pending(ssl_.get()) > 0; }
    Descriptor& descriptor() override { return socket_->descriptor(); }

    Task<Result<void>> handshake() {
        for (;;) {
            ERR_clear_error();
            int done = SSL_do_handshake(ssl_.get());
            if (done == 1) co_return Result<void>{};
            int why = SSL_get_error(ssl_.get(), done);
            Result<void> ready;
            if (why == SSL_ERROR_WANT_READ) {
                ready = co_await descriptor().readable();
            } else if (why == SSL_ERROR_WANT_WRITE) {
                ready = co_await descriptor().writable();
            } else {
                long verified = SSL_get_verify_result(ssl_.get());
                if (verified != X509_V_OK)
                    co_return Error::make("TLS: the certificate is not good: {}",
                                          X509_verify_cert_error_string(verified));
                co_return explain(why, "TLS handshake");
            }
            if (!ready) co_return ready.error();
        }
    }

private:
    static Error explain(int why, const char* what) {
        // A renegotiation may want the other direction; waiting for the own one is at worst late, never wrong.
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return Error::from_errno(EAGAIN, "{}", what);
        if (why == SSL_ERROR_SYSCALL && errno != 0) return Error::from_errno(errno, "{}", what);
        return tls_error(what);
    }

    std::unique_ptr<Stream> socket_;
    OpensslOwned<SSL, SSL_free> ssl_;
};

Task<Result<std::unique_ptr<Stream>>> start_tls(std::unique_ptr<TlsStream> stream, Duration timeout) {
    Timer timer{stream->reactor()};
    bool timed_out = false;
    timer.after(timeout, [&] {
        timed_out = true;
        stream->close();
    });
    auto done = co_await stream->handshake();
    if (timed_out) co_return Error::from_errno(ETIMEDOUT, "TLS handshake");
    if (!done) co_return done.error();
    std::unique_ptr<Stream> out = std::move(stream);
    co_return out;
}

std::shared_ptr<SSL_CTX> new_context(const SSL_METHOD* method) {
    std::shared_ptr<SSL_CTX> context{SSL_CTX_new(method), SSL_CTX_free};
    if (!context) return context;
    SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
    SSL_CTX_set_mode(context.get(),
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

Result<std::string> pem_of(auto&& write) {
    OwnedBio bio{BIO_new(BIO_s_mem())};
    if (!bio || write(bio.get()) != 1) return tls_error("write PEM");
    char* data = nullptr;
    long length = BIO_get_mem_data(bio.get(), &data);
    return std::string{data, static_cast<std::size_t>(length)};
}

} // namespace

Result<TlsIdentity> make_self_signed(const std::vector<std::string>& names, std::chrono::seconds valid_for) {
    OwnedKey key{EVP_EC_gen("P-256")};
    OwnedCertificate certificate{X509_new()};
    if (!key || !certificate) return tls_error("make a TLS key");
    X509_set_version(certificate.get(), 2);
    unsigned char serial[16];
    fill_random(std::as_writable_bytes(std::span{serial}));
    serial[0] = static_cast<unsigned char>((serial[0] & 0x3f) | 0x40); // positive, and never with needless zeros
    ASN1_STRING_set(X509_get_serialNumber(certificate.get()), serial, sizeof serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -7200);
    auto days = std::chrono::floor<std::chrono::days>(valid_for);
    X509_time_adj_ex(X509_getm_notAfter(certificate.get()), static_cast<int>(days.count()),
                     static_cast<long>((valid_for - days).count()), nullptr);
    X509_set_pubkey(certificate.get(), key.get());
    std::string first = names.empty() ? "tailrace" : names.front();
    auto* subject = X509_get_subject_name(certificate.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(first.c_str()), -1,
                               -1, 0);
    X509_set_issuer_name(certificate.get(), subject);
    std::string alternatives;
    for (const auto& name : names) {
        auto address = IpAddress::parse(name);
        alternatives +=
            fmt::format("{}{}:{}", alternatives.empty() ? "" : ",", address && address->valid() ? "IP" : "DNS", name);
    }
    if (!alternatives.empty()) {
        OpensslOwned<X509_EXTENSION, X509_EXTENSION_free> extension{
            X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, alternatives.c_str())};
        if (!extension || X509_add_ext(certificate.get(), extension.get(), -1) != 1)
            return tls_error("name the TLS certificate");
    }
    if (X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0) return tls_error("sign the TLS certificate");
    auto certificate_pem = pem_of([&](BIO* bio) { return PEM_write_bio_X509(bio, certificate.get()); });
    if (!certificate_pem) return certificate_pem.error();
    auto key_pem = pem_of(
        [&](BIO* bio) { return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
    if (!key_pem) return key_pem.error();
    return TlsIdentity{*certificate_pem, *key_pem};
}

Result<std::array<std::byte, 32>> parse_certificate_pin(std::string_view text) {
    std::array<std::byte, 32> sha256{};
    auto digest = hex_decode(text.starts_with(kPin) ? text.substr(kPin.size()) : "");
    if (!digest || digest->size() != sha256.size())
        return Error::make("\"{}\" is no SHA-256 of a certificate: {} and 64 hex digits", text, kPin);
    std::copy(digest->begin(), digest->end(), sha256.begin());
    return sha256;
}

Result<std::string> certificate_pin(const X509* certificate) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (X509_digest(certificate, EVP_sha256(), digest, &size) != 1) return tls_error("hash the TLS certificate");
    return std::string{kPin} + hex_encode(std::as_bytes(std::span{digest, size}));
}

Result<std::string> certificate_pin(std::string_view pem) {
    OwnedBio bio{BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))};
    OwnedCertificate leaf{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)};
    if (!leaf) return tls_error("read the TLS certificate");
    return certificate_pin(leaf.get());
}

Result<TlsContext> TlsContext::server(const TlsIdentity& identity) {
    auto context = new_context(TLS_server_method());
    if (!context) return tls_error("TLS");
    OwnedBio chain{BIO_new_mem_buf(identity.certificate.data(), static_cast<int>(identity.certificate.size()))};
    OwnedBio key_text{BIO_new_mem_buf(identity.key.data(), static_cast<int>(identity.key.size()))};
    OwnedCertificate leaf{PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)};
    if (!leaf || SSL_CTX_use_certificate(context.get(), leaf.get()) != 1) return tls_error("read the TLS certificate");
    for (;;) {
        OwnedCertificate next{PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)};
        if (!next) break;
        SSL_CTX_add1_chain_cert(context.get(), next.get());
    }
    ERR_clear_error();
    OwnedKey key{PEM_read_bio_PrivateKey(key_text.get(), nullptr, nullptr, nullptr)};
    if (!key || SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1) return tls_error("read the TLS key");
    if (SSL_CTX_check_private_key(context.get()) != 1) return tls_error("the TLS key does not fit the certificate");
    SSL_CTX_set_alpn_select_cb(context.get(), choose_protocol, nullptr);
    return TlsContext{std::move(context), Verify::None};
}

Result<TlsContext> TlsContext::client(Verify verify, std::string name) {
    auto context = new_context(TLS_client_method());
    if (!context) return tls_error("TLS");
    if (verify == Verify::Strict) {
        SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
        if (SSL_CTX_set_default_verify_paths(context.get()) != 1)
            return tls_error("read the system's certificate authorities");
    }
    return TlsContext{std::move(context), verify, std::move(name)};
}

namespace {

using Sha256 = std::array<std::byte, 32>;

std::string common_name_of(X509* certificate) {
    X509_NAME* subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) return "";
    ASN1_STRING* name = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(name)),
            static_cast<std::size_t>(ASN1_STRING_length(name))};
}

bool is_derp_key(X509* certificate) {
    return common_name_of(certificate).starts_with("derpkey");
}

int check_pin(X509_STORE_CTX* store, void* pin) {
    X509* leaf = X509_STORE_CTX_get0_cert(store);
    if (leaf == nullptr) return 0;
    auto refuse = [&](int why) {
        X509_STORE_CTX_set_error(store, why);
        return 0;
    };
    auto* chain = X509_STORE_CTX_get0_untrusted(store);
    int others = 0;
    for (int i = 0; chain != nullptr && i < sk_X509_num(chain); ++i) {
        X509* certificate = sk_X509_value(chain, i);
        if (X509_cmp(certificate, leaf) != 0 && !is_derp_key(certificate)) ++others;
    }
    if (others != 0) return refuse(X509_V_ERR_CERT_CHAIN_TOO_LONG);
    Sha256 digest{};
    unsigned length = 0;
    if (X509_digest(leaf, EVP_sha256(), reinterpret_cast<unsigned char*>(digest.data()), &length) != 1 ||
        length != digest.size() || digest != *static_cast<const Sha256*>(pin))
        return refuse(X509_V_ERR_CERT_REJECTED);
    if (X509_cmp_current_time(X509_get0_notBefore(leaf)) > 0) return refuse(X509_V_ERR_CERT_NOT_YET_VALID);
    if (X509_cmp_current_time(X509_get0_notAfter(leaf)) < 0) return refuse(X509_V_ERR_CERT_HAS_EXPIRED);
    auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    const char* name = ssl == nullptr ? nullptr : SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (name != nullptr && X509_check_host(leaf, name, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr) != 1)
        return refuse(X509_V_ERR_HOSTNAME_MISMATCH);
    return 1;
}

} // namespace

std::optional<TlsPeer> tls_peer(Stream& stream) {
    auto* tls = dynamic_cast<TlsStream*>(&stream);
    if (tls == nullptr) return std::nullopt;
    TlsPeer peer;
    peer.tls13 = SSL_version(tls->ssl()) >= TLS1_3_VERSION;
    STACK_OF(X509)* chain = SSL_get_peer_cert_chain(tls->ssl());
    for (int i = 0; chain != nullptr && i < sk_X509_num(chain); ++i) {
        X509* certificate = sk_X509_value(chain, i);
        TlsPeer::Certificate entry{common_name_of(certificate), std::nullopt};
        std::uint64_t serial = 0;
        if (ASN1_INTEGER_get_uint64(&serial, X509_get0_serialNumber(certificate)) == 1) entry.serial = serial;
        peer.certificates.push_back(std::move(entry));
    }
    return peer;
}

Result<TlsContext> TlsContext::pinned(const std::array<std::byte, 32>& sha256) {
    auto made = new_context(TLS_client_method());
    if (!made) return tls_error("TLS");
    auto pin = std::make_shared<Sha256>(sha256);
    std::shared_ptr<SSL_CTX> context{made.get(), [made, pin](SSL_CTX*) {}}; // the callback needs the pin
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_cert_verify_callback(context.get(), check_pin, pin.get());
    return TlsContext{std::move(context), Verify::None};
}

Task<Result<std::unique_ptr<Stream>>> tls_accept(TlsContext context, std::unique_ptr<Stream> socket, Duration timeout) {
    SSL* ssl = SSL_new(context.get());
    if (ssl == nullptr) co_return tls_error("TLS");
    SSL_set_fd(ssl, socket->descriptor().fd());
    SSL_set_accept_state(ssl);
    auto stream = std::make_unique<TlsStream>(std::move(socket), ssl);
    auto done = co_await start_tls(std::move(stream), timeout);
    co_return done;
}

Task<Result<std::unique_ptr<Stream>>> tls_connect(TlsContext context, std::unique_ptr<Stream> socket, std::string host,
                                                  Duration timeout) {
    SSL* ssl = SSL_new(context.get());
    if (ssl == nullptr) co_return tls_error("TLS");
    SSL_set_fd(ssl, socket->descriptor().fd());
    SSL_set_connect_state(ssl);
    auto stream = std::make_unique<TlsStream>(std::move(socket), ssl);
    auto is_address = [](const std::string& name) {
        auto literal = IpAddress::parse(name);
        return literal && literal->valid();
    };
    if (!is_address(host)) SSL_set_tlsext_host_name(ssl, host.c_str());
    if (context.verify() == TlsContext::Verify::Strict) {
        const std::string& name = context.name().empty() ? host : context.name();
        int named = is_address(name) ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str())
                                     : SSL_set1_host(ssl, name.c_str());
        if (named != 1) co_return tls_error("TLS");
    }
    SSL_set_alpn_protos(ssl, kHttp11, sizeof kHttp11 - 1);
    auto done = co_await start_tls(std::move(stream), timeout);
    co_return done;
}

} // namespace tailrace
