// agent/engine/explanation.hpp - what `debug explain` says of a packet and the rules of the filter. Pure.
#pragma once
#include "agent/dataplane/question.hpp"
#include "agent/engine/known_rule.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// From the text of a local API request; `protocol` is a name or a number.
Result<PacketQuestion> parse_question(std::string_view source, std::string_view destination, std::string_view port,
                                      std::string_view protocol);

/// "tcp", or the number of a protocol without a name here.
std::string protocol_name(int number);

/// "100.64.0.7, 100.64.0.9 -> 100.64.0.1:22 (tcp)", shortened after a few entries.
std::string rule_text(const FilterRule& rule);

/// A rule that lacks one thing to let the packet in.
struct NearMiss {
    std::size_t index = 0; ///< in the filter
    std::string why;
    std::vector<std::uint32_t> lines; ///< of the policy, where the destinations that come near are written
};
/// In the order of the filter, at most `limit`. `source_caps`: names of the capabilities of the peer that has the
/// source address, which rules may have as sources too ("cap:NAME").
std::vector<NearMiss> near_misses(const PacketQuestion& question, const std::vector<std::string>& source_caps,
                                  const std::vector<KnownRule>& rules, std::size_t limit = 5);
/// Of the rule that let the packet in: where the destinations that it fits are written.
std::vector<std::uint32_t> deciding_lines(const PacketQuestion& question, const KnownRule& rule);

/// {"Source","Destination","Protocol","Port","Passes","Reason","Rule":index or null,"RuleText","PolicyLines":[line] or
/// absent,"NearMisses":[{"Rule","RuleText","PolicyLines","Why"}]}. `index`: of the rule that let it in.
std::string write_explanation(const PacketQuestion& question, const PacketAnswer& answer,
                              std::optional<std::size_t> index, const std::vector<std::string>& source_caps,
                              const std::vector<KnownRule>& rules);

} // namespace tailrace
