#include "base/io/name_certificate.hpp"

#include "base/io/openssl.hpp"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

namespace tailrace {
namespace {

constexpr long kSecondsInDay = 24L * 3600;
constexpr int kDays = 30; // before and after now; clients do not look

Error failed() {
    return tls_error("make the certificate of a name");
}

} // namespace

Result<void> add_name_certificate(const TlsContext& server, const std::string& common_name, long serial) {
    OwnedKey signer{EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")};
    OwnedCertificate certificate{X509_new()};
    if (!signer || !certificate) return failed();
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
        return failed();
    X509_set_issuer_name(certificate.get(), subject);
    OpensslOwned<X509_EXTENSION, X509_EXTENSION_free> constraints{
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:FALSE")};
    if (!constraints || X509_add_ext(certificate.get(), constraints.get(), -1) != 1 ||
        X509_sign(certificate.get(), signer.get(), nullptr) == 0 ||
        SSL_CTX_add1_chain_cert(server.get(), certificate.get()) != 1)
        return failed();
    return {};
}

} // namespace tailrace
