// agent/engine/explanation.hpp - what `debug explain` says of a packet and the rules of the filter. Pure.
#pragma once
#include "agent/dataplane/question.hpp"
#include "policy/filter_rule.hpp"

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
};
/// In the order of the filter, at most `limit`.
std::vector<NearMiss> near_misses(const PacketQuestion& question, const std::vector<FilterRule>& rules,
                                  std::size_t limit = 5);

/// {"Source","Destination","Protocol","Port","Passes","Reason","Rule":index or null,"RuleText","NearMisses":[{"Rule",
/// "RuleText","Why"}]}. `index`: of the rule that let it in.
std::string write_explanation(const PacketQuestion& question, const PacketAnswer& answer,
                              std::optional<std::size_t> index, const std::vector<FilterRule>& rules);

} // namespace tailrace
