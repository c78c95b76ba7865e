// policy/sources.cpp - resolves the source side of rules.
#include "policy/sources.hpp"

#include <algorithm>

namespace tailrace {
namespace {

/// Collects what a list of selectors means.
class Collector {
public:
    Collector(const Directory& directory, const BitSet* passing) : directory_(directory), passing_(passing) {
        set_.addresses = BitSet{directory.addresses().size()};
    }

    void add_nodes(const BitSet& nodes) {
        nodes.for_each([&](std::size_t node) {
            if (!passes(node)) return;
            for (const auto address : directory_.addresses_of(static_cast<NodeIndex>(node)))
                set_.addresses.insert(address);
        });
    }

    void add_range(const IpRange& range) {
        if (passing_ != nullptr) { // hosts behind routers have no posture to fulfil
            directory_.for_each_address_in(range, [&](std::uint32_t address) { add_address(address); });
            return;
        }
        if (range.first == range.last) {
            if (const auto address = directory_.address_named(range.first)) {
                set_.addresses.insert(*address);
                return;
            }
        }
        add_word(range_text(range), range);
    }

    void add_word(std::string word, const IpRange& range) {
        set_.words.push_back(std::move(word));
        ranges_.push_back(range);
    }

    /// What `*` means: the tailnet's ranges and every subnet route.
    void add_tailnet() {
        if (passing_ != nullptr) return add_nodes(*passing_);
        const std::vector<IpRange>& ranges = tailnet_ranges();
        for (const auto& text : tailnet_range_texts()) set_.words.push_back(text);
        ranges_.insert(ranges_.end(), ranges.begin(), ranges.end());
        for (const auto& route : directory_.distinct_subnet_routes())
            add_word(range_text(IpRange::of(route)), IpRange::of(route));
    }

    void add_everything() {
        if (passing_ != nullptr) return add_nodes(*passing_);
        set_.words.emplace_back("*");
        set_.everything = true;
    }

    SourceSet take() {
        std::sort(set_.words.begin(), set_.words.end());
        set_.words.erase(std::unique(set_.words.begin(), set_.words.end()), set_.words.end());
        set_.ranges = AddressSet{std::move(ranges_)};
        return std::move(set_);
    }

private:
    bool passes(std::size_t node) const { return passing_ == nullptr || passing_->contains(node); }
    void add_address(std::uint32_t address) {
        if (passes(directory_.addresses()[address].node)) set_.addresses.insert(address);
    }

    const Directory& directory_;
    const BitSet* passing_;
    SourceSet set_;
    std::vector<IpRange> ranges_;
};

BitSet touched_by(const Directory& directory, const SourceSet& set) {
    if (set.everything) return BitSet::full(directory.size());
    BitSet touched{directory.size()};
    set.addresses.for_each([&](std::size_t address) { touched.insert(directory.addresses()[address].node); });
    const auto insert_router = [&](std::uint32_t number) {
        const auto& route = directory.subnet_routes()[number];
        if (!route.service) touched.insert(route.node); // services ask nobody
    };
    for (const auto& range : set.ranges.ranges()) {
        directory.for_each_address_in(
            range, [&](std::uint32_t address) { touched.insert(directory.addresses()[address].node); });
        directory.for_each_route_in(range, insert_router);
    }
    for (const auto number : directory.routes_with_addresses()) {
        if (set.overlaps(directory, directory.subnet_routes()[number])) insert_router(number);
    }
    return touched;
}

} // namespace

bool SourceSet::contains(const Directory& directory, const IpAddress& ip) const {
    if (everything || ranges.contains(ip)) return true;
    const auto address = directory.address_named(ip);
    return address && addresses.contains(*address);
}

bool SourceSet::overlaps(const Directory&, const Directory::SubnetRoute& route) const {
    return everything || ranges.overlaps(route.range) ||
           std::any_of(route.addresses.begin(), route.addresses.end(),
                       [&](std::uint32_t address) { return addresses.contains(address); });
}

std::vector<std::string> SourceSet::wire(const Directory& directory) const {
    std::vector<std::string> texts;
    texts.reserve(addresses.count() + words.size());
    addresses.for_each([&](std::size_t address) { texts.push_back(directory.addresses()[address].text); });
    const auto middle = static_cast<std::ptrdiff_t>(texts.size());
    texts.insert(texts.end(), words.begin(), words.end());
    std::inplace_merge(texts.begin(), texts.begin() + middle, texts.end());
    return texts;
}

const SourceSet* SourceSets::of(const std::vector<Selector>& selectors, const Document& document,
                                const BitSet* passing) {
    using Kind = Selector::Kind;
    std::string words;
    if (passing == nullptr) {
        for (const auto& selector : selectors) words += selector.text + '\n';
        if (const auto known = by_words_.find(words); known != by_words_.end()) return known->second;
    }
    Collector collector{directory_, passing};
    for (const auto& selector : selectors) {
        if (selector.kind == Kind::Everything) {
            collector.add_tailnet();
        } else if (selector.is(Autogroup::DangerAll)) {
            collector.add_everything();
        } else if (selector.kind == Kind::Prefix) {
            collector.add_range(IpRange::of(selector.prefix));
        } else if (selector.kind == Kind::IpSet) {
            for (const auto& range : document.ipsets.at(selector.name)) collector.add_range(range);
        } else {
            collector.add_nodes(directory_.nodes_matching(selector));
        }
    }
    const auto* set = intern(collector.take());
    if (passing == nullptr) by_words_.emplace(std::move(words), set);
    return set;
}

const SourceSet* SourceSets::of_nodes(const BitSet& nodes) {
    Collector collector{directory_, nullptr};
    collector.add_nodes(nodes);
    return intern(collector.take());
}

const SourceSet* SourceSets::intern(SourceSet set) {
    ContentHash members;
    set.addresses.for_each([&](std::size_t address) { members.include(directory_.addresses()[address].hash); });
    set.hash.add(members);
    for (const auto& word : set.words) set.hash.add(word);
    auto& known = sets_[set.hash];
    if (!known) {
        set.touched = touched_by(directory_, set);
        known = std::make_unique<const SourceSet>(std::move(set));
    }
    return known.get();
}

} // namespace tailrace
