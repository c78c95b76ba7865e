#include "relay/net/certificate.hpp"

#include "base/text.hpp"
#include "relay/net/tls_records.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>

namespace tailrace::relay {
namespace {

template <auto Free>
struct Deleter {
    template <typename T>
    void operator()(T* thing) const {
        Free(thing);
    }
};
using OwnedCertificate = std::unique_ptr<X509, Deleter<X509_free>>;
using OwnedKey = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;

constexpr std::string_view kMetaPrefix = "derpkey";
constexpr long kSecondsInDay = 24L * 3600;
constexpr int kMetaDays = 30; // before and after the start; clients do not look

Error tls_error(std::string_view what) {
    unsigned long code = ERR_get_error();
    const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
    ERR_clear_error();
    return Error::make("{}: {}", what, reason != nullptr ? reason : "unknown TLS error");
}

Result<OwnedCertificate> make_meta_certificate(const NodeKey& key) {
    constexpr const char* kWhat = "make the certificate that names the DERP key";
    OwnedKey signer{EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")};
    OwnedCertificate certificate{X509_new()};
    if (!signer || !certificate) return tls_error(kWhat);
    X509_set_version(certificate.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 2); // the version of the DERP protocol
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -kMetaDays * kSecondsInDay);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), kMetaDays * kSecondsInDay);
    X509_set_pubkey(certificate.get(), signer.get());
    // Raw UTF-8: with 71 characters the name is longer than X.520 allows, and OpenSSL checks the other forms.
    std::string name = std::string{kMetaPrefix} + hex_encode(key.view());
    X509_NAME* subject = X509_get_subject_name(certificate.get());
    if (X509_NAME_add_entry_by_NID(subject, NID_commonName, V_ASN1_UTF8STRING,
                                   reinterpret_cast<const unsigned char*>(name.data()), static_cast<int>(name.size()),
                                   -1, 0) != 1)
        return tls_error(kWhat);
    X509_set_issuer_name(certificate.get(), subject);
    std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>> constraints{
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:FALSE")};
    if (!constraints || X509_add_ext(certificate.get(), constraints.get(), -1) != 1 ||
        X509_sign(certificate.get(), signer.get(), nullptr) == 0)
        return tls_error(kWhat);
    return certificate;
}

bool is_meta(X509* certificate) {
    X509_NAME* subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) return false;
    const ASN1_STRING* name = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    std::string_view text{reinterpret_cast<const char*>(ASN1_STRING_get0_data(name)),
                          static_cast<std::size_t>(ASN1_STRING_length(name))};
    return text.starts_with(kMetaPrefix);
}

} // namespace

Result<TlsContext> relay_tls(const TlsIdentity& identity, const NodeKey& key) {
    auto context = TlsContext::server(identity);
    if (!context) return context;
    auto meta = make_meta_certificate(key);
    if (!meta) return meta.error();
    SSL_CTX* raw = context->get();
    if (SSL_CTX_add1_chain_cert(raw, meta->get()) != 1) return tls_error("add the certificate of the DERP key");
    // Sessions are never resumed: a relay's clients stay for days.
    SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(raw, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    // Each packet is deciphered and enciphered once: the cheapest of the good ciphers, unless the client has no AES.
    SSL_CTX_set_options(raw, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    if (SSL_CTX_set_ciphersuites(raw, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384") !=
        1)
        return tls_error("choose ciphers");
    TlsRecords::prepare(raw);
    return context;
}

Result<TlsContext> mesh_tls(const ExpectedCertificate& expected) {
    auto context = TlsContext::client(expected.pin.empty() ? TlsContext::Verify::Strict : TlsContext::Verify::None);
    if (!context) return context;
    SSL_CTX_set_read_ahead(context->get(), 1);
    SSL_CTX_set_options(context->get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
    return context;
}

Result<void> check_certificate(ssl_st* ssl, const ExpectedCertificate& expected) {
    OwnedCertificate leaf{SSL_get1_peer_certificate(ssl)};
    if (!leaf) return Error::make("the relay shows no certificate");
    if (expected.pin.empty()) {
        bool literal = static_cast<bool>(IpAddress::parse(expected.host));
        int matches = literal ? X509_check_ip_asc(leaf.get(), expected.host.c_str(), 0)
                              : X509_check_host(leaf.get(), expected.host.data(), expected.host.size(), 0, nullptr);
        if (matches != 1) return Error::make("its certificate is not for {}", expected.host);
        return {};
    }
    STACK_OF(X509)* chain = SSL_get_peer_cert_chain(ssl);
    for (int i = 1; i < sk_X509_num(chain); ++i)
        if (!is_meta(sk_X509_value(chain, i))) return Error::make("a pinned certificate must come alone");
    if (X509_cmp_current_time(X509_get0_notBefore(leaf.get())) > 0 ||
        X509_cmp_current_time(X509_get0_notAfter(leaf.get())) < 0)
        return Error::make("its certificate is not valid now");
    auto pin = certificate_pin(leaf.get());
    if (!pin) return pin.error();
    if (*pin != to_lower(expected.pin)) return Error::make("its certificate is {}, not the one expected", *pin);
    return {};
}

} // namespace tailrace::relay
