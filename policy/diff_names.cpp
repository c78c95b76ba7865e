// policy/diff_names.cpp - compares logins, tags, attributes and approvals.
#include "policy/diff_names.hpp"

#include "base/text.hpp"
#include "policy/stage.hpp"
#include "policy/tag_owners.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace tailrace {
namespace {

/// Who, by what is gained or lost.
using Gains = std::map<std::pair<bool, std::string>, BitSet>;

class NameDiff {
public:
    NameDiff(const Document& before, const Document& after, const Tailnet& tailnet, const std::vector<Party>& parties,
             const PartyNames& names, PolicyDiff& out)
        : before_(before), after_(after), tailnet_(tailnet), parties_(parties), names_(names), out_(out),
          old_policy_(compiled(before)), new_policy_(compiled(after)) {}

    void run() {
        logins();
        tags();
        attributes();
        approvals();
        postures();
        if (before_.derp_map != after_.derp_map) out_.notes.emplace_back("the DERP map changes");
        if (before_.disable_ipv4 != after_.disable_ipv4)
            out_.notes.push_back(
                fmt::format("devices {} IPv4 addresses", after_.disable_ipv4 ? "lose their" : "get back"));
    }

private:
    std::shared_ptr<const CompiledPolicy> compiled(const Document& document) const {
        return CompiledPolicy::compile(std::make_shared<const Document>(without_postures(document)), tailnet_);
    }

    PolicyNodeId id_of(const Party& party) const {
        return new_policy_->data().directory.node(party.members.front()).id;
    }

    void insert(Gains& gains, bool gain, const std::string& access, std::size_t party) const {
        gains.try_emplace({gain, access}, BitSet{parties_.size()}).first->second.insert(party);
    }

    void write(const Gains& gains, const NamedParties& what = {}) {
        for (const auto& [key, who] : gains) {
            auto& change = out_.changes.emplace_back();
            change.gain = key.first;
            change.access = key.second;
            change.name(names_.names_of(who), what);
        }
    }

    /// Whether something is too much to be compared, which is said.
    bool is_too_much(std::size_t work, const char* what) {
        constexpr std::size_t kMostWork = 20'000'000;
        if (work <= kMostWork) return false;
        out_.notes.push_back(fmt::format("not compared, for that would take too long: {}", what));
        return true;
    }
    std::size_t devices() const {
        return static_cast<std::size_t>(
            std::count_if(parties_.begin(), parties_.end(), [](const Party& party) { return party.is_device(); }));
    }

    static const char* verdict_of(const SshRule* rule) { return rule == nullptr ? "" : rule->check ? " (check)" : " "; }

    void logins() {
        if (before_.ssh.empty() && after_.ssh.empty()) return;
        if (is_too_much(devices() * (before_.ssh.size() + after_.ssh.size()), "who may log in by the ssh section"))
            return;
        // Destinations with the same differences are said together.
        std::map<Gains, BitSet> by_gains;
        for (std::size_t to = 0; to < parties_.size(); ++to) {
            if (!parties_[to].is_device()) continue;
            const auto then = old_policy_->ssh_rules_for(id_of(parties_[to]));
            const auto now = new_policy_->ssh_rules_for(id_of(parties_[to]));
            if (ssh_rules_json(then) == ssh_rules_json(now)) continue;
            std::set<std::string> logins{"root"};
            bool anybody = false;
            for (const auto* rules : {&then, &now}) {
                for (const auto& rule : *rules) {
                    for (const auto& [asked, local] : rule.ssh_users) {
                        if (asked == "*")
                            anybody = true;
                        else
                            logins.insert(asked);
                    }
                }
            }
            Gains gains;
            for (std::size_t from = 0; from < parties_.size(); ++from) {
                if (!parties_[from].is_device() || parties_[from].representatives.empty()) continue;
                const auto& source = parties_[from].representatives.front();
                const auto compare = [&](const std::string& asked, const std::string& said) {
                    const std::string old_verdict = verdict_of(match_ssh_rule(then, source, asked));
                    const std::string new_verdict = verdict_of(match_ssh_rule(now, source, asked));
                    if (old_verdict == new_verdict) return;
                    const auto access = "the login " + said;
                    if (!new_verdict.empty()) insert(gains, true, access + std::string{trim_end(new_verdict)}, from);
                    if (!old_verdict.empty()) insert(gains, false, access + std::string{trim_end(old_verdict)}, from);
                };
                for (const auto& login : logins) compare(login, login);
                if (anybody) compare("\x01", "of any name but root"); // a name that no rule lists
            }
            if (!gains.empty()) by_gains.try_emplace(gains, BitSet{parties_.size()}).first->second.insert(to);
        }
        for (const auto& [gains, places] : by_gains) write(gains, names_.names_of(places));
    }

    static std::string_view trim_end(std::string_view text) {
        while (text.ends_with(' ')) text.remove_suffix(1);
        return text;
    }

    void tags() {
        std::set<std::string> all;
        for (const auto* document : {&before_, &after_}) {
            for (const auto& [tag, owners] : document->tag_owners) all.insert(tag);
        }
        const auto concerned = changed_tags(all);
        std::map<std::string, std::pair<std::set<std::size_t>, std::set<std::size_t>>> who; // users then and now
        if (!is_too_much(concerned.size() * tailnet_.users.size(), "who may give devices which tags")) {
            for_each_tag_right(before_, tailnet_.users, [&](std::size_t user, const std::string& tag) {
                if (concerned.count(tag) != 0) who[tag].first.insert(user);
            });
            for_each_tag_right(after_, tailnet_.users, [&](std::size_t user, const std::string& tag) {
                if (concerned.count(tag) != 0) who[tag].second.insert(user);
            });
        }
        std::map<std::pair<bool, std::vector<std::string>>, std::vector<std::string>> by_people;
        for (const auto& tag : all) {
            std::map<bool, std::vector<std::string>> people;
            if (const auto found = who.find(tag); found != who.end()) {
                const auto& [then, now] = found->second;
                for (const auto user : now) {
                    if (then.count(user) == 0) people[true].push_back(tailnet_.users[user].login);
                }
                for (const auto user : then) {
                    if (now.count(user) == 0) people[false].push_back(tailnet_.users[user].login);
                }
            }
            for (auto& [gain, who] : people) by_people[{gain, who}].push_back(tag);
            if (before_.tag_owners.count(tag) == 0) out_.notes.push_back(fmt::format("{} is new", tag));
            if (after_.tag_owners.count(tag) == 0) out_.notes.push_back(fmt::format("{} is gone", tag));
        }
        for (const auto& [key, changed] : by_people) {
            auto& change = out_.changes.emplace_back();
            change.gain = key.first;
            change.access = "the right to give devices " + join(changed, ", ");
            change.name({key.second, key.second}, {});
        }
    }

    std::vector<std::string> owners_of(const Document& document, const std::string& tag) const {
        std::vector<std::string> owners;
        const auto found = document.tag_owners.find(tag);
        if (found == document.tag_owners.end()) return owners;
        owners.emplace_back("it is there");
        for (const auto& owner : found->second) {
            owners.push_back(owner.text);
            if (owner.kind != Selector::Kind::Group) continue;
            const auto& members = document.groups.at(owner.name);
            owners.insert(owners.end(), members.begin(), members.end());
        }
        return owners;
    }

    /// Tags whose owners differ, and the tags that those own.
    std::set<std::string> changed_tags(const std::set<std::string>& all) const {
        std::map<std::string, std::vector<std::string>> owned_by;
        for (const auto* document : {&before_, &after_}) {
            for (const auto& [tag, owners] : document->tag_owners) {
                for (const auto& owner : owners) {
                    if (owner.kind == Selector::Kind::Tag) owned_by[owner.name].push_back(tag);
                }
            }
        }
        std::vector<std::string> open;
        for (const auto& tag : all) {
            if (owners_of(before_, tag) != owners_of(after_, tag)) open.push_back(tag);
        }
        return with_owned_tags(std::move(open), owned_by);
    }

    static std::set<std::string> words_of(const CapabilityValues& values) {
        std::set<std::string> words;
        for (const auto& [name, list] : values) words.insert(name + (list.empty() ? "" : " " + join(list, ",")));
        return words;
    }

    void attributes() {
        Gains gains;
        if (is_too_much(devices() * (before_.node_attributes.size() + after_.node_attributes.size()),
                        "which attributes devices have"))
            return;
        for (std::size_t i = 0; i < parties_.size(); ++i) {
            if (!parties_[i].is_device()) continue;
            const auto then = words_of(old_policy_->self_capabilities(id_of(parties_[i])));
            const auto now = words_of(new_policy_->self_capabilities(id_of(parties_[i])));
            for (const auto& word : now) {
                if (then.count(word) == 0) insert(gains, true, "the attribute " + word, i);
            }
            for (const auto& word : then) {
                if (now.count(word) == 0) insert(gains, false, "the attribute " + word, i);
            }
        }
        write(gains);
    }

    void approvals() {
        std::set<IpPrefix> routes{*IpPrefix::parse("0.0.0.0/0")};
        for (const auto* document : {&before_, &after_}) {
            for (const auto& [prefix, who] : document->auto_approvers.routes) {
                if (!prefix.is_default()) routes.insert(prefix);
            }
        }
        Gains gains;
        const auto entries = [](const Document& document) { return document.auto_approvers.routes.size() + 1; };
        if (is_too_much(devices() * routes.size() * (entries(before_) + entries(after_)),
                        "which routes are approved by themselves"))
            routes.clear();
        for (const auto& route : routes) {
            const auto access = route.is_default() ? std::string{"approval as exit node by itself"}
                                                   : fmt::format("approval of routes in {} by itself", route.text());
            for (std::size_t i = 0; i < parties_.size(); ++i) {
                if (!parties_[i].is_device()) continue;
                const bool then = old_policy_->approves_route(id_of(parties_[i]), route);
                const bool now = new_policy_->approves_route(id_of(parties_[i]), route);
                if (then != now) insert(gains, now, access, i);
            }
        }
        std::set<std::string> services; // or tags of services
        for (const auto* document : {&before_, &after_}) {
            for (const auto& [service, who] : document->auto_approvers.services) services.insert(service);
        }
        if (is_too_much(devices() * services.size() * services.size(),
                        "which hosts of services are approved by themselves"))
            services.clear();
        for (const auto& service : services) {
            const bool is_tag = service.starts_with("tag:");
            const auto access =
                fmt::format("approval as host of {}{} by itself", is_tag ? "services with " : "", service);
            for (std::size_t i = 0; i < parties_.size(); ++i) {
                if (!parties_[i].is_device()) continue;
                const bool then = old_policy_->approves_service(id_of(parties_[i]), service);
                const bool now = new_policy_->approves_service(id_of(parties_[i]), service);
                if (then != now) insert(gains, now, access, i);
            }
        }
        write(gains);
    }

    static std::string text_of(const std::vector<PostureAssertion>& assertions) {
        std::string text;
        for (const auto& assertion : assertions)
            text += fmt::format("{} {} {} {};", assertion.attribute, static_cast<int>(assertion.op),
                                join(assertion.operands, ","), assertion.is_string);
        return text;
    }

    void postures() {
        for (const auto& [name, assertions] : after_.postures) {
            const auto old = before_.postures.find(name);
            if (old != before_.postures.end() && text_of(old->second) != text_of(assertions))
                out_.notes.push_back(fmt::format("{} asks for something else: every rule with it changes", name));
        }
    }

    const Document& before_;
    const Document& after_;
    const Tailnet& tailnet_;
    const std::vector<Party>& parties_;
    const PartyNames& names_;
    PolicyDiff& out_;
    std::shared_ptr<const CompiledPolicy> old_policy_, new_policy_;
};

} // namespace

void diff_names(const Document& before, const Document& after, const Tailnet& tailnet,
                const std::vector<Party>& parties, const PartyNames& names, PolicyDiff& out) {
    NameDiff{before, after, tailnet, parties, names, out}.run();
}

} // namespace tailrace
