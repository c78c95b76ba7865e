// relay/server/state_files.hpp - what the relay keeps and reads: its key, its certificate, the lists of the operator.
#pragma once
#include "base/io/tls.hpp"
#include "proto/derp.hpp"
#include "relay/config/config.hpp"
#include "relay/core/shared.hpp"

namespace tailrace::relay {

/// STATE_DIR/relay.key, made at the first start, mode 0600, in the form of the stock relay: an operator may move a key.
Result<NodePrivateKey> load_relay_key(const std::string& state_dir);
/// By cert_mode; a self-signed pair is kept in the state directory, so that its pin stays. Not for CertMode::Plain.
Result<TlsIdentity> load_identity(const RelayConfig& config);
/// 64 hex digits and white space. Refuses a file that others may read.
Result<derp::MeshKey> load_mesh_key(const std::string& path);
/// A node key a line; empty lines and what follows # do not count.
Result<KeyList> parse_key_list(std::string_view text, const std::string& name);
Result<KeyList> load_key_list(const std::string& path);

} // namespace tailrace::relay
