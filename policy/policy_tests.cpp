// policy/policy_tests.cpp - would this packet pass, would this login succeed?
#include "policy/policy_tests.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/judge.hpp"
#include "policy/posture.hpp"
#include "policy/stage.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <map>
#include <unordered_map>

namespace tailrace {
namespace {

/// A name in a test: addresses per device. Empty: nobody, or not allowed there.
using Devices = std::vector<std::vector<IpAddress>>;

class TestRunner {
public:
    TestRunner(const Document& document, const Tailnet& tailnet, Strangers strangers)
        : document_(document), strangers_(strangers), stage_(without_attributes(tailnet)) {
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
        // One compilation for all tests, as if every posture were fulfilled: which are is asked rule by rule.
        judge_.emplace(
            CompiledPolicy::compile(std::make_shared<const Document>(without_postures(document_)), stage_.tailnet()));
        if (document_.acls) {
            for (const auto& acl : *document_.acls) postures_[acl.offset] = &acl.postures;
        }
        if (document_.grants) {
            for (const auto& grant : *document_.grants) postures_[grant.offset] = &grant.postures;
        }
        for (const auto& test : document_.tests) {
            assume(test.source, test.posture_attributes);
            run_test(test);
        }
        for (const auto& test : document_.ssh_tests) {
            assume(test.source, test.posture_attributes);
            run_ssh_test(test);
        }
        return std::move(failures_);
    }

private:
    /// Tests say which attributes they assume.
    static Tailnet without_attributes(Tailnet tailnet) {
        for (auto& node : tailnet.nodes) node.attributes.clear();
        return tailnet;
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

    /// Until the next test only its source has these attributes.
    void assume(const std::string& who, const std::map<std::string, std::string>& texts) {
        assumed_.clear();
        for (const auto& [name, text] : texts) {
            if (text == "true" || text == "false") {
                assumed_[name] = text == "true";
            } else if (text.starts_with('"')) {
                auto value = json::parse<std::string>(text);
                if (value) assumed_[name] = *value;
            } else {
                assumed_[name] = std::strtod(text.c_str(), nullptr);
            }
        }
        const auto source = texts.empty() ? std::nullopt : selector_of(who);
        assuming_ = source ? directory().nodes_matching(*source) : BitSet{directory().size()};
    }

    const PostureAttributes& attributes_of(NodeIndex node) const {
        static const PostureAttributes kNone;
        return assuming_.contains(node) ? assumed_ : kNone;
    }

    /// Whether the source may use the rule, apart from what the rule is about.
    bool fulfils_postures(const Rule& rule, const IpAddress& source) const {
        static const std::vector<std::string> kNone;
        const auto found = postures_.find(rule.offset);
        if (found == postures_.end() && rule.offset != 0) return true; // to recorders: the rule is about logins
        const auto& asked = found == postures_.end() ? kNone : *found->second;
        if (asked.empty() && document_.default_source_postures.empty()) return true;
        const auto node = judge_->owner_of(source); // hosts behind routers have no posture to fulfil
        return node && fulfils(document_, asked, attributes_of(*node));
    }

    /// The rules that have this source, whatever its postures.
    const std::vector<const Rule*>& rules_from(const IpAddress& source) {
        constexpr std::size_t kMostKept = 4'000'000;
        const auto known = rules_from_.find(source);
        if (known != rules_from_.end()) return known->second;
        if (rules_kept_ > kMostKept) {
            rules_from_.clear();
            rules_kept_ = 0;
        }
        auto& rules = rules_from_[source] = judge_->rules_from(source);
        rules_kept_ += rules.size() + 16;
        return rules;
    }

    bool allows(const Probe& probe) {
        if (probe.source.bits() != probe.destination.bits()) return false;
        const auto& rules = rules_from(probe.source);
        return std::any_of(rules.begin(), rules.end(), [&](const Rule* rule) {
            return judge_->match(*rule, probe).allows() && fulfils_postures(*rule, probe.source);
        });
    }

    const Directory& directory() const { return judge_->directory(); }

    void fail(const std::string& source, std::string message, std::uint32_t offset) {
        failures_.push_back({source, std::move(message), offset});
    }

    void run_test(const PolicyTest& test) {
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
        const auto devices = devices_of(*source, directory());
        for (const auto& destination : test.accept) run_destination(test, devices, protocol, destination, true);
        for (const auto& destination : test.deny) run_destination(test, devices, protocol, destination, false);
    }

    void run_destination(const PolicyTest& test, const Devices& devices, std::optional<int> protocol,
                         const PolicyTestDestination& destination, bool want_accept) {
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

        const bool self = target->is(Autogroup::Self);
        auto targets = self ? Devices{} : devices_of(*target, directory());
        if (strangers_ == Strangers::MayCome && (devices.empty() || (targets.empty() && !self))) return;
        bool all = !devices.empty();
        for (const auto& device : devices) {
            if (self) targets = own_devices(device, directory());
            if (self && targets.empty()) return refuse("autogroup:self needs users as src");
            all = all && reaches_any(device, targets, *port, protocol);
        }
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

    bool reaches_any(const std::vector<IpAddress>& device, const Devices& targets, std::uint16_t port,
                     std::optional<int> protocol) {
        for (const auto& from : device) {
            for (const auto& target : targets) {
                for (const auto& to : target) {
                    if (allows({from, to, port, protocol})) return true;
                }
            }
        }
        return false;
    }

    void run_ssh_test(const SshTest& test) {
        const auto source = selector_of(test.source);
        const bool empty = test.accept.empty() && test.check.empty() && test.deny.empty();
        if (test.malformed || !source || source->is(Autogroup::Self) || test.destinations.empty() || empty)
            return fail(test.source, "the SSH test is incomplete or names nobody", test.offset);
        const auto devices = devices_of(*source, directory());
        for (const auto& destination : test.destinations) {
            const auto nodes = directory().nodes_matching(destination);
            if (strangers_ == Strangers::MayCome && (nodes.empty() || devices.empty())) continue;
            if (nodes.empty() || devices.empty())
                fail(test.source, fmt::format("{}: names nobody", quoted(destination.text)), destination.offset);
            nodes.for_each([&](std::size_t node) {
                const auto rules =
                    ssh_rules(document_, directory(), static_cast<NodeIndex>(node),
                              [&](NodeIndex each) -> const PostureAttributes& { return attributes_of(each); });
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
    Strangers strangers_;
    Stage stage_;
    std::optional<Judge> judge_;
    std::unordered_map<std::uint32_t, const std::vector<std::string>*> postures_; ///< of acls and grants, by offset
    PostureAttributes assumed_;
    BitSet assuming_; ///< the nodes that have them
    std::map<IpAddress, std::vector<const Rule*>> rules_from_;
    std::size_t rules_kept_ = 0;
    std::vector<TestFailure> failures_;
};

} // namespace

std::vector<TestFailure> run_policy_tests(const Document& document, const Tailnet& tailnet, Strangers strangers) {
    return TestRunner{document, tailnet, strangers}.run();
}

} // namespace tailrace
