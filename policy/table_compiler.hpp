// policy/table_compiler.hpp - how tables.cpp makes a filter's tables, for the sources that are parts of it.
#pragma once
#include "policy/table_numbers.hpp"
#include "policy/tables.hpp"

#include <bitset>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tailrace {

/// IANA numbers of the protocols that tables know apart.
inline constexpr int kProtoIcmp = 1, kProtoTcp = 6, kProtoUdp = 17, kProtoIcmp6 = 58, kProtoSctp = 132;

/// A rule as the tables need it.
struct PlacedRule {
    std::size_t index = 0;
    std::uint32_t number = 0;
    std::vector<IpPrefix> sources;
    std::vector<std::string> caps;
    std::vector<std::pair<IpPrefix, PortRange>> destinations;
    bool default_protos = false;
    std::bitset<256> protos;
    bool has_v4_destination = false, has_v6_destination = false;
};

/// How warnings call a rule.
std::string rule_name(std::size_t index);

/// One compilation. Signatures: of a source, its rules (number * 2, plus 1 when only a capability names it); of a
/// destination, its rules with port ranges.
class TableCompiler {
public:
    TableCompiler(const FilterInput& input, TableNumbers& numbers) : input_(input), numbers_(numbers) {}

    /// The rules that count, with the reasons for those that don't.
    void read_rules(PolicyTables& out);
    std::size_t rule_count() const { return rules_.size(); }
    std::size_t rule_index(std::size_t i) const { return rules_[i].index; }

    /// Fills the tables from the rules that `kept` marks.
    void build(const std::vector<bool>& kept, PolicyTables& out);
    void sweep();

private:
    using Signature = TableNumbers::Signature;
    /// An element of an address's signature, before inheritance. `element` 0 only says that the prefix matters.
    struct Mark {
        IpPrefix prefix;
        std::uint64_t element = 0;
        auto operator<=>(const Mark&) const = default;
    };
    static std::uint64_t source_element(std::uint32_t rule, bool by_cap) { return rule * 2ULL + (by_cap ? 1 : 0); }
    static std::uint64_t destination_element(std::uint32_t rule, PortRange ports) {
        return std::uint64_t{rule} << 32 | std::uint64_t{ports.first} << 16 | ports.last;
    }

    bool refuse_whole_filter(PolicyTables& out) const;
    void build_sources(PolicyTables& out);
    void build_destinations(PolicyTables& out);
    void build_ports(PolicyTables& out, bool renumbered = false);
    void build_pairs(PolicyTables& out);
    void build_settings(PolicyTables& out) const;
    tr_pair make_pair(const Signature& elements, PolicyTables& out);
    std::uint32_t first_cap_rule(const Signature& signature, const IpPrefix& prefix) const;

    const FilterInput& input_;
    TableNumbers& numbers_;
    std::vector<PlacedRule> rules_;
    std::vector<bool> kept_;
    std::unordered_map<std::uint32_t, const PlacedRule*> by_number_;
    std::map<std::uint32_t, Signature> sources_, destinations_;           ///< class -> signature
    std::map<std::uint32_t, std::vector<std::uint16_t>> port_classes_of_; ///< first << 16 | last -> classes
    std::unordered_map<std::uint32_t, bool> rule_sets_written_;
    std::unordered_map<Signature, tr_pair, TableNumbers::SignatureHash> pairs_made_;
    tr_address own4_{}, own6_{};
};

} // namespace tailrace
