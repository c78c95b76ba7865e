// policy/names.cpp - looks names up.
#include "policy/names.hpp"

#include "base/text.hpp"
#include "policy/words.hpp"

#include <algorithm>

namespace tailrace {

std::string describe(const Directory& directory, NodeIndex node) {
    const auto& device = directory.node(node);
    const auto* user = directory.user_of(node);
    const auto owner = device.is_tagged() ? join(device.tags, ", ") : user == nullptr ? "nobody's" : user->login;
    const auto name = !device.name.empty()       ? device.name
                      : device.addresses.empty() ? std::to_string(device.id)
                                                 : device.addresses.front().text();
    return name == owner ? name : fmt::format("{} ({})", name, owner);
}

std::optional<Selector> selector_named(const Document& document, std::string_view name) {
    using Kind = Selector::Kind;
    Selector selector;
    selector.text = selector.name = std::string{name};
    if (name == "*") return selector;
    if (auto prefix = parse_address_or_prefix(name); !name.empty() && prefix) {
        selector.kind = Kind::Prefix;
        selector.prefix = *prefix;
        return selector;
    }
    const auto when_known = [&](Kind kind, const auto& known) -> std::optional<Selector> {
        selector.kind = kind;
        return known.count(selector.name) != 0 ? std::optional{selector} : std::nullopt;
    };
    if (name.starts_with("user:*@")) {
        selector.kind = Kind::UserDomain;
        selector.name = std::string{name.substr(7)};
        return selector;
    }
    if (name.starts_with("group:")) return when_known(Kind::Group, document.groups);
    if (name.starts_with("tag:")) return when_known(Kind::Tag, document.tag_owners);
    if (name.starts_with("ipset:")) return when_known(Kind::IpSet, document.ipsets);
    if (name.starts_with("svc:")) {
        selector.kind = Kind::Service;
        return selector;
    }
    if (name.starts_with("autogroup:")) {
        const auto autogroup = autogroup_named(name.substr(10));
        if (!autogroup || *autogroup == Autogroup::Nonroot || *autogroup == Autogroup::Self) return std::nullopt;
        selector.kind = Kind::AutogroupKind;
        selector.autogroup = *autogroup;
        return selector;
    }
    if (name.find('@') != std::string_view::npos) {
        selector.kind = Kind::User;
        return selector;
    }
    const auto host = document.hosts.find(selector.name);
    if (host == document.hosts.end()) return std::nullopt;
    selector.kind = Kind::Prefix;
    selector.prefix = host->second;
    return selector;
}

Result<std::vector<NamedDevice>> devices_named(const Document& document, const Directory& directory,
                                               std::string_view name) {
    std::vector<NamedDevice> devices;
    const auto add_node = [&](NodeIndex node) {
        devices.push_back({describe(directory, node), node, directory.node(node).addresses});
    };
    const auto add_address = [&](const IpAddress& ip) {
        const auto address = directory.address_named(ip);
        const auto node = address ? std::optional{directory.addresses()[*address].node} : std::nullopt;
        devices.push_back({ip.text(), node, {ip}});
    };
    for (NodeIndex i = 0; i < directory.size(); ++i) {
        const auto& known = directory.node(i).name;
        if (!known.empty() && equals_ignoring_case(known, name)) add_node(i);
    }
    if (!devices.empty()) return devices;

    const auto selector = selector_named(document, name);
    if (!selector) return Error::make("{}: no device, user, group, tag or host has this name", quoted(name));
    using Kind = Selector::Kind;
    if (selector->is(Autogroup::Internet)) { // any of its addresses will do
        add_address(IpAddress::v4(0x01010101));
        return devices;
    }
    if (selector->kind == Kind::Prefix && selector->prefix.is_single()) {
        add_address(selector->prefix.address());
        return devices;
    }
    if (selector->kind == Kind::Service) {
        if (const auto service = directory.service_named(selector->name))
            devices.push_back({selector->name, std::nullopt, directory.tailnet().services[*service].addresses});
        return devices;
    }
    const auto nodes = directory.nodes_matching(*selector);
    nodes.for_each([&](std::size_t node) { add_node(static_cast<NodeIndex>(node)); });
    if (!devices.empty()) return devices;
    // A network: its first address stands for all that have no device.
    if (selector->kind == Kind::Prefix) add_address(selector->prefix.first());
    if (selector->kind == Kind::IpSet) {
        for (const auto& range : document.ipsets.at(selector->name)) add_address(range.first);
    }
    return devices;
}

} // namespace tailrace
