// policy/explain.hpp - why may, or may not, somebody reach something? Names the line of the policy.
#pragma once
#include "policy/compile.hpp"
#include "policy/hujson.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// The answer to "SRC DST:PORT[/PROTO]".
struct Explanation {
    enum class Verdict : std::uint8_t {
        Allowed,
        Denied,
        Partly ///< only between some of the devices that the names stand for
    };
    /// One rule and what it has to do with the question.
    struct Line {
        hujson::Position position;
        std::string rule;   ///< as it stands in the policy, on one line
        std::string reason; ///< of a near miss: what keeps it from allowing this; else empty
    };

    Verdict verdict = Verdict::Denied;
    std::string source, destination; ///< as asked
    std::string summary;             ///< one sentence
    std::vector<Line> deciding;      ///< the rules that allow it; the first one decides
    std::vector<Line> near_misses;   ///< the rules that come nearest, best first; only when something is denied
    std::vector<std::string> notes;  ///< what else one should know: routes, logins

    std::string text() const;
    std::string json() const;
};

/// `source` is a device, an address or a selector; `destination` is one with a port: "tag:web:443",
/// "100.64.0.7:53/udp",
/// "[fd7a::1]:22", "laptop/icmp". Without a protocol any of the default ones counts. Fails when a name is unknown or no
/// port is given.
Result<Explanation> explain(std::shared_ptr<const CompiledPolicy> policy, std::string_view source,
                            std::string_view destination);

} // namespace tailrace
