// policy/rule.hpp - grants and acls as one list of rules over the directory. Internal to policy/.
#pragma once
#include "policy/directory.hpp"
#include "policy/document.hpp"
#include "policy/sources.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tailrace {

/// One destination of a rule, before it is narrowed to a node.
struct RuleDestination {
    enum class Kind : std::uint8_t {
        Everything, ///< *
        Nodes,      ///< the addresses of `nodes`
        Ranges,     ///< the words of `ranges`, as written
        Internet    ///< through exit nodes
    };

    Kind kind = Kind::Everything;
    SharedBitSet nodes;
    std::vector<std::pair<IpRange, std::string>> ranges;
    std::vector<PortRange> ports;
};

using CapabilityMap = std::map<std::string, std::optional<std::vector<std::string>>>;

/// One rule of every filter that it concerns.
struct Rule {
    enum class Kind : std::uint8_t { Ports, Capabilities };

    Kind kind = Kind::Ports;
    bool via = false;        ///< narrowed to what `receivers` route, and never merged
    bool silent = false;     ///< makes nodes see each other and steers routes, but stands in no filter
    bool self = false;       ///< between devices of one user: `self_sources` that belong to the receiver's user
    bool self_reply = false; ///< the companion of such a rule: towards `self_sources` from all devices of their user
    SharedBitSet self_sources;
    const SourceSet* sources = nullptr; ///< null for self rules: it depends on the receiver
    std::vector<int> protocols;         ///< empty: the default protocols
    std::vector<RuleDestination> destinations;
    std::shared_ptr<const CapabilityMap> capabilities;
    SharedBitSet receivers;   ///< the nodes whose filters contain something of it
    std::uint32_t offset = 0; ///< of the rule in the policy; 0: it is not written there
    std::uint32_t line = 0;   ///< of that offset
    /// Which part of which grant or acl this is: the same for every tailnet that the policy is applied to.
    std::pair<std::uint32_t, std::uint32_t> place;
};

/// A grant with `via`: which routers serve its destinations to whom.
struct ViaGrant {
    const SourceSet* sources = nullptr;
    BitSet tagged; ///< nodes with one of the tags
    std::vector<RuleDestination> destinations;
    bool internet = false;
};

struct RuleList {
    std::vector<Rule> rules; ///< in wire order: grants first
    std::vector<ViaGrant> vias;
};

RuleList build_rules(const Document& document, const Directory& directory, SourceSets& sources);

/// Whether the destination has something in the approved subnet route.
bool overlaps(const RuleDestination& destination, const Directory& directory, const Directory::SubnetRoute& route);
/// Whether it lets its sources into the internet.
bool is_internet(const RuleDestination& destination);

} // namespace tailrace
