// policy/lint_rules.cpp - compares rules as sets: by the text alone on an imagined tailnet, and on the real one.
#include "base/text.hpp"
#include "policy/containment.hpp"
#include "policy/coverage.hpp"
#include "policy/judge.hpp"
#include "policy/lint_names.hpp"
#include "policy/quote.hpp"
#include "policy/stage.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

namespace tailrace {
namespace {

using Severity = LintFinding::Severity;

/// An acl or a grant, as far as lint looks at both alike.
struct PolicyRule {
    std::uint32_t offset = 0;
    const std::vector<Selector>* sources = nullptr;
    std::vector<const Selector*> destinations;
    const std::vector<std::string>* postures = nullptr;
    const AclRule* acl = nullptr;
    const Grant* grant = nullptr;
};

std::vector<PolicyRule> rules_of(const Document& document) {
    std::vector<PolicyRule> rules;
    if (document.grants) {
        for (const auto& grant : *document.grants) {
            PolicyRule rule{grant.offset, &grant.sources, {}, &grant.postures, nullptr, &grant};
            for (const auto& destination : grant.destinations) rule.destinations.push_back(&destination);
            rules.push_back(std::move(rule));
        }
    }
    if (document.acls) {
        for (const auto& acl : *document.acls) {
            PolicyRule rule{acl.offset, &acl.sources, {}, &acl.postures, &acl, nullptr};
            for (const auto& destination : acl.destinations) rule.destinations.push_back(&destination.selector);
            rules.push_back(std::move(rule));
        }
    }
    return rules;
}

class RuleLinter {
public:
    RuleLinter(const Document& document, LintReport& report)
        : document_(document), report_(report), rules_(rules_of(document)) {}

    void run(const Tailnet* tailnet) {
        if (!document_.acls && !document_.grants) {
            report_.add(Severity::Warning, "allows-everything", 0,
                        "the policy has neither acls nor grants: everything may reach everything");
            return;
        }
        for (const auto& rule : rules_) look_at_text(rule);
        auto with_yardstick = without_postures(document_);
        if (!with_yardstick.acls) with_yardstick.acls.emplace();
        with_yardstick.acls->push_back(everything_for_members());
        auto imagined = std::make_shared<const Document>(std::move(with_yardstick));
        if (auto everybody = imagined_tailnet({imagined.get()});
            !is_comparable(everybody.nodes.size(), rules_.size())) {
            report_.add(Severity::Note, "not-compared", 0,
                        fmt::format("the rules were not compared: {} rules for {} users and tags are too many; a "
                                    "tailnet, given, still tells which of them match nothing now",
                                    rules_.size(), everybody.nodes.size()));
        } else {
            const auto symbolic = CompiledPolicy::compile(imagined, std::move(everybody));
            find_dead(*symbolic, When::Ever);
            const Containment containment{*symbolic};
            find_shadowed(containment);
            find_shadowed_together(*symbolic, containment);
            find_too_wide(*symbolic, containment);
        }
        if (tailnet == nullptr) return;
        auto borrowed = std::shared_ptr<const Document>{std::shared_ptr<const Document>{}, &document_};
        find_dead(*CompiledPolicy::compile(borrowed, *tailnet), When::Now);
    }

private:
    enum class When { Ever, Now };

    /// What needs no sets.
    void look_at_text(const PolicyRule& rule) {
        const auto has = [&](const std::vector<const Selector*>& list, auto test) {
            return std::find_if(list.begin(), list.end(), [&](const Selector* each) { return test(*each); });
        };
        std::vector<const Selector*> sources;
        for (const auto& source : *rule.sources) sources.push_back(&source);
        const auto is_everything = [](const Selector& selector) { return selector.kind == Selector::Kind::Everything; };
        const auto danger = has(sources, [](const Selector& selector) { return selector.is(Autogroup::DangerAll); });
        const auto everybody = has(sources, is_everything);
        const bool everywhere = has(rule.destinations, is_everything) != rule.destinations.end() && opens_all(rule);
        if (danger != sources.end()) {
            said_wide_.insert(rule.offset);
            report_.add(Severity::Warning, "danger-all", (*danger)->offset,
                        "autogroup:danger-all lets in any address at all, also from outside of the tailnet");
        } else if (everybody != sources.end() && everywhere) {
            said_wide_.insert(rule.offset);
            report_.add(Severity::Warning, "too-wide", rule.offset,
                        "this rule is wider than autogroup:member to *: it lets everything reach everything, hosts "
                        "behind subnet routers and tagged devices included");
        } else if (everybody != sources.end()) {
            report_.add(Severity::Note, "wide-source", (*everybody)->offset,
                        "the source * includes tagged devices and every host behind a subnet router; autogroup:member "
                        "is the people's own devices");
        }
        if (rule.grant != nullptr) look_at_grant(*rule.grant);
    }

    static bool opens_all(const PolicyRule& rule) {
        if (rule.grant != nullptr) {
            return std::any_of(rule.grant->ip.begin(), rule.grant->ip.end(),
                               [](const GrantPorts& item) { return !item.protocol && item.ports.is_all(); });
        }
        return !rule.acl->protocol &&
               std::any_of(rule.acl->destinations.begin(), rule.acl->destinations.end(),
                           [](const AclDestination& destination) {
                               return destination.selector.kind == Selector::Kind::Everything &&
                                      std::any_of(destination.ports.begin(), destination.ports.end(),
                                                  [](PortRange ports) { return ports.is_all(); });
                           });
    }

    void look_at_grant(const Grant& grant) {
        constexpr std::uint16_t kProtocolsOftenMeant[] = {47, 50, 51};
        for (const auto& item : grant.ip) {
            if (item.protocol || item.ports.first != item.ports.last) continue;
            const auto* meant =
                std::find(std::begin(kProtocolsOftenMeant), std::end(kProtocolsOftenMeant), item.ports.first);
            if (meant != std::end(kProtocolsOftenMeant))
                report_.add(Severity::Note, "port-or-protocol", grant.offset,
                            fmt::format("\"{0}\" in ip is port {0}; the protocol {1} is written \"{1}:*\"", *meant,
                                        protocol_text(*meant)));
        }
        if (!grant.via.empty() && !grant.app.empty())
            report_.add(Severity::Warning, "via-without-app", grant.offset,
                        "a grant with via gives no capabilities: app has no effect beside it");
    }

    /// Rules that let nobody in or lead nowhere.
    void find_dead(const CompiledPolicy& policy, When when) {
        std::map<std::uint32_t, std::vector<const Rule*>> compiled;
        for (const auto& rule : policy.data().list.rules) compiled[rule.offset].push_back(&rule);
        const auto& directory = policy.data().directory;
        families_.clear();
        for (const auto& rule : rules_) {
            const auto why = reason_dead(rule, compiled[rule.offset], directory, when);
            if (why.empty() || dead_.count(rule.offset) != 0) continue;
            if (when == When::Ever) dead_.insert(rule.offset);
            report_.add(Severity::Warning, when == When::Ever ? "never-matches" : "matches-nothing-now", rule.offset,
                        fmt::format("this rule {} {}: {}", when == When::Ever ? "can never match" : "matches nothing",
                                    when == When::Ever ? "anything" : "now", why));
        }
    }

    /// What is wrong where a rule leads to services alone.
    static std::string reason_of_services(const PolicyRule& rule, const std::vector<const Rule*>& compiled,
                                          const Directory& directory) {
        std::vector<Selector> services;
        bool is_there = false;
        for (const auto* destination : rule.destinations) {
            if (destination->kind != Selector::Kind::Service) return {};
            services.push_back(*destination);
            is_there = is_there || directory.service_named(destination->name);
        }
        if (!is_there) return fmt::format("there is no service {}", names_of(services));
        if (compiled.empty() && rule.postures->empty())
            return fmt::format("{} has none of these ports", names_of(services));
        return {};
    }

    std::string reason_dead(const PolicyRule& rule, const std::vector<const Rule*>& compiled,
                            const Directory& directory, When when) const {
        if (rule.sources->empty()) return "src is empty";
        if (rule.destinations.empty()) return "dst is empty";
        BitSet sources{directory.size()};
        bool by_address = false;
        for (const auto& source : *rule.sources) {
            sources |= directory.nodes_matching(source);
            by_address = by_address || source.kind == Selector::Kind::Prefix || source.kind == Selector::Kind::IpSet;
        }
        if (sources.empty() && !by_address) return fmt::format("no device is in src ({})", names_of(*rule.sources));
        if (auto why = reason_of_services(rule, compiled, directory); !why.empty()) return why;
        if (compiled.empty())
            return rule.postures->empty() ? "its sources and destinations stand for no device"
                                          : "no device of src fulfils a posture that it asks for";
        bool families = false;
        bool receivers = false;
        for (const auto* part : compiled) {
            receivers = receivers || !part->receivers.empty();
            families = families || shares_family(*part, directory);
        }
        if (!families) return "src and dst have no addresses of the same family (IPv4, IPv6)";
        if (leads_nowhere(compiled))
            return "no device takes packets to loopback, link-local and multicast addresses from the tailnet";
        if (rule.grant != nullptr && !rule.grant->via.empty() && leads_to_devices(compiled))
            return fmt::format("with via it leads to what routers serve, and {} stands for devices",
                               names_of(rule.grant->destinations));
        // On the imagined tailnet somebody routes everything; only the real one can lack a router.
        if (receivers || when == When::Ever) return {};
        if (rule.grant != nullptr && !rule.grant->via.empty())
            return fmt::format("no device with {} has an approved route to a destination", join(rule.grant->via, ", "));
        std::vector<Selector> destinations;
        for (const auto* destination : rule.destinations) destinations.push_back(*destination);
        return fmt::format("no device has or routes a destination ({})", names_of(destinations));
    }

    template <typename Test>
    static bool are_all(const std::vector<const Rule*>& compiled, Test test) {
        return !compiled.empty() && std::all_of(compiled.begin(), compiled.end(), [&](const Rule* part) {
            return !part->self && part->kind == Rule::Kind::Ports && !part->destinations.empty() &&
                   std::all_of(part->destinations.begin(), part->destinations.end(), test);
        });
    }
    static bool leads_to_devices(const std::vector<const Rule*>& compiled) {
        return are_all(compiled, [](const RuleDestination& destination) {
            return destination.kind == RuleDestination::Kind::Nodes;
        });
    }
    /// The packet filters of all clients drop these, whatever the policy says; one link-local address is spared.
    static bool leads_nowhere(const std::vector<const Rule*>& compiled) {
        static const AddressSet kNever = [] {
            AddressSet set;
            for (const char* text :
                 {"127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8"})
                set.add(IpRange::of(*IpPrefix::parse(text)));
            set.remove(IpRange::of(*IpPrefix::parse("169.254.169.254/32")));
            return set;
        }();
        return are_all(compiled, [](const RuleDestination& destination) {
            return destination.kind == RuleDestination::Kind::Ranges && !destination.ranges.empty() &&
                   std::all_of(destination.ranges.begin(), destination.ranges.end(),
                               [](const auto& entry) { return kNever.contains(entry.first); });
        });
    }

    static std::string names_of(const std::vector<Selector>& selectors) {
        std::vector<std::string> names;
        for (const auto& selector : selectors) names.push_back(selector.text);
        return some_of(names, 3);
    }

    bool shares_family(const Rule& rule, const Directory& directory) const {
        if (rule.self) return true;
        const auto known = families_.find(rule.sources);
        const auto sources = known != families_.end()
                                 ? known->second
                                 : families_.emplace(rule.sources, families_of(*rule.sources, directory)).first->second;
        return std::any_of(rule.destinations.begin(), rule.destinations.end(), [&](const RuleDestination& destination) {
            const auto there = families_of(destination, directory);
            return (sources.v4 && there.v4) || (sources.v6 && there.v6);
        });
    }

    static bool has_via(const PolicyRule& rule) { return rule.grant != nullptr && !rule.grant->via.empty(); }
    static std::set<std::string> via_of(const PolicyRule& rule) {
        return rule.grant == nullptr ? std::set<std::string>{}
                                     : std::set<std::string>{rule.grant->via.begin(), rule.grant->via.end()};
    }

    /// Rules that another rule contains. Of two equal ones the later is named.
    void find_shadowed(const Containment& containment) {
        constexpr std::size_t kMostWork = 1'000'000'000; // some seconds
        std::vector<Candidate> candidates;
        for (const auto& rule : rules_) {
            if (dead_.count(rule.offset) != 0) continue;
            auto parts = containment.parts_at(rule.offset);
            const auto outline = containment.outline_of(parts);
            const auto work = containment.work_of(parts);
            candidates.push_back({&rule, std::move(parts), outline, work});
        }
        std::size_t work = 0;
        for (std::size_t i = 0; i < candidates.size(); ++i) {
            if (candidates[i].parts.empty()) continue;
            if (work > kMostWork) {
                report_.add(Severity::Note, "not-compared", candidates[i].rule->offset,
                            fmt::format("{} of {} rules, from this one on, were not looked at for what another rule "
                                        "allows already: that would take too long",
                                        candidates.size() - i, candidates.size()));
                return;
            }
            work += candidates.size();
            for (std::size_t j = 0; j < candidates.size(); ++j) {
                if (i == j || !candidates[i].outline.may_be_in(candidates[j].outline)) continue;
                work += candidates[i].work + candidates[j].work;
                if (say_if_shadowed(candidates[i], candidates[j], i < j, containment)) break;
            }
        }
    }

    struct Candidate {
        const PolicyRule* rule;
        Containment::Parts parts;
        Containment::Outline outline;
        std::size_t work;
    };

    bool say_if_shadowed(const Candidate& inner, const Candidate& outer, bool earlier, const Containment& containment) {
        if (!postures_allow(*inner.rule, *outer.rule)) return false;
        if (!containment.contains(outer.parts, inner.parts)) return false;
        const bool same = containment.contains(inner.parts, outer.parts);
        const bool also_back = same && postures_allow(*outer.rule, *inner.rule);
        // Which way packets go is theirs to say together: only one that says just the same adds nothing.
        if (has_via(*inner.rule) && (via_of(*inner.rule) != via_of(*outer.rule) || !also_back)) return false;
        if (earlier && also_back) return false;
        report_.add(Severity::Warning, same ? "repeated" : "shadowed", inner.rule->offset,
                    fmt::format("this rule adds nothing: {} {}", document_.position_of(outer.rule->offset).text(),
                                same ? "says the same" : "allows all of it"));
        redundant_.insert(inner.rule->offset);
        return true;
    }

    /// A rule as boxes of packets; `whole`: there is nothing else in it.
    struct Boxes {
        std::vector<PacketBox> boxes;
        bool whole = true;
    };
    static Boxes boxes_at(const Containment& containment, const CompiledPolicy& policy, std::uint32_t offset) {
        Boxes out;
        for (const auto* part : containment.parts_at(offset)) {
            auto boxes = boxes_of(*part, policy.data().directory);
            out.whole = out.whole && boxes;
            if (boxes) std::move(boxes->begin(), boxes->end(), std::back_inserter(out.boxes));
        }
        return out;
    }

    /// Rules that several others contain together. What was found to add nothing counts no more: all that is named can
    /// be deleted, and everybody may do what he did.
    void find_shadowed_together(const CompiledPolicy& policy, const Containment& containment) {
        constexpr std::size_t kMostRules = 500, kMostBoxes = 2000; // each is compared with each
        const auto give_up = [&](std::size_t count, const char* what, std::size_t most) {
            report_.add(Severity::Note, "not-compared", 0,
                        fmt::format("rules that several others allow together were not looked for: there are {} {}, "
                                    "and {} can be compared; what one other rule allows was looked for",
                                    count, what, most));
        };
        if (rules_.size() > kMostRules) return give_up(rules_.size(), "rules", kMostRules);
        std::vector<Boxes> boxes;
        std::size_t count = 0;
        for (const auto& rule : rules_)
            count += boxes.emplace_back(boxes_at(containment, policy, rule.offset)).boxes.size();
        if (count > kMostBoxes) return give_up(count, "pairs of sources and destinations", kMostBoxes);
        for (std::size_t i = 0; i < rules_.size(); ++i) {
            if (!boxes[i].whole || boxes[i].boxes.empty() || !counts(rules_[i])) continue;
            std::vector<std::size_t> others;
            for (std::size_t j = 0; j < rules_.size(); ++j)
                if (i != j && counts(rules_[j]) && postures_allow(rules_[i], rules_[j])) others.push_back(j);
            auto needed = needed_to_cover(boxes[i].boxes, boxes, others);
            if (needed.empty()) continue;
            redundant_.insert(rules_[i].offset);
            std::vector<std::string> places;
            for (const auto j : needed) places.push_back(document_.position_of(rules_[j].offset).text());
            report_.add(Severity::Warning, "shadowed", rules_[i].offset,
                        places.size() == 1
                            ? fmt::format("this rule adds nothing: {} allows all of it", places.front())
                            : fmt::format("this rule adds nothing: together {} allow all of it", some_of(places)));
        }
    }

    bool counts(const PolicyRule& rule) const {
        return dead_.count(rule.offset) == 0 && redundant_.count(rule.offset) == 0;
    }

    /// As few of the others as cover the boxes; none when all of them do not.
    static std::vector<std::size_t> needed_to_cover(const std::vector<PacketBox>& wanted,
                                                    const std::vector<Boxes>& boxes,
                                                    const std::vector<std::size_t>& others) {
        std::vector<std::size_t> used;
        auto left = wanted;
        for (const auto j : others) {
            auto rest = without(left, boxes[j].boxes);
            if (!rest.touched) continue;
            used.push_back(j);
            left = std::move(rest.boxes);
            if (left.empty()) break;
        }
        if (!left.empty()) return {};
        for (std::size_t k = used.size(); k-- > 0;) {
            left = wanted;
            for (const auto j : used)
                if (j != used[k]) left = without(left, boxes[j].boxes).boxes;
            if (left.empty()) used.erase(used.begin() + static_cast<std::ptrdiff_t>(k));
        }
        return used;
    }

    /// "autogroup:member" to "*", by which all rules are measured.
    static constexpr std::uint32_t kYardstick = UINT32_MAX;
    static AclRule everything_for_members() {
        AclRule rule;
        rule.offset = kYardstick;
        auto& member = rule.sources.emplace_back();
        member.kind = Selector::Kind::AutogroupKind;
        member.autogroup = Autogroup::Member;
        member.text = member.name = "autogroup:member";
        rule.destinations.push_back({Selector{}, {PortRange::all()}});
        return rule;
    }

    /// However it is written: 0.0.0.0/0 and ::/0, all ports but 0, members and tags.
    void find_too_wide(const CompiledPolicy& policy, const Containment& containment) {
        const auto yardstick = boxes_at(containment, policy, kYardstick).boxes;
        for (const auto& rule : rules_) {
            if (said_wide_.count(rule.offset) != 0) continue;
            const auto boxes = boxes_at(containment, policy, rule.offset).boxes;
            if (auto left = without(yardstick, boxes); left.too_many || !left.boxes.empty()) continue;
            if (without(boxes, yardstick).boxes.empty())
                report_.add(Severity::Note, "too-wide", rule.offset, "this rule lets every member reach everything");
            else
                report_.add(Severity::Warning, "too-wide", rule.offset,
                            "this rule is wider than autogroup:member to *: it lets every member reach everything, and "
                            "others too");
        }
    }

    /// Whether whoever fulfils the postures of the inner rule fulfils those of the outer one.
    bool postures_allow(const PolicyRule& inner, const PolicyRule& outer) const {
        const auto& defaults = document_.default_source_postures;
        const auto& wanted = outer.postures->empty() ? defaults : *outer.postures;
        const auto& given = inner.postures->empty() ? defaults : *inner.postures;
        if (wanted.empty()) return true;
        return !given.empty() && std::all_of(given.begin(), given.end(), [&](const std::string& posture) {
            return std::find(wanted.begin(), wanted.end(), posture) != wanted.end();
        });
    }

    const Document& document_;
    LintReport& report_;
    std::vector<PolicyRule> rules_;
    std::set<std::uint32_t> dead_, redundant_, said_wide_; ///< by their offsets
    mutable std::unordered_map<const SourceSet*, Families> families_;
};

} // namespace

void lint_rules(const Document& document, const Tailnet* tailnet, LintReport& report) {
    RuleLinter{document, report}.run(tailnet);
}

} // namespace tailrace
