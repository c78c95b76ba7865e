// relay/net/certificate.hpp - what the relay shows in TLS: its certificate and, behind it, the DERP key.
#pragma once
#include "base/io/tls.hpp"
#include "base/result.hpp"
#include "proto/keys.hpp"

#include <string>

struct ssl_st;

namespace tailrace::relay {

/// A server context for the identity, with a last certificate whose name tells clients the DERP key before the first
/// byte of DERP, which saves them a round trip (derp-disco-paths.md 1.2).
Result<TlsContext> relay_tls(const TlsIdentity& identity, const NodeKey& key);

/// What a mesh link expects of the relay that it dials.
struct ExpectedCertificate {
    std::string host; ///< must be in the certificate, unless it is pinned
    std::string pin;  ///< "sha256-raw:<hex>", or empty: ask the system's authorities
};
Result<TlsContext> mesh_tls(const ExpectedCertificate& expected);
/// After the handshake. Source: tailscale net/tlsdial.
Result<void> check_certificate(ssl_st* ssl, const ExpectedCertificate& expected);

} // namespace tailrace::relay
