// policy/directory.cpp - indexes over the tailnet.
#include "policy/directory.hpp"

#include "policy/app_connectors.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

namespace tailrace {

void choose_primaries(Tailnet& tailnet) {
    std::map<IpPrefix, std::vector<std::size_t>> routers;
    for (std::size_t i = 0; i < tailnet.nodes.size(); ++i) {
        for (const auto& route : tailnet.nodes[i].routes) {
            if (!is_exit_route(route)) routers[route].push_back(i);
        }
    }
    std::vector<std::vector<IpPrefix>> primaries(tailnet.nodes.size());
    for (const auto& [route, candidates] : routers) {
        const auto rank = [&, &route = route](std::size_t i) { // the least wins
            const auto& node = tailnet.nodes[i];
            const bool was = std::find(node.primaries.begin(), node.primaries.end(), route) != node.primaries.end();
            return std::tuple{!node.online, !was, !node.steady, node.router_since, node.id};
        };
        const auto best = *std::min_element(candidates.begin(), candidates.end(),
                                            [&](std::size_t a, std::size_t b) { return rank(a) < rank(b); });
        // While every router is offline the last primary stays: nobody gains by moving the route.
        primaries[best].push_back(route);
    }
    for (std::size_t i = 0; i < tailnet.nodes.size(); ++i) tailnet.nodes[i].primaries = std::move(primaries[i]);
}

namespace {

/// The first bytes of a text as numbers that compare as it does. Nearly all addresses are told apart by these.
struct TextKey {
    std::array<std::uint64_t, 3> bytes{};
    std::uint32_t index = 0;

    TextKey(std::string_view text, std::uint32_t number) : index(number) {
        for (std::size_t i = 0; i < std::min(text.size(), bytes.size() * 8); ++i)
            bytes[i / 8] |= static_cast<std::uint64_t>(static_cast<unsigned char>(text[i])) << (56 - i % 8 * 8);
    }
};

void sort_by_text(std::vector<Directory::Address>& addresses) {
    std::vector<TextKey> keys;
    keys.reserve(addresses.size());
    for (std::uint32_t i = 0; i < addresses.size(); ++i) keys.emplace_back(addresses[i].text, i);
    std::sort(keys.begin(), keys.end(), [&](const TextKey& a, const TextKey& b) {
        if (a.bytes != b.bytes) return a.bytes < b.bytes;
        return addresses[a.index].text < addresses[b.index].text;
    });
    std::vector<Directory::Address> sorted;
    sorted.reserve(addresses.size());
    for (const auto& key : keys) sorted.push_back(std::move(addresses[key.index]));
    addresses = std::move(sorted);
}

} // namespace

Directory::Directory(const Document& document, Tailnet tailnet) : document_(document), tailnet_(std::move(tailnet)) {
    const auto by_id = [](const auto& a, const auto& b) { return a.id < b.id; };
    if (!std::is_sorted(tailnet_.nodes.begin(), tailnet_.nodes.end(), by_id))
        std::sort(tailnet_.nodes.begin(), tailnet_.nodes.end(), by_id);
    if (!std::is_sorted(tailnet_.users.begin(), tailnet_.users.end(), by_id))
        std::sort(tailnet_.users.begin(), tailnet_.users.end(), by_id);
    if (tailnet_.domain.empty()) {
        for (const auto& user : tailnet_.users) {
            const auto at = user.login.rfind('@');
            if (at == std::string::npos) continue;
            tailnet_.domain = user.login.substr(at + 1);
            break;
        }
    }
    index_nodes();
    index_addresses();
    index_routes();
    find_connectors();
}

void Directory::index_nodes() {
    const auto count = size();
    untagged_ = exit_nodes_ = connectors_ = without_ipv4_ = nobody_ = BitSet{count};
    for (std::size_t i = 0; i < tailnet_.users.size(); ++i) {
        users_[tailnet_.users[i].id] = i;
        if (!tailnet_.users[i].login.empty()) users_by_login_[tailnet_.users[i].login] = tailnet_.users[i].id;
    }
    const auto add = [&](auto& index, const auto& key, NodeIndex node) {
        index.try_emplace(key, BitSet{count}).first->second.insert(node);
    };
    for (NodeIndex i = 0; i < count; ++i) {
        const auto& node = tailnet_.nodes[i];
        for (const auto& tag : node.tags) add(nodes_by_tag_, tag, i);
        if (!node.is_tagged()) {
            untagged_.insert(i);
            add(nodes_by_user_, node.user, i);
        }
        if (std::any_of(node.routes.begin(), node.routes.end(), is_exit_route)) exit_nodes_.insert(i);
    }
}

void Directory::index_addresses() {
    for (NodeIndex i = 0; i < size(); ++i) {
        for (const auto& ip : tailnet_.nodes[i].addresses) addresses_.push_back({ip, {}, i, {}});
    }
    const auto order = [&] {
        by_ip_.resize(addresses_.size());
        std::iota(by_ip_.begin(), by_ip_.end(), 0U);
        std::sort(by_ip_.begin(), by_ip_.end(),
                  [&](std::uint32_t a, std::uint32_t b) { return addresses_[a].ip < addresses_[b].ip; });
    };
    const bool some_without_ipv4 =
        document_.disable_ipv4 ||
        std::any_of(document_.node_attributes.begin(), document_.node_attributes.end(), [](const NodeAttribute& entry) {
            return std::find(entry.attributes.begin(), entry.attributes.end(), "disable-ipv4") !=
                   entry.attributes.end();
        });
    if (some_without_ipv4) {
        order(); // targets may be addresses
        for (NodeIndex i = 0; i < size(); ++i) {
            if (document_.disable_ipv4 || has_attribute(i, "disable-ipv4")) without_ipv4_.insert(i);
        }
        addresses_.erase(std::remove_if(addresses_.begin(), addresses_.end(),
                                        [&](const Address& address) {
                                            return address.ip.is_v4() && without_ipv4_.contains(address.node);
                                        }),
                         addresses_.end());
    }
    for (auto& address : addresses_) {
        address.text = address.ip.text();
        address.hash = ContentHash::of(address.text);
    }
    sort_by_text(addresses_);
    order();
    addresses_of_.resize(size());
    for (std::uint32_t i = 0; i < addresses_.size(); ++i) addresses_of_[addresses_[i].node].push_back(i);
    for (auto& own : addresses_of_) {
        std::sort(own.begin(), own.end(),
                  [&](std::uint32_t a, std::uint32_t b) { return addresses_[a].ip < addresses_[b].ip; });
    }
}

void Directory::index_routes() {
    subnet_routes_of_.resize(size());
    std::set<IpPrefix> distinct;
    for (std::uint32_t i = 0; i < tailnet_.services.size(); ++i) {
        for (const auto& address : tailnet_.services[i].addresses) services_[IpPrefix::single(address)] = i;
        services_by_name_.try_emplace(tailnet_.services[i].name, i);
    }
    for (NodeIndex i = 0; i < size(); ++i) {
        for (const auto& route : tailnet_.nodes[i].routes) {
            if (is_exit_route(route)) continue;
            SubnetRoute entry{route, IpRange::of(route), i, {}, std::nullopt};
            if (const auto service = services_.find(route); service != services_.end()) entry.service = service->second;
            for_each_address_in(entry.range, [&](std::uint32_t address) { entry.addresses.push_back(address); });
            subnet_routes_of_[i].push_back(static_cast<std::uint32_t>(subnet_routes_.size()));
            if (!entry.service) distinct.insert(route);
            if (!entry.addresses.empty())
                routes_with_addresses_.push_back(static_cast<std::uint32_t>(subnet_routes_.size()));
            routes_by_prefix_[route.masked()].push_back(static_cast<std::uint32_t>(subnet_routes_.size()));
            subnet_routes_.push_back(std::move(entry));
        }
    }
    distinct_subnet_routes_.assign(distinct.begin(), distinct.end());
    std::set<int> lengths;
    for (const auto& [prefix, routes] : routes_by_prefix_) lengths.insert(prefix.bits());
    route_lengths_.assign(lengths.begin(), lengths.end());
    routes_by_begin_.resize(subnet_routes_.size());
    std::iota(routes_by_begin_.begin(), routes_by_begin_.end(), 0U);
    std::sort(routes_by_begin_.begin(), routes_by_begin_.end(), [&](std::uint32_t a, std::uint32_t b) {
        return subnet_routes_[a].range.first < subnet_routes_[b].range.first;
    });
}

std::optional<NodeIndex> Directory::index_of(PolicyNodeId id) const {
    const auto found = std::partition_point(tailnet_.nodes.begin(), tailnet_.nodes.end(),
                                            [&](const TailnetNode& node) { return node.id < id; });
    if (found == tailnet_.nodes.end() || found->id != id) return std::nullopt;
    return static_cast<NodeIndex>(found - tailnet_.nodes.begin());
}

std::optional<std::uint32_t> Directory::service_named(std::string_view name) const {
    const auto found = services_by_name_.find(std::string{name});
    return found == services_by_name_.end() ? std::nullopt : std::optional{found->second};
}

const TailnetUser* Directory::user(PolicyUserId id) const {
    const auto found = users_.find(id);
    return found == users_.end() ? nullptr : &tailnet_.users[found->second];
}

const TailnetUser* Directory::user_of(NodeIndex node) const {
    return tailnet_.nodes[node].is_tagged() ? nullptr : user(tailnet_.nodes[node].user);
}

const BitSet& Directory::nodes_of_user(PolicyUserId user) const {
    const auto found = nodes_by_user_.find(user);
    return found == nodes_by_user_.end() ? nobody_ : found->second;
}

BitSet Directory::nodes_of_login(const std::string& login) const {
    const auto found = users_by_login_.find(login);
    return found == users_by_login_.end() ? nobody_ : nodes_of_user(found->second);
}

BitSet Directory::nodes_of_role(Autogroup role) const {
    BitSet nodes{size()};
    for (const auto& user : tailnet_.users) {
        const bool has = (role == Autogroup::Owner && user.role == UserRole::Owner) ||
                         (role == Autogroup::Admin && (user.role == UserRole::Admin || user.role == UserRole::Owner)) ||
                         (role == Autogroup::ItAdmin && user.role == UserRole::ItAdmin) ||
                         (role == Autogroup::NetworkAdmin && user.role == UserRole::NetworkAdmin) ||
                         (role == Autogroup::BillingAdmin && user.role == UserRole::BillingAdmin) ||
                         (role == Autogroup::Auditor && user.role == UserRole::Auditor);
        if (has) nodes |= nodes_of_user(user.id);
    }
    return nodes;
}

BitSet Directory::nodes_matching(const Selector& selector) const {
    using Kind = Selector::Kind;
    const auto owners_in = [&](const IpRange& range, BitSet& out) {
        for_each_address_in(range, [&](std::uint32_t address) { out.insert(addresses_[address].node); });
    };
    switch (selector.kind) {
    case Kind::Everything:
        return BitSet::full(size());
    case Kind::User:
        return nodes_of_login(selector.name);
    case Kind::UserDomain: {
        BitSet nodes{size()};
        for (const auto& user : tailnet_.users) {
            const auto at = user.login.rfind('@');
            if (at != std::string::npos && user.login.substr(at + 1) == selector.name) nodes |= nodes_of_user(user.id);
        }
        return nodes;
    }
    case Kind::Group: {
        const auto cached = nodes_by_group_.find(selector.name);
        if (cached != nodes_by_group_.end()) return cached->second;
        BitSet nodes{size()};
        if (const auto group = document_.groups.find(selector.name); group != document_.groups.end()) {
            for (const auto& login : group->second) nodes |= nodes_of_login(login);
        }
        return nodes_by_group_.emplace(selector.name, std::move(nodes)).first->second;
    }
    case Kind::Tag: {
        const auto found = nodes_by_tag_.find(selector.name);
        return found == nodes_by_tag_.end() ? nobody_ : found->second;
    }
    case Kind::AutogroupKind:
        if (selector.autogroup == Autogroup::Member) return untagged_;
        if (selector.autogroup == Autogroup::DangerAll) return BitSet::full(size());
        if (selector.autogroup == Autogroup::Tagged) {
            BitSet nodes{size()};
            for (NodeIndex i = 0; i < size(); ++i) {
                if (tailnet_.nodes[i].is_tagged()) nodes.insert(i);
            }
            return nodes;
        }
        return is_role(selector.autogroup) ? nodes_of_role(selector.autogroup) : nobody_;
    case Kind::Prefix: {
        BitSet nodes{size()};
        owners_in(IpRange::of(selector.prefix), nodes);
        return nodes;
    }
    case Kind::IpSet: {
        BitSet nodes{size()};
        for (const auto& range : document_.ipsets.at(selector.name)) owners_in(range, nodes);
        return nodes;
    }
    case Kind::Service: {
        BitSet hosts{size()};
        const auto service = service_named(selector.name);
        for (const auto& route : subnet_routes_) {
            if (service && route.service == service) hosts.insert(route.node);
        }
        return hosts;
    }
    }
    return nobody_;
}

std::vector<std::uint32_t>::const_iterator Directory::first_at_or_behind(const IpAddress& ip) const {
    return std::partition_point(by_ip_.begin(), by_ip_.end(),
                                [&](std::uint32_t address) { return addresses_[address].ip < ip; });
}

std::optional<std::uint32_t> Directory::address_named(const IpAddress& ip) const {
    const auto found = first_at_or_behind(ip);
    if (found == by_ip_.end() || addresses_[*found].ip != ip) return std::nullopt;
    return *found;
}

void Directory::find_connectors() {
    for (NodeIndex i = 0; i < size(); ++i)
        if (tailnet_.nodes[i].app_connector && is_connector(i)) connectors_.insert(i);
}

bool Directory::is_connector(NodeIndex node) const {
    const auto means_it = [&](const std::string& value) {
        auto entry = parse_app_connector_entry(value);
        return entry && entry->means(tailnet_.nodes[node].tags);
    };
    return std::any_of(
        document_.node_attributes.begin(), document_.node_attributes.end(), [&](const NodeAttribute& attribute) {
            return std::any_of(attribute.app.begin(), attribute.app.end(),
                               [&](const auto& app) {
                                   return app.first == kAppConnectorsCap &&
                                          std::any_of(app.second.begin(), app.second.end(), means_it);
                               }) &&
                   std::any_of(attribute.targets.begin(), attribute.targets.end(),
                               [&](const Selector& target) { return nodes_matching(target).contains(node); });
        });
}

bool Directory::has_attribute(NodeIndex node, std::string_view attribute) const {
    return std::any_of(
        document_.node_attributes.begin(), document_.node_attributes.end(), [&](const NodeAttribute& entry) {
            return std::find(entry.attributes.begin(), entry.attributes.end(), attribute) != entry.attributes.end() &&
                   std::any_of(entry.targets.begin(), entry.targets.end(),
                               [&](const Selector& target) { return nodes_matching(target).contains(node); });
        });
}

} // namespace tailrace
