// relay/core/shared.hpp - what all cores have in common: settings, each other, and the way to ask for admission.
#pragma once
#include "base/io/tls.hpp"
#include "proto/derp.hpp"
#include "relay/core/counters.hpp"
#include "relay/core/mail.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

namespace tailrace::relay {

class Core;

using KeyList = std::unordered_set<NodeKey>;

/// Of what one client may send.
struct RateLimit {
    double bytes_per_second = 0; ///< 0: any
    double burst_bytes = 0;
    bool operator==(const RateLimit&) const = default;
};

/// Fixed at start.
struct CoreSettings {
    NodePrivateKey key;
    NodeKey public_key;
    std::optional<derp::MeshKey> mesh_key;
    std::string hostname;
    bool ask_control = false; ///< each client is verified by Shared::ask_control
    // Source: tailscale derp/derpserver/derpserver.go.
    Duration login_timeout = std::chrono::seconds{10};
    Duration write_timeout = std::chrono::seconds{2};
    Duration mesh_write_timeout = std::chrono::seconds{30};
    Duration keep_alive = std::chrono::seconds{60};
    Duration keep_alive_jitter = std::chrono::milliseconds{4500}; // 5 s less the timer's coarseness
    Duration silence_limit = std::chrono::seconds{120};           ///< of a mesh link, without any frame
};

/// The cores refer to this; it outlives them.
struct Shared {
    CoreSettings settings;
    std::vector<std::unique_ptr<Core>> cores;
    /// rings[from][to]
    std::vector<std::vector<std::unique_ptr<BatchRing>>> rings;
    /// Any thread may call it; the answer comes on another.
    std::function<void(const NodeKey& key, const IpAddress& from, std::function<void(bool allowed)> answer)>
        ask_control;
    /// The text of /metrics. Any thread may call it.
    std::function<std::string()> metrics;
};

} // namespace tailrace::relay
