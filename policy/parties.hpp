// policy/parties.hpp - who and what two policies tell apart: devices, networks, the internet. Internal to policy/.
#pragma once
#include "policy/diff.hpp"
#include "policy/judge.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// Addresses that no rule of either policy treats differently, of one owner: alice's devices, 10.0.0.0/8, the internet,
/// svc:web.
struct Party {
    std::string name;                       ///< in short: of many addresses or devices the first
    std::vector<std::string> names;         ///< all of them, one a string
    std::vector<NodeIndex> members;         ///< empty: a range of addresses behind routers, or a service
    std::vector<IpAddress> representatives; ///< at most one a family
    bool exists = true;                     ///< a device, or somebody routes it
    bool asks = true;                       ///< false: a service, which only answers

    bool is_device() const { return !members.empty(); }
    const IpAddress* address(bool v4) const {
        for (const auto& ip : representatives) {
            if (ip.is_v4() == v4) return &ip;
        }
        return nullptr;
    }
};

/// Both policies are compiled against the same tailnet and give every device the same addresses.
std::vector<Party> find_parties(const Judge& before, const Judge& after);

/// Says sets of parties in as few words as the policy has: "autogroup:member", "group:ops", "tag:web", else by name.
class PartyNames {
public:
    PartyNames(const std::vector<Party>& parties, const Judge& judge);

    NamedParties names_of(BitSet parties) const;

private:
    struct Collective {
        std::string name;
        std::vector<std::uint32_t> parties; ///< in order
    };

    const std::vector<Party>& parties_;
    std::vector<Collective> collectives_;               ///< the largest first
    std::vector<std::vector<std::uint32_t>> beginning_; ///< by their first party, in that order
};

} // namespace tailrace
