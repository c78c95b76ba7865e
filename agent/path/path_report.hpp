// agent/path/path_report.hpp - why a peer is reached as it is, for people. Pure.
#pragma once
#include "agent/path/path_book.hpp"
#include "agent/path/peer_relays.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Where an address was learnt from: "control", "their call", "their ping", "WireGuard".
std::vector<std::string_view> learnt_from(const PathBook::CandidateState& candidate);
/// Why the path in force was chosen, a sentence.
std::string path_reason(const PathBook::State& state, const std::vector<PathBook::CandidateState>& candidates,
                        const PeerRelays::State& via = {});
/// One peer of `debug paths`, a JSON object.
std::string write_peer_paths(TimePoint now, std::string_view name, const NodeKey& key, const PathBook::State& state,
                             const std::vector<PathBook::CandidateState>& candidates,
                             const PeerRelays::State& via = {});

} // namespace tailrace
