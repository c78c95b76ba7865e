// base/io/name_certificate.hpp - a certificate that proves nothing and says something.
#pragma once
#include "base/io/tls.hpp"

#include <string>

namespace tailrace {

/// Lets a server show one more certificate behind its own, which is made here and now: self-signed, good for 30 days
/// around now, with a common name of any length and a serial number. Relays name their key so
/// (derp-disco-paths.md 1.2).
Result<void> add_name_certificate(const TlsContext& server, const std::string& common_name, long serial);

} // namespace tailrace
