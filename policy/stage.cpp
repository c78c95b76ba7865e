// policy/stage.cpp - makes stand-ins.
#include "policy/stage.hpp"

#include "policy/address_set.hpp"
#include "policy/walk.hpp"

#include <algorithm>

namespace tailrace {
namespace {

std::string domain_of(const std::string& login) {
    const auto at = login.rfind('@');
    return at == std::string::npos ? std::string{} : login.substr(at + 1);
}

UserRole role_named(Autogroup autogroup) {
    switch (autogroup) {
    case Autogroup::Owner:
        return UserRole::Owner;
    case Autogroup::Admin:
        return UserRole::Admin;
    case Autogroup::ItAdmin:
        return UserRole::ItAdmin;
    case Autogroup::NetworkAdmin:
        return UserRole::NetworkAdmin;
    case Autogroup::BillingAdmin:
        return UserRole::BillingAdmin;
    case Autogroup::Auditor:
        return UserRole::Auditor;
    default:
        return UserRole::Member;
    }
}

bool is_in_tailnet(const IpRange& range) {
    const auto& own = tailnet_ranges();
    return std::any_of(own.begin(), own.end(), [&](const IpRange& each) { return each.overlaps(range); });
}

} // namespace

Stage::Stage(Tailnet tailnet) : tailnet_(std::move(tailnet)) {
    for (std::size_t i = 0; i < tailnet_.users.size(); ++i) {
        users_by_login_.try_emplace(tailnet_.users[i].login, i);
        last_user_ = std::max(last_user_, tailnet_.users[i].id);
    }
    for (std::size_t i = 0; i < tailnet_.nodes.size(); ++i) {
        const auto& node = tailnet_.nodes[i];
        for (const auto& tag : node.tags) nodes_by_tag_.try_emplace(tag, i);
        if (!node.is_tagged()) users_with_node_.insert(node.user);
        last_node_ = std::max(last_node_, node.id);
    }
    for (std::size_t i = 0; i < tailnet_.services.size(); ++i)
        services_by_name_.try_emplace(tailnet_.services[i].name, i);
}

void Stage::need_user(const std::string& login) {
    const auto found = users_by_login_.find(login);
    if (found == users_by_login_.end()) return;
    const auto user = tailnet_.users[found->second].id;
    if (users_with_node_.insert(user).second) add_node(login).user = user;
}

TailnetNode& Stage::node_with_tag(const std::string& tag) {
    const auto [found, is_new] = nodes_by_tag_.try_emplace(tag, tailnet_.nodes.size());
    if (!is_new) return tailnet_.nodes[found->second];
    auto& node = add_node(tag);
    node.tags = {tag};
    return node;
}

void Stage::need_tag(const std::string& tag) {
    (void)node_with_tag(tag);
}

TailnetUser& Stage::add_user(const std::string& login, UserRole role) {
    const auto [found, is_new] = users_by_login_.try_emplace(login, tailnet_.users.size());
    if (!is_new) return tailnet_.users[found->second];
    auto& user = tailnet_.users.emplace_back();
    user.id = ++last_user_;
    user.login = login;
    user.role = role;
    return user;
}

std::vector<IpAddress> Stage::new_addresses() {
    // The last addresses of the tailnet's ranges are given out last.
    ++made_;
    std::array<std::byte, 16> v6{std::byte{0xfd}, std::byte{0x7a}, std::byte{0x11}, std::byte{0x5c},
                                 std::byte{0xa1}, std::byte{0xe0}, std::byte{0xff}, std::byte{0xff}};
    v6[13] = static_cast<std::byte>(made_ >> 16);
    v6[14] = static_cast<std::byte>(made_ >> 8);
    v6[15] = static_cast<std::byte>(made_);
    return {IpAddress::v4(0x647fffff - made_), IpAddress::v6(v6)};
}

TailnetService& Stage::need_service(const std::string& name) {
    const auto [found, is_new] = services_by_name_.try_emplace(name, tailnet_.services.size());
    if (!is_new) return tailnet_.services[found->second];
    return tailnet_.services.emplace_back(TailnetService{name, new_addresses(), {}});
}

TailnetNode& Stage::add_node(std::string name) {
    auto& node = tailnet_.nodes.emplace_back();
    node.id = ++last_node_;
    node.name = std::move(name);
    node.addresses = new_addresses();
    return node;
}

void Stage::add_route(TailnetNode& node, const IpPrefix& route) {
    auto& known = routes_[node.id];
    if (known.empty()) known.insert(node.routes.begin(), node.routes.end());
    if (known.insert(route).second) node.routes.push_back(route);
}

void Stage::add_routes(TailnetNode& node, const std::vector<IpRange>& ranges) {
    for (const auto& range : ranges) {
        if (is_in_tailnet(range)) continue;
        for (const auto& prefix : range.prefixes()) add_route(node, prefix);
    }
}

void Stage::need_selector(const Document& document, const Selector& selector, TailnetNode* router) {
    using Kind = Selector::Kind;
    if (selector.kind == Kind::User) {
        add_user(selector.name, UserRole::Member);
    } else if (selector.kind == Kind::UserDomain) {
        add_user(fmt::format("{}@{}", kSomebodyElse, selector.name), UserRole::Member);
    } else if (selector.kind == Kind::AutogroupKind && is_role(selector.autogroup)) {
        add_user(fmt::format("some-{}@{}", selector.name.substr(10), tailnet_.domain), role_named(selector.autogroup));
    } else if (selector.kind == Kind::Prefix && router != nullptr) {
        add_routes(*router, {IpRange::of(selector.prefix)});
    } else if (selector.kind == Kind::IpSet && router != nullptr) {
        add_routes(*router, document.ipsets.at(selector.name));
    } else if (selector.kind == Kind::Service) {
        for (const auto& address : need_service(selector.name).addresses) {
            if (router != nullptr) add_route(*router, IpPrefix::single(address));
        }
    }
}

void Stage::need_everybody(const Document& document) {
    if (tailnet_.domain.empty()) {
        std::string first;
        for_each_selector(document, [&](const Selector& selector) {
            if (selector.kind == Selector::Kind::UserDomain) tailnet_.domain = selector.name;
            if (selector.kind == Selector::Kind::User && first.empty()) first = domain_of(selector.name);
        });
        for (const auto& [group, members] : document.groups) {
            if (first.empty() && !members.empty()) first = domain_of(members.front());
        }
        if (tailnet_.domain.empty()) tailnet_.domain = first.empty() ? "example.com" : first;
    }
    for (const auto& [group, members] : document.groups) {
        for (const auto& member : members) add_user(member, UserRole::Member);
    }
    for (const auto& test : document.tests) {
        if (test.source.find('@') != std::string::npos && !test.source.starts_with("user:"))
            add_user(test.source, UserRole::Member);
    }
    for_each_selector(document, [&](const Selector& selector) { need_selector(document, selector, nullptr); });
    add_user(fmt::format("{}@{}", kSomebodyElse, tailnet_.domain), UserRole::Member);
    for (const auto& user : std::vector<TailnetUser>{tailnet_.users}) need_user(user.login);

    for (const auto& [tag, owners] : document.tag_owners) need_tag(tag);
    auto& router = node_with_tag(std::string{kSomethingElse});
    for_each_selector(document, [&](const Selector& selector) { need_selector(document, selector, &router); });
    for (const auto* exit : {"0.0.0.0/0", "::/0"}) add_route(router, *IpPrefix::parse(exit));
    const auto exits = router.routes;
    for (const auto& grant : document.grants.value_or(std::vector<Grant>{})) {
        for (const auto& tag : grant.via) {
            auto& node = node_with_tag(tag);
            for (const auto& destination : grant.destinations) {
                need_selector(document, destination, &node);
                if (!destination.is(Autogroup::Internet)) continue;
                for (const auto& route : exits) {
                    if (is_exit_route(route)) add_route(node, route);
                }
            }
        }
    }
}

Tailnet imagined_tailnet(std::initializer_list<const Document*> documents) {
    Stage stage;
    for (const auto* document : documents) stage.need_everybody(*document);
    auto tailnet = stage.tailnet();
    choose_primaries(tailnet);
    return tailnet;
}

Document without_postures(Document document) {
    document.default_source_postures.clear();
    if (document.acls) {
        for (auto& acl : *document.acls) acl.postures.clear();
    }
    if (document.grants) {
        for (auto& grant : *document.grants) grant.postures.clear();
    }
    for (auto& rule : document.ssh) rule.postures.clear();
    return document;
}

} // namespace tailrace
