// policy/stage.hpp - a tailnet with devices for those who have none yet, so that a policy can be judged before its
// time.
#pragma once
#include "policy/document.hpp"
#include "policy/tailnet.hpp"

#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace tailrace {

/// Starts from a tailnet and adds stand-ins.
class Stage {
public:
    explicit Stage(Tailnet tailnet = {});

    /// A device for a user of the tailnet who has none; nothing for strangers.
    void need_user(const std::string& login);
    void need_tag(const std::string& tag);
    /// One that nobody hosts, when there is none of that name.
    TailnetService& need_service(const std::string& name);

    /// Everybody that the policy names gets one device: each user, each tag, each role it asks for; somebody and
    /// something that it does not name; and a router for all its networks and the internet. What holds between these
    /// holds by the text of the policy alone.
    void need_everybody(const Document& document);

    const Tailnet& tailnet() const { return tailnet_; }

private:
    std::vector<IpAddress> new_addresses();
    TailnetNode& add_node(std::string name);
    TailnetUser& add_user(const std::string& login, UserRole role);
    TailnetNode& node_with_tag(const std::string& tag);
    void need_selector(const Document& document, const Selector& selector, TailnetNode* router);
    void add_route(TailnetNode& node, const IpPrefix& route);
    void add_routes(TailnetNode& node, const std::vector<IpRange>& ranges);

    Tailnet tailnet_;
    std::uint32_t made_ = 0;
    PolicyUserId last_user_ = 0;
    PolicyNodeId last_node_ = 0;
    std::unordered_map<std::string, std::size_t> users_by_login_, nodes_by_tag_, services_by_name_; ///< the first
    std::unordered_set<PolicyUserId> users_with_node_;
    std::unordered_map<PolicyNodeId, std::unordered_set<IpPrefix>> routes_; ///< of nodes that were given some
};

/// Whether a policy of so many rules can be compiled for so many devices, with who may do what of all held at once.
inline bool is_comparable(std::size_t devices, std::size_t rules) {
    constexpr std::size_t kMostDevices = 50'000, kMostTogether = 1'200'000'000; // a few bits each
    return devices <= kMostDevices && devices * rules <= kMostTogether;
}
inline std::size_t rules_in(const Document& document) {
    return (document.acls ? document.acls->size() : 0) + (document.grants ? document.grants->size() : 0);
}
/// The tailnet that a policy's own words describe.
Tailnet imagined_tailnet(std::initializer_list<const Document*> documents);
/// The same policy as it treats devices that fulfil every posture.
Document without_postures(Document document);

/// The names that stand-ins have which the policy does not name.
inline constexpr std::string_view kSomebodyElse = "somebody-else";
inline constexpr std::string_view kSomethingElse = "tag:something-else";

} // namespace tailrace
