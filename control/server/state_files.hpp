// control/server/state_files.hpp - what lies in the state directory besides the database: keys and certificates.
#pragma once
#include "base/io/tls.hpp"
#include "control/config/config.hpp"
#include "control/map/composer.hpp"
#include "proto/keys.hpp"

namespace tailrace {

/// The server's Noise key: made at the first start, never replaced. A file that can't be read is an error.
Result<MachinePrivateKey> load_noise_key(const std::string& state_dir);
/// As configured, else a self-signed pair of our own.
Result<TlsIdentity> load_tls_identity(const ControlConfig& config);
/// DERP map, DNS and domain as clients get them.
Result<MapComposer::Fixed> load_fixed_parts(const ControlConfig& config);

} // namespace tailrace
