// agent/exit_node/choice.hpp - which peer carries our internet traffic. Pure.
#pragma once
#include "agent/store/prefs.hpp"
#include "base/time.hpp"
#include "proto/control/derp_map.hpp"
#include "proto/control/node.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

/// What stands as ExitNodeID while `auto:any` has found nobody yet: no node has it, so traffic goes nowhere.
/// Source: tailscale ipn/prefs.go.
inline constexpr const char* kUnresolvedExitNode = "auto:any";

/// It has both default routes, as far as control gives them to us.
bool offers_exit_node(const wire::Node& node);

struct ExitNodeQuestion {
    std::vector<const wire::Node*> peers;
    const wire::DerpMap* relays = nullptr;
    int home_region = 0;                    ///< 0: not known yet
    std::map<int, Duration> region_latency; ///< as measured
    std::string previous;                   ///< StableID of the last suggestion
    std::uint64_t spread = 0;               ///< differs between nodes: equally good exit nodes are shared among them
};
/// The best exit node for us by cli-localapi.md 5: who is online and marked `suggest-exit-node`, in the relay region
/// that is nearest to us; nullptr: there is none. An error while our home relay is not known.
Result<const wire::Node*> suggest_exit_node(const ExitNodeQuestion& question);

/// What the preferences shall say of the exit node now: an address that was given becomes a StableID once its node is
/// known; with `auto:any` the node stays while it is online and offers to be one and our home region is
/// `chosen_at_home`, else it is the one suggested. Nothing: as they are. Whoever is away stays chosen where nobody is
/// better: traffic goes nowhere rather than past the tunnel.
std::optional<Prefs> resolve_exit_node(const Prefs& prefs, const ExitNodeQuestion& question, int chosen_at_home);

/// Where `wanted` gives up the exit node of `before`, it remembers who that was.
void remember_exit_node(const Prefs& before, Prefs& wanted);
/// With the exit node that was used last, or with none. An error: none was used.
Result<Prefs> with_exit_node_enabled(const Prefs& prefs, bool enabled);

} // namespace tailrace
