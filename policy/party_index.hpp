// policy/party_index.hpp - finds parties by addresses and devices. Pure.
#pragma once
#include "policy/directory.hpp"
#include "policy/parties.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace tailrace {

/// Numbers of parties in order; many rules have the same.
using PartyList = std::shared_ptr<const std::vector<std::uint32_t>>;

/// The parties by the addresses that stand for them.
class PartyIndex {
public:
    PartyIndex(const std::vector<Party>& parties, const Directory& directory)
        : parties_(parties), directory_(directory), first_of_(directory.size(), kNone) {
        for (std::uint32_t i = 0; i < parties.size(); ++i) {
            for (const auto& ip : parties[i].representatives) addresses_.emplace_back(ip, i);
            if (parties[i].is_device()) first_of_[parties[i].members.front()] = i;
        }
        std::sort(addresses_.begin(), addresses_.end());
    }

    const std::vector<Party>& parties() const { return parties_; }

    void add_range(const IpRange& range, std::vector<std::uint32_t>& out) const {
        auto at = std::lower_bound(addresses_.begin(), addresses_.end(), std::pair{range.first, std::uint32_t{0}});
        for (; at != addresses_.end() && range.contains(at->first); ++at) out.push_back(at->second);
    }
    /// Those with an address of one of the nodes.
    void add_nodes(const BitSet& nodes, std::vector<std::uint32_t>& out) const {
        nodes.for_each([&](std::size_t node) {
            for (const auto address : directory_.addresses_of(static_cast<NodeIndex>(node))) {
                const auto& ip = directory_.addresses()[address].ip;
                add_range({ip, ip}, out);
            }
        });
    }
    /// Those whose first member is one of the nodes.
    void add_first_members(const BitSet& nodes, std::vector<std::uint32_t>& out) const {
        nodes.for_each([&](std::size_t node) {
            const auto party = first_of_[node];
            if (party != kNone && !parties_[party].representatives.empty()) out.push_back(party);
        });
    }
    void add_all(std::vector<std::uint32_t>& out) const {
        for (std::uint32_t i = 0; i < parties_.size(); ++i) {
            if (!parties_[i].representatives.empty()) out.push_back(i);
        }
    }

private:
    static constexpr std::uint32_t kNone = UINT32_MAX;

    const std::vector<Party>& parties_;
    const Directory& directory_;
    std::vector<std::pair<IpAddress, std::uint32_t>> addresses_;
    std::vector<std::uint32_t> first_of_;
};

} // namespace tailrace
