// policy/judge.hpp - would a packet pass, and how far is each rule from letting it? Internal to policy/.
#pragma once
#include "policy/compiled_data.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace tailrace {

/// A packet to judge, without the sender's port.
struct Probe {
    IpAddress source;
    IpAddress destination;
    std::uint16_t port = 0;
    std::optional<int> protocol; ///< nothing: any of the default protocols will do
};

/// What a rule and a packet have in common. A rule lets the packet pass when all of it holds.
struct RuleMatch {
    bool source = false;
    bool destination = false;
    bool routed = true; ///< by a router that the rule's `via` names
    bool protocol = false;
    bool ports = false;

    bool allows() const { return source && destination && routed && protocol && ports; }
    int misses() const { return !source + !destination + !routed + !protocol + !ports; }
};

/// Judges by all rules as the filter of the receiving node does, but before they are narrowed to a node: an address
/// that is no node's can be asked about too. Source: policy.md 6.4.
class Judge {
public:
    explicit Judge(std::shared_ptr<const CompiledPolicy> compiled)
        : compiled_(std::move(compiled)), data_(compiled_->data()) {}

    const Directory& directory() const { return data_.directory; }
    const CompiledPolicy& compiled() const { return *compiled_; }
    const std::vector<Rule>& rules() const { return data_.list.rules; }

    /// Rules that let packets pass; all others only carry capabilities or show nodes to each other.
    static bool is_about_packets(const Rule& rule) { return rule.kind == Rule::Kind::Ports && !rule.silent; }
    RuleMatch match(const Rule& rule, const Probe& probe) const;
    bool allows(const Probe& probe) const;
    /// Those about packets that have this source, for who asks often; for rules between devices of one user the
    /// destination decides too.
    std::vector<const Rule*> rules_from(const IpAddress& source) const;

    bool has_source(const Rule& rule, const IpAddress& source, const IpAddress& destination) const;
    bool contains(const RuleDestination& destination, const IpAddress& ip) const;
    std::optional<NodeIndex> owner_of(const IpAddress& ip) const;

private:
    bool is_routed(const Rule& rule, const IpAddress& ip) const;

    std::shared_ptr<const CompiledPolicy> compiled_;
    const CompiledPolicy::Data& data_;
};

} // namespace tailrace
