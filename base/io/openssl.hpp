// base/io/openssl.hpp - who owns objects of OpenSSL, and what it says of an error. Only for .cpp files.
#pragma once
#include "base/result.hpp"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string_view>

namespace tailrace {

template <auto Free>
struct OpensslDeleter {
    template <typename T>
    void operator()(T* thing) const {
        Free(thing);
    }
};
template <typename T, auto Free>
using OpensslOwned = std::unique_ptr<T, OpensslDeleter<Free>>;
using OwnedKey = OpensslOwned<EVP_PKEY, EVP_PKEY_free>;
using OwnedCertificate = OpensslOwned<X509, X509_free>;

/// The oldest error of this thread, all of which are forgotten then.
inline Error tls_error(std::string_view what) {
    unsigned long code = ERR_get_error();
    const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
    ERR_clear_error();
    return Error::make("{}: {}", what, reason != nullptr ? reason : "unknown TLS error");
}

} // namespace tailrace
