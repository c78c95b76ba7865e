// policy/stage.hpp - a tailnet with devices for those who have none yet, so that a policy can be judged before its
// time.
#pragma once
#include "policy/document.hpp"
#include "policy/tailnet.hpp"

#include <string>
#include <string_view>

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

    Tailnet tailnet_;
    std::uint32_t made_ = 0;
};

/// The tailnet that a policy's own words describe.
Tailnet imagined_tailnet(std::initializer_list<const Document*> documents);
/// The same policy as it treats devices that fulfil every posture.
Document without_postures(Document document);

/// The names that stand-ins have which the policy does not name.
inline constexpr std::string_view kSomebodyElse = "somebody-else";
inline constexpr std::string_view kSomethingElse = "tag:something-else";

} // namespace tailrace
