#include "policy/table_numbers.hpp"

#include "bpf/shared/policy_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace tailrace {

std::size_t TableNumbers::SignatureHash::operator()(const Signature& signature) const {
    std::uint64_t hash = 0x9e3779b97f4a7c15;
    for (std::uint64_t element : signature) {
        hash = (hash ^ element) * 0xff51afd7ed558ccd;
        hash ^= hash >> 32;
    }
    return static_cast<std::size_t>(hash);
}

std::uint32_t TableNumbers::Names::number(const Signature& signature) {
    auto [found, fresh] = entries_.try_emplace(signature, Entry{0, true});
    if (fresh) {
        if (free_.empty())
            found->second.number = next_++;
        else {
            found->second.number = free_.back();
            free_.pop_back();
        }
    }
    found->second.used = true;
    return found->second.number;
}

void TableNumbers::Names::sweep() {
    for (auto entry = entries_.begin(); entry != entries_.end();) {
        if (!entry->second.used) {
            free_.push_back(entry->second.number);
            entry = entries_.erase(entry);
            continue;
        }
        entry->second.used = false;
        ++entry;
    }
}

std::vector<std::uint32_t> TableNumbers::rules(const std::vector<FilterRule>& rules) {
    std::vector<KnownRule> wanted;
    for (const FilterRule& rule : rules) {
        KnownRule text{{}, {}, 0};
        for (const std::string& source : rule.src_ips) text.sources += source + " ";
        for (const FilterDestination& to : rule.dst_ports)
            text.destinations += fmt::format("{}:{}-{} ", to.ip, to.ports.first, to.ports.last);
        for (int proto : rule.ip_proto) text.destinations += fmt::format("/{} ", proto);
        wanted.push_back(std::move(text));
    }

    std::vector<bool> taken(known_.size());
    auto take = [&](auto key_of) {
        std::multimap<std::string, std::size_t> by_key;
        for (std::size_t i = 0; i < known_.size(); ++i)
            if (!taken[i]) by_key.emplace(key_of(known_[i]), i);
        for (KnownRule& rule : wanted) {
            if (rule.number) continue;
            auto found = by_key.find(key_of(rule));
            if (found == by_key.end()) continue;
            rule.number = known_[found->second].number;
            taken[found->second] = true;
            by_key.erase(found);
        }
    };
    take([](const KnownRule& rule) { return rule.sources + ">" + rule.destinations; });
    take([](const KnownRule& rule) { return rule.destinations; });
    take([](const KnownRule& rule) { return rule.sources; });

    // New numbers while there are counters for them, then the ones that got free.
    std::set<std::uint32_t> used;
    for (const KnownRule& rule : wanted) used.insert(rule.number);
    std::uint32_t lowest = 1;
    std::vector<std::uint32_t> numbers;
    for (KnownRule& rule : wanted) {
        if (!rule.number && next_rule_ < TR_COUNTED_RULES) rule.number = next_rule_++;
        if (!rule.number) {
            while (used.count(lowest)) ++lowest;
            rule.number = lowest;
            next_rule_ = std::max(next_rule_, lowest + 1);
        }
        used.insert(rule.number);
        numbers.push_back(rule.number);
    }
    known_ = std::move(wanted);
    return numbers;
}

} // namespace tailrace
