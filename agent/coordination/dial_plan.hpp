// agent/coordination/dial_plan.hpp - where /ts2021 of a server may be reached (control-protocol.md 3.2). Pure.
#pragma once
#include "base/io/http.hpp"

#include <optional>
#include <string>

namespace tailrace {

struct DialTarget {
    bool tls = false;
    std::string host;
    std::uint16_t port = 0;
    bool operator==(const DialTarget&) const = default;
    /// "http://host:80": what an error message names.
    std::string text() const;
};

struct DialPlan {
    DialTarget cleartext;
    std::optional<DialTarget> tls; ///< none for http:// on a private address
};
DialPlan plan_dial(const Url& server);

} // namespace tailrace
