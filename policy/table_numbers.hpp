// policy/table_numbers.hpp - the numbers of rules, classes and rule sets in the flat tables of a packet filter.
#pragma once
#include "policy/filter_rule.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace tailrace {

/// Numbers that mean the same from one commit to the next, so that rule counters go on and a small change touches few
/// entries.
class TableNumbers {
public:
    /// One number a rule, from 1. A rule keeps its number when nothing changed, else when its destinations did not,
    /// else when its sources did not.
    std::vector<std::uint32_t> rules(const std::vector<FilterRule>& rules);

private:
    friend class TableCompiler;
    using Signature = std::vector<std::uint64_t>;
    struct SignatureHash {
        std::size_t operator()(const Signature& signature) const;
    };
    /// Signature -> number; those that nobody asked for since the last sweep() become free.
    class Names {
    public:
        std::uint32_t number(const Signature& signature);
        void sweep();

    private:
        struct Entry {
            std::uint32_t number;
            bool used;
        };
        std::unordered_map<Signature, Entry, SignatureHash> entries_;
        std::vector<std::uint32_t> free_;
        std::uint32_t next_ = 1;
    };
    struct KnownRule {
        std::string sources, destinations;
        std::uint32_t number;
    };

    std::vector<KnownRule> known_;
    std::uint32_t next_rule_ = 1;
    Names source_classes_, destination_classes_, port_classes_, rule_sets_;
};

} // namespace tailrace
