// policy/sources.hpp - the SrcIPs of a rule as a set that can be compared, asked and printed. Internal to policy/.
#pragma once
#include "policy/directory.hpp"

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace tailrace {

/// Everything that stands in the SrcIPs of one rule: addresses of nodes by number, all other words as ranges with their
/// text.
struct SourceSet {
    BitSet addresses;               ///< numbers of Directory::addresses()
    std::vector<std::string> words; ///< sorted, each once; "*" is everything
    AddressSet ranges;              ///< what the words mean
    bool everything = false;        ///< one of the words is "*"

    /// The nodes that the rule can let in: with an address in the set, or an approved subnet route that overlaps it.
    BitSet touched;
    /// Equal for sets of equal content, whatever the numbers of the addresses.
    ContentHash hash;

    bool empty() const { return words.empty() && addresses.empty(); }
    bool contains(const Directory& directory, const IpAddress& ip) const;
    bool overlaps(const Directory& directory, const Directory::SubnetRoute& route) const;
    /// In wire order: sorted as strings.
    std::vector<std::string> wire(const Directory& directory) const;
};

/// Makes source sets and gives out the same one for the same content, so that pointers can be compared.
class SourceSets {
public:
    explicit SourceSets(const Directory& directory) : directory_(directory) {}

    /// What a list of selectors stands for on the source side of a rule. `passing`, when given, are the only nodes
    /// whose postures are fulfilled.
    const SourceSet* of(const std::vector<Selector>& selectors, const Document& document,
                        const BitSet* passing = nullptr);
    const SourceSet* of_nodes(const BitSet& nodes);

private:
    const SourceSet* intern(SourceSet set);

    const Directory& directory_;
    std::unordered_map<ContentHash, std::unique_ptr<const SourceSet>> sets_;
    std::unordered_map<std::string, const SourceSet*> by_words_; ///< of rules without postures, by their selectors
};

} // namespace tailrace
