// policy/preview.cpp - lists rules by one of their ends.
#include "policy/preview.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/judge.hpp"
#include "policy/names.hpp"
#include "policy/posture.hpp"
#include "policy/quote.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <unordered_set>

namespace tailrace {
namespace {

std::vector<std::string> texts_of(const std::vector<Selector>& selectors) {
    std::vector<std::string> texts;
    for (const auto& selector : selectors) texts.push_back(selector.text);
    return texts;
}

std::string access_text(const std::optional<int>& protocol, const std::vector<PortRange>& ports) {
    const auto text = ports_text(ports);
    if (!protocol) return text == "*" ? "anything" : "tcp, udp " + text;
    return text == "*" ? protocol_text(*protocol) : fmt::format("{} {}", protocol_text(*protocol), text);
}

class Previewer {
public:
    explicit Previewer(std::shared_ptr<const CompiledPolicy> policy)
        : policy_(std::move(policy)), document_(policy_->document()), directory_(policy_->data().directory) {}

    Result<Preview> from(std::string_view who) {
        auto devices = devices_named(document_, directory_, who);
        if (!devices) return devices.error();
        nodes_ = BitSet{directory_.size()};
        for (const auto& device : *devices) {
            if (device.node) nodes_.insert(*device.node);
            addresses_.insert(addresses_.end(), device.addresses.begin(), device.addresses.end());
        }
        if (devices->empty()) return Error::make("{} stands for no device", quoted(who));
        if (!document_.acls && !document_.grants) add_default();
        for (const auto& grant : document_.grants.value_or(std::vector<Grant>{})) {
            if (!is_source(grant.sources)) continue;
            for (const auto& destination : grant.destinations) add_grant(grant, destination);
        }
        for (const auto& acl : document_.acls.value_or(std::vector<AclRule>{})) {
            if (!is_source(acl.sources)) continue;
            for (const auto& destination : acl.destinations) add_acl(acl, destination);
        }
        for (const auto& rule : document_.ssh) {
            if (is_source(rule.sources)) add_ssh(rule);
        }
        return std::move(preview_);
    }

    Result<Preview> to(std::string_view text) {
        auto target = Endpoint::parse(text);
        if (!target || !target->valid() || target->port == 0)
            return Error::make("{}: want an address and a port, such as 100.64.0.7:443", quoted(text));
        const Judge judge{policy_};
        if (!document_.acls && !document_.grants) add_default();
        std::unordered_set<std::uint32_t> matching;
        for (const auto& rule : judge.rules()) {
            if (!Judge::is_about_packets(rule)) continue;
            Probe probe{target->address, target->address, target->port, std::nullopt};
            const auto match = judge.match(rule, probe);
            if (match.destination && match.ports && match.routed) matching.insert(rule.offset);
        }
        const auto is_matching = [&](std::uint32_t offset) { return matching.count(offset) != 0; };
        const auto leads_there = [&](const Selector& selector) { return contains(selector, target->address); };
        for (const auto& grant : document_.grants.value_or(std::vector<Grant>{})) {
            if (!is_matching(grant.offset)) continue;
            for (const auto& destination : grant.destinations) {
                if (leads_there(destination)) add_grant(grant, destination);
            }
        }
        for (const auto& acl : document_.acls.value_or(std::vector<AclRule>{})) {
            if (!is_matching(acl.offset)) continue;
            for (const auto& destination : acl.destinations) {
                const bool port = std::any_of(destination.ports.begin(), destination.ports.end(),
                                              [&](PortRange ports) { return ports.contains(target->port); });
                if (port && leads_there(destination.selector)) add_acl(acl, destination);
            }
        }
        return std::move(preview_);
    }

private:
    bool contains(const Selector& selector, const IpAddress& ip) const {
        using Kind = Selector::Kind;
        if (selector.kind == Kind::Everything || selector.is(Autogroup::Self)) return true;
        if (selector.kind == Kind::Prefix) return selector.prefix.contains(ip);
        const auto is_in = [&](const std::vector<IpRange>& ranges) {
            return std::any_of(ranges.begin(), ranges.end(), [&](const IpRange& range) { return range.contains(ip); });
        };
        if (selector.kind == Kind::IpSet) return is_in(document_.ipsets.at(selector.name));
        if (selector.kind == Kind::Service) {
            const auto service = directory_.service_named(selector.name);
            if (!service) return false;
            const auto& own = directory_.tailnet().services[*service].addresses;
            return std::find(own.begin(), own.end(), ip) != own.end();
        }
        if (selector.is(Autogroup::Internet)) return is_in(internet_ranges());
        const auto address = directory_.address_named(ip);
        return address && directory_.nodes_matching(selector).contains(directory_.addresses()[*address].node);
    }

    bool is_source(const std::vector<Selector>& selectors) const {
        return std::any_of(selectors.begin(), selectors.end(), [&](const Selector& selector) {
            if (selector.kind == Selector::Kind::Prefix || selector.kind == Selector::Kind::IpSet)
                return std::any_of(addresses_.begin(), addresses_.end(),
                                   [&](const IpAddress& ip) { return contains(selector, ip); });
            return directory_.nodes_matching(selector).intersects(nodes_);
        });
    }

    PreviewRow& add_row(std::uint32_t offset, const char* kind, const std::vector<Selector>& sources,
                        const Selector& destination, const std::vector<std::string>& postures) {
        auto& row = preview_.rows.emplace_back();
        row.position = document_.position_of(offset);
        row.kind = kind;
        row.sources = texts_of(sources);
        row.destination = destination.text;
        row.postures = postures.empty() ? document_.default_source_postures : postures;
        row.fulfilled = row.postures.empty();
        if (nodes_.size() == 0) row.fulfilled = true; // nobody in particular is asked about
        nodes_.for_each([&](std::size_t node) {
            row.fulfilled =
                row.fulfilled || fulfils(document_, postures, directory_.node(static_cast<NodeIndex>(node)).attributes);
        });
        BitSet reached{directory_.size()};
        if (destination.is(Autogroup::Self)) {
            nodes_.for_each([&](std::size_t node) {
                const auto index = static_cast<NodeIndex>(node);
                if (directory_.untagged().contains(node))
                    reached |= directory_.nodes_of_user(directory_.node(index).user);
            });
        } else if (destination.kind != Selector::Kind::Everything && !destination.is(Autogroup::Internet)) {
            reached = directory_.nodes_matching(destination);
        }
        reached.for_each(
            [&](std::size_t node) { row.devices.push_back(describe(directory_, static_cast<NodeIndex>(node))); });
        return row;
    }

    void add_default() {
        auto& row = preview_.rows.emplace_back();
        row.kind = "ip";
        row.sources = {"*"};
        row.destination = "*";
        row.access = "anything";
    }

    void add_acl(const AclRule& acl, const AclDestination& destination) {
        add_row(acl.offset, "ip", acl.sources, destination.selector, acl.postures).access =
            access_text(acl.protocol, destination.ports);
    }

    void add_grant(const Grant& grant, const Selector& destination) {
        std::vector<std::pair<std::optional<int>, std::vector<PortRange>>> groups;
        for (const auto& item : grant.ip) {
            auto found = std::find_if(groups.begin(), groups.end(),
                                      [&](const auto& group) { return group.first == item.protocol; });
            if (found == groups.end()) found = groups.insert(groups.end(), {item.protocol, {}});
            found->second.push_back(item.ports);
        }
        std::vector<std::string> access;
        for (const auto& [protocol, ports] : groups) access.push_back(access_text(protocol, ports));
        if (!access.empty()) {
            auto& row = add_row(grant.offset, "ip", grant.sources, destination, grant.postures);
            row.access = join(access, "; ");
            row.via = grant.via;
        }
        for (const auto& [name, values] : grant.app) {
            auto& row = add_row(grant.offset, "app", grant.sources, destination, grant.postures);
            row.access = name + (values.empty() ? "" : " " + join(values, ","));
            row.via = grant.via;
        }
    }

    void add_ssh(const SshPolicyRule& rule) {
        for (const auto& destination : rule.destinations)
            add_row(rule.offset, "ssh", rule.sources, destination, rule.postures).access =
                fmt::format("log in as {}{}", enumerate(rule.users), rule.check ? " (check)" : "");
    }

    std::shared_ptr<const CompiledPolicy> policy_;
    const Document& document_;
    const Directory& directory_;
    BitSet nodes_;
    std::vector<IpAddress> addresses_;
    Preview preview_;
};

} // namespace

Result<Preview> preview_source(std::shared_ptr<const CompiledPolicy> policy, std::string_view who) {
    return Previewer{std::move(policy)}.from(trim(who));
}

Result<Preview> preview_destination(std::shared_ptr<const CompiledPolicy> policy, std::string_view address_and_port) {
    return Previewer{std::move(policy)}.to(trim(address_and_port));
}

std::string Preview::json() const {
    std::string out = "{\"matches\":[";
    for (const auto& row : rows) {
        if (&row != &rows.front()) out += ',';
        out += fmt::format("{{\"lineNumber\":{},\"kind\":\"{}\",\"users\":", row.position.line, row.kind);
        json::append(out, row.sources);
        out += ",\"destination\":";
        json::append(out, row.destination);
        out += ",\"access\":";
        json::append(out, row.access);
        const auto append = [&](const char* name, const std::vector<std::string>& list) {
            if (list.empty()) return;
            out += fmt::format(",\"{}\":", name);
            json::append(out, list);
        };
        append("via", row.via);
        append("postures", row.postures);
        append("devices", row.devices);
        out += fmt::format(",\"fulfilled\":{}}}", row.fulfilled);
    }
    return out + "]}";
}

} // namespace tailrace
