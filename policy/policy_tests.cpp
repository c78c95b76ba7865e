// policy/policy_tests.cpp - would this packet pass, would this login succeed?
#include "policy/policy_tests.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/compiled_data.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <set>

namespace tailrace {
namespace {

/// What stands for nobody's device: a test may name users and tags that have none yet.
class Stage {
public:
    explicit Stage(const Tailnet& tailnet) : tailnet_(tailnet) {
        for (auto& node : tailnet_.nodes) node.attributes.clear(); // tests say which attributes they assume
    }

    void need_user(const std::string& login) {
        for (const auto& user : tailnet_.users) {
            if (user.login != login) continue;
            const bool has = std::any_of(tailnet_.nodes.begin(), tailnet_.nodes.end(), [&](const TailnetNode& node) {
                return !node.is_tagged() && node.user == user.id;
            });
            if (!has) add_node().user = user.id;
        }
    }

    void need_tag(const std::string& tag) {
        const bool has = std::any_of(tailnet_.nodes.begin(), tailnet_.nodes.end(), [&](const TailnetNode& node) {
            return std::find(node.tags.begin(), node.tags.end(), tag) != node.tags.end();
        });
        if (!has) add_node().tags = {tag};
    }

    const Tailnet& tailnet() const { return tailnet_; }

private:
    TailnetNode& add_node() {
        const auto last =
            tailnet_.nodes.empty()
                ? 0
                : std::max_element(tailnet_.nodes.begin(), tailnet_.nodes.end(), [](const auto& a, const auto& b) {
                      return a.id < b.id;
                  })->id;
        auto& node = tailnet_.nodes.emplace_back();
        node.id = last + 1;
        // The last addresses of the tailnet's ranges are given out last.
        ++made_;
        std::array<std::byte, 16> v6{std::byte{0xfd}, std::byte{0x7a}, std::byte{0x11}, std::byte{0x5c},
                                     std::byte{0xa1}, std::byte{0xe0}, std::byte{0xff}, std::byte{0xff}};
        v6[14] = static_cast<std::byte>(made_ >> 8);
        v6[15] = static_cast<std::byte>(made_ & 0xff);
        node.addresses = {IpAddress::v4(0x647fffff - made_), IpAddress::v6(v6)};
        return node;
    }

    Tailnet tailnet_;
    std::uint32_t made_ = 0;
};

/// A packet to judge, without the sender's port.
struct Probe {
    IpAddress source;
    IpAddress destination;
    std::uint16_t port = 0;
    std::optional<int> protocol; ///< nothing: any of the default protocols will do
};

class Judge {
public:
    Judge(const Document& document, const Tailnet& tailnet)
        : compiled_(CompiledPolicy::compile(
              std::shared_ptr<const Document>{std::shared_ptr<const Document>{}, &document}, tailnet)),
          data_(compiled_->data()) {}

    const Directory& directory() const { return data_.directory; }
    const CompiledPolicy& compiled() const { return *compiled_; }

    /// By all rules, whether or not a node would receive them: an address that is no node's can be tested too.
    bool allows(const Probe& probe) const {
        return probe.source.bits() == probe.destination.bits() &&
               std::any_of(data_.list.rules.begin(), data_.list.rules.end(), [&](const Rule& rule) {
                   return rule.kind == Rule::Kind::Ports && !rule.silent && allows(rule, probe);
               });
    }

private:
    bool allows(const Rule& rule, const Probe& probe) const {
        const auto target = owner_of(probe.destination);
        if (rule.self) {
            const auto source = owner_of(probe.source);
            if (!source || !target || !rule.self_sources.contains(*source) || !rule.receivers.contains(*target))
                return false;
            if (directory().node(*source).user != directory().node(*target).user) return false;
        } else if (!rule.sources->contains(directory(), probe.source)) {
            return false;
        }
        if (rule.via && !is_routed(rule, probe.destination)) return false;
        return std::any_of(rule.destinations.begin(), rule.destinations.end(), [&](const RuleDestination& destination) {
            return (rule.self || contains(destination, probe.destination)) && admits(rule, destination, probe);
        });
    }

    bool is_routed(const Rule& rule, const IpAddress& ip) const {
        bool routed = false;
        rule.receivers.for_each([&](std::size_t node) {
            const auto& routes = directory().node(static_cast<NodeIndex>(node)).routes;
            routed = routed || std::any_of(routes.begin(), routes.end(),
                                           [&](const IpPrefix& route) { return route.contains(ip); });
        });
        return routed;
    }

    bool contains(const RuleDestination& destination, const IpAddress& ip) const {
        switch (destination.kind) {
        case RuleDestination::Kind::Everything:
            return true;
        case RuleDestination::Kind::Internet: {
            const auto& ranges = internet_ranges();
            return std::any_of(ranges.begin(), ranges.end(), [&](const IpRange& range) { return range.contains(ip); });
        }
        case RuleDestination::Kind::Ranges:
            return std::any_of(destination.ranges.begin(), destination.ranges.end(),
                               [&](const auto& range) { return range.first.contains(ip); });
        case RuleDestination::Kind::Nodes: {
            const auto owner = owner_of(ip);
            return owner && destination.nodes.contains(*owner);
        }
        }
        return false;
    }

    /// Protocol and port, as the filter of the receiving node sees them.
    static bool admits(const Rule& rule, const RuleDestination& destination, const Probe& probe) {
        static const std::vector<int> kDefault = {6, 17, 1, 58};
        const auto& protocols = rule.protocols.empty() ? kDefault : rule.protocols;
        if (probe.protocol && (*probe.protocol == 1 || *probe.protocol == 58))
            return true; // whatever the rule's protocols and ports
        const bool listed =
            !probe.protocol || std::find(protocols.begin(), protocols.end(), *probe.protocol) != protocols.end();
        if (!listed) return false;
        const bool needs_all = probe.protocol && !has_ports(*probe.protocol);
        return std::any_of(destination.ports.begin(), destination.ports.end(),
                           [&](PortRange ports) { return needs_all ? ports.is_all() : ports.contains(probe.port); });
    }

    std::optional<NodeIndex> owner_of(const IpAddress& ip) const {
        const auto address = directory().address_named(ip);
        if (!address) return std::nullopt;
        return directory().addresses()[*address].node;
    }

    std::shared_ptr<const CompiledPolicy> compiled_;
    const CompiledPolicy::Data& data_;
};

/// A name in a test: addresses per device. Empty: nobody, or not allowed there.
using Devices = std::vector<std::vector<IpAddress>>;

class TestRunner {
public:
    TestRunner(const Document& document, const Tailnet& tailnet) : document_(document), stage_(tailnet) {
        for (const auto& test : document.tests) {
            prepare(test.source);
            for (const auto* list : {&test.accept, &test.deny}) {
                for (const auto& destination : *list)
                    prepare(std::string_view{destination.text}.substr(0, destination.text.rfind(':')));
            }
        }
        for (const auto& test : document.ssh_tests) {
            prepare(test.source);
            for (const auto& destination : test.destinations) prepare(destination.text);
        }
    }

    std::vector<TestFailure> run() {
        if (document_.tests.empty() && document_.ssh_tests.empty()) return {};
        const Judge judge{document_, stage_.tailnet()};
        for (const auto& test : document_.tests) {
            if (test.posture_attributes.empty()) {
                run_test(test, judge);
            } else {
                run_test(test, Judge{document_, with_attributes(test, judge)});
            }
        }
        for (const auto& test : document_.ssh_tests) run_ssh_test(test, judge);
        return std::move(failures_);
    }

private:
    void prepare(std::string_view name) {
        const std::string text{name};
        if (name.starts_with("tag:") && document_.tag_owners.count(text) != 0) stage_.need_tag(text);
        if (name.find('@') != std::string_view::npos) stage_.need_user(text);
        if (const auto group = document_.groups.find(text); group != document_.groups.end()) {
            for (const auto& member : group->second) stage_.need_user(member);
        }
    }

    /// The selector of a name that a test may use, or nothing.
    std::optional<Selector> selector_of(const std::string& text) const {
        using Kind = Selector::Kind;
        Selector selector;
        selector.text = selector.name = text;
        if (text.empty() || text == "*") return std::nullopt;
        if (auto address = IpAddress::parse(text); address && address->valid()) {
            selector.kind = Kind::Prefix;
            selector.prefix = IpPrefix::single(*address);
            return selector;
        }
        if (text.starts_with("user:*@")) {
            selector.kind = Kind::UserDomain;
            selector.name = text.substr(7);
            return selector;
        }
        if (text.starts_with("group:")) {
            selector.kind = Kind::Group;
            return document_.groups.count(text) != 0 ? std::optional{selector} : std::nullopt;
        }
        if (text.starts_with("tag:")) {
            selector.kind = Kind::Tag;
            return document_.tag_owners.count(text) != 0 ? std::optional{selector} : std::nullopt;
        }
        if (text.starts_with("autogroup:")) {
            const auto autogroup = autogroup_named(std::string_view{text}.substr(10));
            if (!autogroup || *autogroup == Autogroup::Internet || *autogroup == Autogroup::DangerAll ||
                *autogroup == Autogroup::Nonroot)
                return std::nullopt;
            selector.kind = Kind::AutogroupKind;
            selector.autogroup = *autogroup;
            return selector;
        }
        if (text.find('@') != std::string::npos) {
            selector.kind = Kind::User;
            return selector;
        }
        const auto host = document_.hosts.find(text);
        if (host == document_.hosts.end() || !host->second.is_single()) return std::nullopt;
        selector.kind = Kind::Prefix;
        selector.prefix = host->second;
        return selector;
    }

    static Devices devices_of(const BitSet& nodes, const Directory& directory) {
        Devices devices;
        nodes.for_each(
            [&](std::size_t node) { devices.push_back(directory.node(static_cast<NodeIndex>(node)).addresses); });
        return devices;
    }

    static Devices devices_of(const Selector& selector, const Directory& directory) {
        if (selector.kind == Selector::Kind::Prefix)
            return {{selector.prefix.address()}}; // that one address, a node's or not
        return devices_of(directory.nodes_matching(selector), directory);
    }

    Tailnet with_attributes(const PolicyTest& test, const Judge& judge) const {
        Tailnet tailnet = judge.directory().tailnet();
        const auto source = selector_of(test.source);
        if (!source) return tailnet;
        const auto nodes = judge.directory().nodes_matching(*source);
        nodes.for_each([&](std::size_t node) {
            auto& attributes = tailnet.nodes[node].attributes;
            for (const auto& [name, text] : test.posture_attributes) {
                if (text == "true" || text == "false") {
                    attributes[name] = text == "true";
                } else if (text.starts_with('"')) {
                    auto value = json::parse<std::string>(text);
                    if (value) attributes[name] = *value;
                } else {
                    attributes[name] = std::strtod(text.c_str(), nullptr);
                }
            }
        });
        return tailnet;
    }

    void fail(const std::string& source, std::string message, std::uint32_t offset) {
        failures_.push_back({source, std::move(message), offset});
    }

    void run_test(const PolicyTest& test, const Judge& judge) {
        const auto source = selector_of(test.source);
        const bool has_source = source && !source->is(Autogroup::Self);
        std::optional<int> protocol;
        if (!test.protocol.empty()) {
            auto number = parse_protocol(test.protocol);
            if (!number) return fail(test.source, number.error().message(), test.offset);
            protocol = *number;
        }
        if (!has_source)
            return fail(test.source, fmt::format("src {}: unknown or not allowed in a test", quoted(test.source)),
                        test.offset);
        if (test.accept.empty() && test.deny.empty()) return fail(test.source, "neither accept nor deny", test.offset);
        const auto devices = devices_of(*source, judge.directory());
        for (const auto& destination : test.accept)
            run_destination(test, *source, devices, protocol, destination, true, judge);
        for (const auto& destination : test.deny)
            run_destination(test, *source, devices, protocol, destination, false, judge);
    }

    void run_destination(const PolicyTest& test, const Selector& source, const Devices& devices,
                         std::optional<int> protocol, const PolicyTestDestination& destination, bool want_accept,
                         const Judge& judge) {
        const auto refuse = [&](const char* why) {
            fail(test.source, fmt::format("address {}: {}", quoted(destination.text), why), destination.offset);
        };
        const auto colon = destination.text.rfind(':');
        if (colon == std::string::npos) return refuse("want one host and one port");
        const auto port = parse_number<std::uint16_t>(std::string_view{destination.text}.substr(colon + 1));
        const bool is_icmp = protocol == 1 || protocol == 58;
        if (!port || (*port == 0 && !is_icmp)) return refuse("want one host and one port");
        auto name = destination.text.substr(0, colon);
        if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
        const auto target = selector_of(name);
        if (!target) return refuse("unknown or not allowed in a test");

        bool all = !devices.empty();
        for (const auto& device : devices) {
            Devices targets;
            if (target->is(Autogroup::Self)) {
                targets = own_devices(device, judge.directory());
                if (targets.empty()) return refuse("autogroup:self needs users as src");
            } else {
                targets = devices_of(*target, judge.directory());
            }
            all = all && reaches_any(device, targets, *port, protocol, judge);
        }
        (void)source;
        if (all == want_accept) return;
        fail(test.source,
             fmt::format("address {}: want: {}, got: {}", quoted(destination.text), want_accept ? "Accept" : "Drop",
                         all ? "Accept" : "Drop"),
             destination.offset);
    }

    static Devices own_devices(const std::vector<IpAddress>& device, const Directory& directory) {
        const auto address = directory.address_named(device.front());
        if (!address) return {};
        const auto node = directory.addresses()[*address].node;
        if (!directory.untagged().contains(node)) return {};
        return devices_of(directory.nodes_of_user(directory.node(node).user), directory);
    }

    static bool reaches_any(const std::vector<IpAddress>& device, const Devices& targets, std::uint16_t port,
                            std::optional<int> protocol, const Judge& judge) {
        for (const auto& from : device) {
            for (const auto& target : targets) {
                for (const auto& to : target) {
                    if (judge.allows({from, to, port, protocol})) return true;
                }
            }
        }
        return false;
    }

    void run_ssh_test(const SshTest& test, const Judge& judge) {
        const auto source = selector_of(test.source);
        const bool empty = test.accept.empty() && test.check.empty() && test.deny.empty();
        if (test.malformed || !source || source->is(Autogroup::Self) || test.destinations.empty() || empty)
            return fail(test.source, "the SSH test is incomplete or names nobody", test.offset);
        const auto devices = devices_of(*source, judge.directory());
        for (const auto& destination : test.destinations) {
            const auto nodes = judge.directory().nodes_matching(destination);
            if (nodes.empty() || devices.empty())
                fail(test.source, fmt::format("{}: names nobody", quoted(destination.text)), destination.offset);
            nodes.for_each([&](std::size_t node) {
                const auto rules =
                    judge.compiled().ssh_rules_for(judge.directory().node(static_cast<NodeIndex>(node)).id);
                for (const auto& device : devices) {
                    for (const auto& address : device) run_logins(test, destination, rules, address);
                }
            });
        }
    }

    void run_logins(const SshTest& test, const Selector& destination, const std::vector<SshRule>& rules,
                    const IpAddress& source) {
        const auto expect = [&](const std::vector<std::string>& logins, const char* want, auto holds) {
            for (const auto& login : logins) {
                const auto* rule = login.empty() ? nullptr : match_ssh_rule(rules, source, login);
                const char* got = rule == nullptr ? "Drop" : rule->check ? "Check" : "Accept";
                if (login.empty() || !holds(rule))
                    fail(test.source, fmt::format("{}@{}: want: {}, got: {}", login, destination.text, want, got),
                         destination.offset);
            }
        };
        expect(test.accept, "Accept", [](const SshRule* rule) { return rule != nullptr; });
        expect(test.check, "Check", [](const SshRule* rule) { return rule != nullptr && rule->check; });
        expect(test.deny, "Drop", [](const SshRule* rule) { return rule == nullptr; });
    }

    const Document& document_;
    Stage stage_;
    std::vector<TestFailure> failures_;
};

} // namespace

std::vector<TestFailure> run_policy_tests(const Document& document, const Tailnet& tailnet) {
    return TestRunner{document, tailnet}.run();
}

} // namespace tailrace
