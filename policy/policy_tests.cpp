// policy/policy_tests.cpp - would this packet pass, would this login succeed?
#include "policy/policy_tests.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/judge.hpp"
#include "policy/stage.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <set>

namespace tailrace {
namespace {

/// A name in a test: addresses per device. Empty: nobody, or not allowed there.
using Devices = std::vector<std::vector<IpAddress>>;

class TestRunner {
public:
    TestRunner(const Document& document, const Tailnet& tailnet)
        : document_(document), stage_(without_attributes(tailnet)) {
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
        const auto judge = judge_of(stage_.tailnet());
        for (const auto& test : document_.tests) {
            if (test.posture_attributes.empty()) {
                run_test(test, judge);
            } else {
                run_test(test, judge_of(with_attributes(test.source, test.posture_attributes, judge)));
            }
        }
        for (const auto& test : document_.ssh_tests) {
            if (test.posture_attributes.empty()) {
                run_ssh_test(test, judge);
            } else {
                run_ssh_test(test, judge_of(with_attributes(test.source, test.posture_attributes, judge)));
            }
        }
        return std::move(failures_);
    }

private:
    /// Tests say which attributes they assume.
    static Tailnet without_attributes(Tailnet tailnet) {
        for (auto& node : tailnet.nodes) node.attributes.clear();
        return tailnet;
    }

    Judge judge_of(Tailnet tailnet) const {
        // The document outlives the judge, which so does not own it.
        const std::shared_ptr<const Document> borrowed{std::shared_ptr<const Document>{}, &document_};
        return Judge{CompiledPolicy::compile(borrowed, std::move(tailnet))};
    }

    void prepare(std::string_view name) {
        const std::string text{name};
        if (name.starts_with("tag:") && document_.tag_owners.count(text) != 0) stage_.need_tag(text);
        if (name.starts_with("svc:")) stage_.need_service(text);
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
        if (text.starts_with("svc:")) {
            selector.kind = Kind::Service;
            return selector;
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
        if (selector.kind == Selector::Kind::Service) {
            const auto service = directory.service_named(selector.name);
            return service ? Devices{directory.tailnet().services[*service].addresses} : Devices{};
        }
        return devices_of(directory.nodes_matching(selector), directory);
    }

    Tailnet with_attributes(const std::string& who, const std::map<std::string, std::string>& assumed,
                            const Judge& judge) const {
        Tailnet tailnet = judge.directory().tailnet();
        const auto source = selector_of(who);
        if (!source) return tailnet;
        const auto nodes = judge.directory().nodes_matching(*source);
        nodes.for_each([&](std::size_t node) {
            auto& attributes = tailnet.nodes[node].attributes;
            for (const auto& [name, text] : assumed) {
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
        const bool has_source = source && !source->is(Autogroup::Self) && source->kind != Selector::Kind::Service;
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
