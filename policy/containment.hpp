// policy/containment.hpp - is all that one rule allows allowed by another? Internal to policy/.
#pragma once
#include "policy/compiled_data.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <vector>

namespace tailrace {

/// Which families of addresses something has.
struct Families {
    bool v4 = false;
    bool v6 = false;
};
Families families_of(const SourceSet& sources, const Directory& directory);
Families families_of(const RuleDestination& destination, const Directory& directory);

/// Compares the rules of one compiled policy as sets of packets.
class Containment {
public:
    /// The compiled rules that one acl or grant became.
    using Parts = std::vector<const Rule*>;

    explicit Containment(const CompiledPolicy& policy);

    Parts parts_at(std::uint32_t offset) const;

    /// What rules are about in a few bits, by which most pairs are told apart: the sources, the destinations and the
    /// ports are folded into 256 bits each, the ports in two ways.
    struct Outline {
        std::array<std::uint64_t, 16> bits{};

        /// False: a rule of this outline has something that one of `outer` has not.
        bool may_be_in(const Outline& outer) const {
            for (std::size_t i = 0; i < bits.size(); ++i) {
                if ((bits[i] & ~outer.bits[i]) != 0) return false;
            }
            return true;
        }
    };
    Outline outline_of(const Parts& parts) const;
    /// About how long contains() takes for parts like these, in steps of some nanoseconds.
    std::size_t work_of(const Parts& parts) const;
    /// Whether each of the inner parts is within one of the outer ones. Never for a grant with `via` and another rule:
    /// it also says which way packets go. Of two grants with `via` the caller knows whether they name the same routers.
    bool contains(const Parts& outer, const Parts& inner) const;

private:
    bool contains(const Rule& outer, const Rule& inner) const;
    bool contains_sources(const Rule& outer, const Rule& inner) const;
    bool contains(const RuleDestination& outer, const RuleDestination& inner) const;
    bool contains_own_devices(const Rule& outer, const Rule& inner) const;

    const Directory& directory_;
    std::map<std::uint32_t, Parts> parts_;
    std::map<const SourceSet*, BitSet> covered_; ///< the addresses of nodes in a set, by whatever word
};

} // namespace tailrace
