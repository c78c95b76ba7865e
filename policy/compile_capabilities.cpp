// policy/compile_capabilities.cpp - node attributes, hosted services, application capabilities, and who may give tags.
#include "base/json/json.hpp"
#include "policy/compiled_data.hpp"
#include "policy/tag_owners.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

namespace tailrace {
namespace {

void add_once(CapabilityValues& out, const std::string& name, const std::vector<std::string>& values) {
    const auto found = std::find_if(out.begin(), out.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == out.end()) {
        out.emplace_back(name, values);
    } else {
        found->second.insert(found->second.end(), values.begin(), values.end());
    }
}

} // namespace

CapabilityValues CompiledPolicy::self_capabilities(PolicyNodeId id) const {
    CapabilityValues out;
    const auto node = data_->directory.index_of(id);
    if (!node) return out;
    for (const auto& entry : data_->document->node_attributes) {
        const bool targeted = std::any_of(entry.targets.begin(), entry.targets.end(), [&](const Selector& target) {
            return data_->directory.nodes_matching(target).contains(*node);
        });
        if (!targeted) continue;
        for (const auto& attribute : entry.attributes) {
            add_once(out, attribute, {});
            if (attribute == "funnel") add_once(out, "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000", {});
        }
        for (const auto& [name, values] : entry.app) add_once(out, name, values);
    }
    if (data_->document->randomize_client_port) add_once(out, "randomize-client-port", {});
    if (data_->document->one_cgnat_route == "mac-always") add_once(out, "one-cgnat?v=true", {});
    if (data_->document->one_cgnat_route == "mac-never") add_once(out, "one-cgnat?v=false", {});
    if (const auto hosted = services_of(id); !hosted.empty()) { // {"svc:web": ["100.64.0.9", "fd7a:115c:a1e0::9"]}
        std::map<std::string, std::vector<std::string>> addresses;
        for (const auto* service : hosted) {
            for (const auto& address : service->addresses) addresses[service->name].push_back(address.text());
        }
        add_once(out, "service-host", {json::write(addresses)});
    }
    std::sort(out.begin(), out.end());
    return out;
}

std::vector<IpPrefix> CompiledPolicy::ip_pool(PolicyNodeId id) const {
    std::vector<IpPrefix> pool;
    const auto node = data_->directory.index_of(id);
    if (!node) return pool;
    for (const auto& entry : data_->document->node_attributes) {
        const bool targeted = std::any_of(entry.targets.begin(), entry.targets.end(), [&](const Selector& target) {
            return data_->directory.nodes_matching(target).contains(*node);
        });
        if (targeted) pool.insert(pool.end(), entry.ip_pool.begin(), entry.ip_pool.end());
    }
    return pool;
}

CapabilityValues CompiledPolicy::peer_capabilities(PolicyNodeId viewer, PolicyNodeId peer) const {
    const auto node = data_->directory.index_of(peer);
    if (!node || !data_->directory.exit_nodes().contains(*node)) return {};
    const auto routes = allowed_routes(viewer, peer);
    if (viewer == peer || std::none_of(routes.begin(), routes.end(), is_exit_route)) return {};
    return {{"suggest-exit-node", {}}};
}

CapabilityValues CompiledPolicy::capabilities_for(PolicyNodeId node, PolicyNodeId peer) const {
    CapabilityValues out;
    const auto receiver = data_->directory.index_of(node);
    const auto sender = data_->directory.index_of(peer);
    if (!receiver || !sender) return out;
    const auto& directory = data_->directory;
    for (const auto& rule : data_->list.rules) {
        if (rule.kind != Rule::Kind::Capabilities || !rule.receivers.contains(*receiver)) continue;
        const auto* sources = data_->sources_of(rule, *receiver);
        // Source and destination count in pairs of one family.
        const auto matches = [&](bool v4) {
            const auto is_source = [&](std::uint32_t number) {
                const auto& ip = directory.addresses()[number].ip;
                return ip.is_v4() == v4 && sources->contains(directory, ip);
            };
            const auto is_destination = [&](std::uint32_t number) {
                const auto& ip = directory.addresses()[number].ip;
                if (ip.is_v4() != v4) return false;
                if (rule.self) return true;
                return std::any_of(rule.destinations.begin(), rule.destinations.end(),
                                   [&](const RuleDestination& destination) {
                                       using Kind = RuleDestination::Kind;
                                       if (destination.kind == Kind::Everything) return true;
                                       if (destination.kind == Kind::Nodes)
                                           return destination.nodes.contains(*receiver);
                                       return std::any_of(destination.ranges.begin(), destination.ranges.end(),
                                                          [&](const auto& range) { return range.first.contains(ip); });
                                   });
            };
            const auto& from = directory.addresses_of(*sender);
            const auto& to = directory.addresses_of(*receiver);
            return std::any_of(from.begin(), from.end(), is_source) &&
                   std::any_of(to.begin(), to.end(), is_destination);
        };
        if (!matches(true) && !matches(false)) continue;
        for (const auto& [name, values] : *rule.capabilities)
            add_once(out, name, values.value_or(std::vector<std::string>{}));
    }
    std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    return out;
}

namespace {

/// Whether a word of `tagOwners` that is no tag means this user.
bool is_owner(const Document& document, const TailnetUser& user, const Selector& owner) {
    using Kind = Selector::Kind;
    switch (owner.kind) {
    case Kind::User:
        return owner.name == user.login;
    case Kind::UserDomain:
        return user.login.ends_with("@" + owner.name);
    case Kind::Group: {
        const auto& members = document.groups.at(owner.name);
        return std::find(members.begin(), members.end(), user.login) != members.end();
    }
    case Kind::AutogroupKind:
        switch (owner.autogroup) {
        case Autogroup::Member:
            return true;
        case Autogroup::Owner:
            return user.role == UserRole::Owner;
        case Autogroup::Admin:
            return user.role == UserRole::Admin || user.role == UserRole::Owner;
        case Autogroup::ItAdmin:
            return user.role == UserRole::ItAdmin;
        case Autogroup::NetworkAdmin:
            return user.role == UserRole::NetworkAdmin;
        case Autogroup::BillingAdmin:
            return user.role == UserRole::BillingAdmin;
        case Autogroup::Auditor:
            return user.role == UserRole::Auditor;
        default:
            return false;
        }
    default:
        return false;
    }
}

/// Whether the tag, or one of the tags that own it one way or the other, passes `test(tag, its owners)`. Tags own tags
/// in chains of any length: not by recursion.
template <typename Test>
bool any_owning_tag(const Document& document, std::string_view tag, Test test) {
    std::set<std::string_view> seen;
    std::vector<std::string_view> open{tag};
    while (!open.empty()) {
        const auto owners = document.tag_owners.find(std::string{open.back()});
        open.pop_back();
        if (owners == document.tag_owners.end() || !seen.insert(owners->first).second) continue;
        if (test(owners->first, owners->second)) return true;
        for (const auto& owner : owners->second) {
            if (owner.kind == Selector::Kind::Tag) open.push_back(owner.name);
        }
    }
    return false;
}

} // namespace

bool may_tag(const Document& document, const TailnetUser& user, std::string_view tag) {
    if (document.tag_owners.count(std::string{tag}) == 0) return false;
    if (user.role == UserRole::Owner || user.role == UserRole::Admin || user.role == UserRole::NetworkAdmin)
        return true;
    return any_owning_tag(document, tag, [&](const std::string&, const std::vector<Selector>& owners) {
        return std::any_of(owners.begin(), owners.end(),
                           [&](const Selector& owner) { return is_owner(document, user, owner); });
    });
}

bool may_tag(const Document& document, const std::vector<std::string>& owner_tags, std::string_view tag) {
    return any_owning_tag(document, tag, [&](const std::string& owning, const std::vector<Selector>&) {
        return std::find(owner_tags.begin(), owner_tags.end(), owning) != owner_tags.end();
    });
}

void for_each_tag_right(const Document& document, const std::vector<TailnetUser>& users,
                        const std::function<void(std::size_t user, const std::string& tag)>& visit) {
    std::map<std::string_view, std::vector<std::string_view>> owned_by; // the tags that a tag owns
    for (const auto& [tag, owners] : document.tag_owners) {
        for (const auto& owner : owners) {
            if (owner.kind == Selector::Kind::Tag) owned_by[owner.name].push_back(tag);
        }
    }
    for (std::size_t i = 0; i < users.size(); ++i) {
        const auto& user = users[i];
        const bool all =
            user.role == UserRole::Owner || user.role == UserRole::Admin || user.role == UserRole::NetworkAdmin;
        std::vector<std::string_view> open;
        for (const auto& [tag, owners] : document.tag_owners) {
            if (all || std::any_of(owners.begin(), owners.end(),
                                   [&](const Selector& owner) { return is_owner(document, user, owner); }))
                open.push_back(tag);
        }
        for (const auto tag : with_owned_tags(std::move(open), owned_by)) visit(i, std::string{tag});
    }
}

} // namespace tailrace
