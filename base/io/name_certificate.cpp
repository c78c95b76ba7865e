#include "base/io/name_certificate.hpp"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>

namespace tailrace {
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

constexpr long kSecondsInDay = 24L * 3600;
constexpr int kDays = 30; // before and after now; clients do not look

Error tls_error() {
    unsigned long code = ERR_get_error();
    const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
    ERR_clear_error();
    return Error::make("make the certificate of a name: {}", reason != nullptr ? reason : "unknown TLS error");
}

} // namespace

Result<void> add_name_certificate(const TlsContext& server, const std::string& common_name, long serial) {
    OwnedKey signer{EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")};
    OwnedCertificate certificate{X509_new()};
    if (!signer || !certificate) return tls_error();
    X509_set_version(certificate.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -kDays * kSecondsInDay);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), kDays * kSecondsInDay);
    X509_set_pubkey(certificate.get(), signer.get());
    // Raw UTF-8: a relay's name has 71 characters, more than X.520 allows, and OpenSSL checks the other forms.
    X509_NAME* subject = X509_get_subject_name(certificate.get());
    if (X509_NAME_add_entry_by_NID(subject, NID_commonName, V_ASN1_UTF8STRING,
                                   reinterpret_cast<const unsigned char*>(common_name.data()),
                                   static_cast<int>(common_name.size()), -1, 0) != 1)
        return tls_error();
    X509_set_issuer_name(certificate.get(), subject);
    std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>> constraints{
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:FALSE")};
    if (!constraints || X509_add_ext(certificate.get(), constraints.get(), -1) != 1 ||
        X509_sign(certificate.get(), signer.get(), nullptr) == 0 ||
        SSL_CTX_add1_chain_cert(server.get(), certificate.get()) != 1)
        return tls_error();
    return {};
}

} // namespace tailrace
