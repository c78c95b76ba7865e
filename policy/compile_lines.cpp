// policy/compile_lines.cpp - where in the policy the rules of a filter are written.
#include "policy/compiled_data.hpp"

#include <algorithm>

namespace tailrace {

/// Many rules, one pass over the text.
void CompiledPolicy::Data::number_lines() {
    if (!document->text) return;
    std::vector<std::uint32_t> line_feeds;
    const std::string& text = *document->text;
    for (auto at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 1))
        line_feeds.push_back(static_cast<std::uint32_t>(at));
    for (auto& rule : list.rules) {
        if (rule.offset == 0) continue;
        const auto next = std::lower_bound(line_feeds.begin(), line_feeds.end(), rule.offset);
        rule.line = 1 + static_cast<std::uint32_t>(next - line_feeds.begin());
    }
}

template <typename Visit>
void CompiledPolicy::Data::for_each_span(const std::vector<Kept>& kept, Visit visit) const {
    const Kept* last = nullptr;
    LineSpan span;
    bool begins = false;
    for (const auto& entry : kept) {
        const auto& rule = list.rules[entry.rule];
        const auto& destination = rule.destinations[entry.destination];
        std::size_t count = destination.ports.size();
        if (destination.kind == RuleDestination::Kind::Internet) count *= internet_ranges().size();
        if (rule.kind == Rule::Kind::Capabilities) count = 0;
        const bool same_rule = continues(last, entry);
        if (!same_rule || rule.line != span.line) {
            if (last != nullptr) visit(begins, span);
            begins = !same_rule;
            span = {rule.line, 0};
        }
        span.destinations += static_cast<std::uint32_t>(count);
        last = &entry;
    }
    if (last != nullptr) visit(begins, span);
}

std::vector<RuleLines> CompiledPolicy::Data::lines_of(const std::vector<Kept>& kept) const {
    std::vector<RuleLines> lines;
    for_each_span(kept, [&](bool begins, const LineSpan& span) {
        if (begins) lines.emplace_back();
        lines.back().push_back(span);
    });
    return lines;
}

ContentHash CompiledPolicy::Data::hash_of_lines(const std::vector<Kept>& kept) const {
    ContentHash hash;
    for_each_span(kept, [&](bool begins, const LineSpan& span) {
        hash.add(std::uint64_t{span.line} << 1 | (begins ? 1 : 0));
        hash.add(std::uint64_t{span.destinations});
    });
    return hash;
}

ContentHash CompiledPolicy::lines_id(PolicyNodeId id) const {
    const auto node = data_->directory.index_of(id);
    return node ? data_->filter_ids(*node).lines : ContentHash{};
}

std::vector<RuleLines> CompiledPolicy::lines_for(PolicyNodeId id) const {
    const auto node = data_->directory.index_of(id);
    return node ? data_->lines_of(data_->reduce(*node)) : std::vector<RuleLines>{};
}

} // namespace tailrace
