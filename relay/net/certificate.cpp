#include "relay/net/certificate.hpp"

#include "base/io/name_certificate.hpp"
#include "base/io/openssl.hpp"
#include "base/text.hpp"
#include "proto/derp.hpp"
#include "relay/net/tls_records.hpp"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

namespace tailrace::relay {
namespace {

bool is_meta(X509* certificate) {
    X509_NAME* subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) return false;
    const ASN1_STRING* name = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    std::string_view text{reinterpret_cast<const char*>(ASN1_STRING_get0_data(name)),
                          static_cast<std::size_t>(ASN1_STRING_length(name))};
    return text.starts_with(derp::kKeyNamePrefix);
}

} // namespace

Result<TlsContext> relay_tls(const TlsIdentity& identity, const NodeKey& key) {
    auto context = TlsContext::server(identity);
    if (!context) return context;
    if (auto added = add_name_certificate(*context, derp::name_of_key(key), derp::kVersion); !added)
        return added.error();
    SSL_CTX* raw = context->get();
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
