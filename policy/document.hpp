// policy/document.hpp - what a policy file says, section by section: names checked, but nothing looked up in the
// tailnet yet.
#pragma once
#include "base/result.hpp"
#include "policy/filter_rule.hpp"
#include "policy/problem.hpp"
#include "policy/selector.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tailrace {

/// Capability name -> its values in order, each one JSON text, exactly as they go on the wire.
using CapabilityValues = std::vector<std::pair<std::string, std::vector<std::string>>>;

/// "tag:web:22,80-90": a selector and its ports in the order they were written.
struct AclDestination {
    Selector selector;
    std::vector<PortRange> ports;
};

/// An element of `acls`.
struct AclRule {
    std::uint32_t offset = 0;
    std::vector<Selector> sources;
    std::vector<AclDestination> destinations;
    std::optional<int> protocol;
    std::vector<std::string> postures;
};

/// An element of a grant's `ip`: "tcp:443".
struct GrantPorts {
    std::optional<int> protocol;
    PortRange ports;
};

/// An element of `grants`.
struct Grant {
    std::uint32_t offset = 0;
    std::vector<Selector> sources;
    std::vector<Selector> destinations;
    std::vector<GrantPorts> ip;
    CapabilityValues app;
    std::vector<std::string> via; ///< tags
    std::vector<std::string> postures;
};

/// An element of `ssh`.
struct SshPolicyRule {
    static constexpr auto kDefaultCheckPeriod = std::chrono::hours{12};

    std::uint32_t offset = 0;
    bool check = false;                                          ///< `action` is check, not accept
    std::chrono::nanoseconds check_period = kDefaultCheckPeriod; ///< 0: ask every time
    std::vector<Selector> sources;
    std::vector<Selector> destinations;
    std::vector<std::string> users; ///< login names, trimmed; also autogroup:nonroot and localpart:*@domain
    std::vector<std::string> accept_env;
    std::vector<std::string> recorders; ///< tags
    bool enforce_recorder = false;
    std::vector<std::string> postures;
};

/// An element of `nodeAttrs`.
struct NodeAttribute {
    std::uint32_t offset = 0;
    std::vector<Selector> targets;
    std::vector<std::string> attributes;
    CapabilityValues app;
    std::vector<IpPrefix> ip_pool;
};

/// `routes` by prefix and `exitNode` of `autoApprovers`.
struct AutoApprovers {
    std::vector<std::pair<IpPrefix, std::vector<Selector>>> routes;
    std::vector<Selector> exit_node;
    std::vector<std::pair<std::string, std::vector<Selector>>> services;
};

/// An entry of `attrConfig`: what a custom posture attribute is like.
struct AttributeConfig {
    enum class Type : std::uint8_t { String, Number, Bool };

    Type type = Type::String;
    bool allow_set_by_node = false;
    std::vector<Selector> broadcast_to_peers;
};

/// One assertion of a posture: attribute, operator, operand.
struct PostureAssertion {
    enum class Operator : std::uint8_t {
        Equal,
        NotEqual,
        Less,
        LessOrEqual,
        Greater,
        GreaterOrEqual,
        In,
        NotIn,
        IsSet,
        NotSet
    };

    std::string attribute;
    Operator op = Operator::Equal;
    std::vector<std::string> operands; ///< several for In and NotIn; strings without quotes
    bool is_string = false;            ///< the operands were quoted
};

/// One side of an element of `tests`: "tag:web:22".
struct PolicyTestDestination {
    std::string text;
    std::uint32_t offset = 0;
};

/// An element of `tests`, unchecked: what is wrong with it shows when it runs.
struct PolicyTest {
    std::uint32_t offset = 0;
    std::string source;
    std::string protocol;
    std::vector<PolicyTestDestination> accept;
    std::vector<PolicyTestDestination> deny;
    std::map<std::string, std::string> posture_attributes; ///< JSON texts
};

/// An element of `sshTests`.
struct SshTest {
    std::uint32_t offset = 0;
    std::string source;
    std::vector<Selector> destinations;
    std::vector<std::string> accept;
    std::vector<std::string> check;
    std::vector<std::string> deny;
    std::map<std::string, std::string> posture_attributes; ///< JSON texts
    bool malformed = false;
};

/// The largest policy that is read, from a file or from the network: 100 to 200 bytes a rule make 100,000 rules.
inline constexpr std::size_t kMostPolicyBytes = std::size_t{16} << 20;
/// A file that is to be a policy. What is larger than that is not read.
Result<std::string> read_policy_file(const std::string& path);

/// One that an older server took stays in force with app connectors that are refused since: the agents, which read
/// them, say so.
enum class PolicyIs : std::uint8_t { New, InForce };

/// A policy that was read and found in order.
struct Document {
    std::shared_ptr<const std::string> text;                       ///< as posted; offsets count in it
    std::shared_ptr<const std::vector<std::uint32_t>> line_begins; ///< offsets; absent where the text is not parsed

    /// Absent and empty differ: without both sections everything is allowed.
    std::optional<std::vector<AclRule>> acls;
    std::optional<std::vector<Grant>> grants;

    std::map<std::string, std::vector<std::string>> groups;  ///< "group:ops" -> logins
    std::map<std::string, std::vector<Selector>> tag_owners; ///< "tag:web" -> owners
    std::map<std::string, IpPrefix> hosts;
    std::map<std::string, std::vector<IpRange>> ipsets;            ///< "ipset:prod" -> disjoint, in order
    std::map<std::string, std::vector<PostureAssertion>> postures; ///< "posture:x" -> all must hold
    std::vector<std::string> default_source_postures;
    std::map<std::string, AttributeConfig> attribute_config; ///< "custom:tier" -> its type
    AutoApprovers auto_approvers;
    std::vector<NodeAttribute> node_attributes;
    std::vector<SshPolicyRule> ssh;
    bool has_ssh = false;
    std::vector<PolicyTest> tests;
    std::vector<SshTest> ssh_tests;
    bool randomize_client_port = false;
    bool disable_ipv4 = false;
    std::string one_cgnat_route;
    std::string derp_map; ///< JSON text; empty when absent

    /// "line 12" of an offset, for messages about a rule.
    hujson::Position position_of(std::uint32_t offset) const;

    /// Reads and checks everything that can be said without the tailnet. An empty text is the empty policy, which
    /// allows everything. On failure `problem` (when given) receives the message apart from its place.
    static Result<Document> parse(std::string_view text, PolicyProblem* problem = nullptr, PolicyIs is = PolicyIs::New);
};

/// What `policy check` says without a tailnet at hand: the document, or the first error with its place.
inline Result<Document> check(std::string_view text) {
    return Document::parse(text);
}

} // namespace tailrace
