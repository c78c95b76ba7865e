// policy/compile.hpp - a policy and a tailnet become answers: who may send what to whom, and who sees whom.
#pragma once
#include "policy/content_hash.hpp"
#include "policy/document.hpp"
#include "policy/filter_rule.hpp"
#include "policy/ssh_rules.hpp"
#include "policy/tailnet.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// A policy applied to one state of the tailnet. Immutable to its users, but answers are worked out when first asked
/// and then kept, so one object belongs to one thread at a time.
///
/// Nodes that the policy treats alike share their answers: two nodes with the same filter have the same filter_id(),
/// two that see the same nodes get the *same pointer* from view_of(). Serialise once per id and once per pointer.
///
/// Whether two nodes see each other depends on the policy and on those two nodes alone, so a change of one node changes
/// only the pairs it is part of. (Its routes can change the SrcIPs of every filter that has `*` as a source.)
///
/// Every question about an ID that is not in the tailnet has the empty answer.
class CompiledPolicy {
public:
    using Rules = std::shared_ptr<const std::vector<FilterRule>>;
    using NodeList = std::shared_ptr<const std::vector<PolicyNodeId>>;

    /// `tailnet` is taken by value: a snapshot that later changes do not touch.
    /// Given what was in force before, with the same document and a tailnet that differs in a few nodes, only what
    /// these change is worked out anew: every other node keeps its answers, the pointers included.
    static std::shared_ptr<const CompiledPolicy> compile(std::shared_ptr<const Document> document, Tailnet tailnet,
                                                         const CompiledPolicy* before = nullptr);
    ~CompiledPolicy();
    CompiledPolicy(const CompiledPolicy&) = delete;
    CompiledPolicy& operator=(const CompiledPolicy&) = delete;

    const Document& document() const;
    std::shared_ptr<const Document> shared_document() const;
    const Tailnet& tailnet() const;

    /// The packet filter that `node` receives, in wire order. Empty: it lets nobody in. Never null. Filters that do not
    /// name their node are kept and shared, all others are made anew for each call: they are large.
    Rules rules_for(PolicyNodeId node) const;
    /// Equal for equal filters, also of different nodes, tailnets and policies: the key under which to keep what is
    /// made of a filter. Much cheaper than the filter.
    ContentHash filter_id(PolicyNodeId node) const;
    /// For each of rules_for(node) where in the policy it is written. No part of filter_id(): an edit that only moves
    /// lines is no news of the filter.
    std::vector<RuleLines> lines_for(PolicyNodeId node) const;
    /// As filter_id(), of the lines.
    ContentHash lines_id(PolicyNodeId node) const;

    /// Whether the two are in each other's list of peers. Symmetric; false for a node and itself.
    bool visible(PolicyNodeId a, PolicyNodeId b) const;
    /// All nodes that `node` sees, in ID order. The list is shared by all that see the same and so may contain `node`
    /// itself.
    NodeList view_of(PolicyNodeId node) const;
    /// The same without `node`, as a list of its own.
    std::vector<PolicyNodeId> peers_of(PolicyNodeId node) const;

    /// Which of the approved routes of `peer` stand in its AllowedIPs for `viewer`, exit routes included, in the order
    /// of the peer's `routes`. O(1) for peers without routes. With viewer == peer: all its routes.
    std::vector<IpPrefix> allowed_routes(PolicyNodeId viewer, PolicyNodeId peer) const;
    /// The subnet routes among them, those of services left out, that `peer` is primary of for `viewer`. With viewer ==
    /// peer: those that it is primary of for anybody.
    std::vector<IpPrefix> primary_routes(PolicyNodeId viewer, PolicyNodeId peer) const;
    /// The addresses of `peer` that `viewer` may be told (the attribute disable-ipv4 of either takes IPv4 away).
    std::vector<IpAddress> addresses(PolicyNodeId viewer, PolicyNodeId peer) const;

    /// The app connectors that let `viewer` ask for names: their filter lets it reach port 53 of 0.0.0.0, in ID order.
    std::vector<PolicyNodeId> connectors_for(PolicyNodeId viewer) const;
    /// Whether the node is one: it offers to be, and nodeAttrs mean it.
    bool is_connector(PolicyNodeId node) const;

    /// The services that the node hosts: whose addresses are among its routes.
    std::vector<const TailnetService*> services_of(PolicyNodeId node) const;
    /// Those that it can reach through somebody, and those that it hosts.
    std::vector<const TailnetService*> services_for(PolicyNodeId node) const;

    /// Whether the policy approves this advertised route of the node by itself (autoApprovers).
    bool approves_route(PolicyNodeId node, const IpPrefix& route) const;
    /// Whether it approves this node as a host of the service ("svc:web") by itself: by the service's own entry, or by
    /// that of a tag that the service carries.
    bool approves_service(PolicyNodeId node, std::string_view service,
                          const std::vector<std::string>& service_tags = {}) const;
    /// The prefixes that nodeAttrs want the node's IPv4 address from, all entries together; empty: any address will do.
    std::vector<IpPrefix> ip_pool(PolicyNodeId node) const;

    /// What nodeAttrs, randomizeClientPort and the services that it hosts put into the node's own CapMap, by name;
    /// values are JSON texts.
    CapabilityValues self_capabilities(PolicyNodeId node) const;
    /// What goes into the CapMap of `peer` as `viewer` sees it.
    CapabilityValues peer_capabilities(PolicyNodeId viewer, PolicyNodeId peer) const;
    /// The application capabilities that `node` reports for packets from `peer` (CapGrant rules), by name; values are
    /// JSON texts.
    CapabilityValues capabilities_for(PolicyNodeId node, PolicyNodeId peer) const;

    /// The SSH policy that `node` receives, in wire order. Empty: nobody gets in.
    std::vector<SshRule> ssh_rules_for(PolicyNodeId node) const;

    struct Data; ///< the inside, for the rest of policy/
    const Data& data() const { return *data_; }

private:
    explicit CompiledPolicy(std::unique_ptr<Data> data);
    std::unique_ptr<Data> data_;
};

/// Whether `user` may give a device this tag: as an owner by name, by group, by role, or through a tag that owns it.
/// Admins may always, for a tag that the policy knows.
bool may_tag(const Document& document, const TailnetUser& user, std::string_view tag);
/// Whether something that carries `owner_tags` (an auth key, a tagged device) may give a device this tag.
bool may_tag(const Document& document, const std::vector<std::string>& owner_tags, std::string_view tag);

/// Calls `visit` for every tag that each of these users may give a device, a user after the other: may_tag() for many.
void for_each_tag_right(const Document& document, const std::vector<TailnetUser>& users,
                        const std::function<void(std::size_t user, const std::string& tag)>& visit);

} // namespace tailrace
