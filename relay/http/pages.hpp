// relay/http/pages.hpp - what the relay answers to a request head: pages, or the step over to DERP.
#pragma once
#include "base/io/http.hpp"
#include "proto/keys.hpp"
#include "relay/http/head.hpp"

#include <string>

namespace tailrace::relay {

/// What the listener is for.
enum class Door {
    Derp,     ///< DERP and everything else
    HttpOnly, ///< port 80: captive portal checks, and a pointer to https
    Metrics,  ///< /metrics and /health
};

struct PageContext {
    Door door = Door::Derp;
    bool tls = false;
    bool peer_may_debug = false; ///< sees /metrics at the front door: on this machine, or in the tailnet
    NodeKey server_key;
    std::string hostname;
};

/// The step over to DERP: `response` is written first (empty with fast start), then frames begin.
struct Upgrade {
    std::string response;
    bool websocket = false;
    bool ideal = true; ///< false: the client would rather be at another node of the region
};

struct Answer {
    std::string response; ///< everything to write before the connection closes
    std::optional<Upgrade> upgrade;
    bool wants_metrics = false; ///< the caller makes the page
};

/// Sources: derp-disco-paths.md 1.2 to 1.4. Pure.
Answer answer(const HttpHead& head, const PageContext& context);

/// A whole response, for pages that others make.
std::string write_response(int status, std::string_view content_type, std::string_view body, const HttpHead& head,
                           std::string_view more_fields = "");

} // namespace tailrace::relay
