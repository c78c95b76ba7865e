// policy/lint_names.cpp - what is said about names.
#include "policy/lint_names.hpp"

#include "base/text.hpp"
#include "policy/address_set.hpp"
#include "policy/tag_owners.hpp"
#include "policy/walk.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_set>

namespace tailrace {
namespace {

using Severity = LintFinding::Severity;

class NameLinter {
public:
    NameLinter(const hujson::Tree& tree, const Document& document, const Tailnet* tailnet, LintReport& report)
        : tree_(tree), document_(document), tailnet_(tailnet), report_(report) {
        collect_words(tree.root());
    }

    void run() {
        groups();
        tags();
        hosts();
        unused("ipsets", "unused-ipset");
        unused("postures", "unused-posture");
        old_spellings();
        auto_approvers();
    }

private:
    /// Every word that stands anywhere as a value: "tag:web:22" counts for "tag:web" too.
    void collect_words(const hujson::Value& value) {
        if (value.kind == hujson::Kind::String) {
            std::string_view word = trim(value.text);
            for (const auto* prefix : {"add ", "remove "}) {
                if (word.starts_with(prefix)) word = trim(word.substr(std::string_view{prefix}.size()));
            }
            if (word.starts_with("host:")) word.remove_prefix(5);
            words_.emplace(word);
            const auto colon = word.rfind(':');
            if (colon != std::string_view::npos) words_.emplace(word.substr(0, colon));
        }
        for (const auto& element : value.elements) collect_words(element);
        for (const auto& member : value.members) collect_words(member.value);
    }

    bool is_used(const std::string& name) const { return words_.count(name) != 0; }

    const hujson::Value* section(std::string_view name) const {
        for (const auto& member : tree_.root().members) {
            if (equals_ignoring_case(member.name.text, name)) return &member.value;
        }
        return nullptr;
    }

    void unused(std::string_view section_name, const char* code) {
        const auto* names = section(section_name);
        if (names == nullptr) return;
        for (const auto& member : names->members) {
            if (!is_used(member.name.text))
                report_.add(Severity::Note, code, member.name.begin,
                            fmt::format("nothing refers to {}", member.name.text));
        }
    }

    void groups() {
        const auto* groups = section("groups");
        if (groups == nullptr) return;
        for (const auto& member : groups->members) {
            const auto& members = document_.groups.at(member.name.text);
            if (members.empty())
                report_.add(Severity::Warning, "empty-group", member.name.begin,
                            fmt::format("{} has no members: a rule for it lets nobody in", member.name.text));
            std::set<std::string> seen;
            for (const auto& element : member.value.elements) {
                const std::string login{trim(element.text)};
                if (!seen.insert(login).second)
                    report_.add(Severity::Note, "repeated-member", element.begin,
                                fmt::format("{} stands twice in {}", login, member.name.text));
                if (tailnet_ != nullptr && !has_user(login))
                    report_.add(Severity::Note, "unknown-user", element.begin,
                                fmt::format("the tailnet has no user {}", login));
            }
        }
        unused("groups", "unused-group");
    }

    bool has_user(const std::string& login) {
        if (logins_.empty()) {
            for (const auto& user : tailnet_->users) logins_.insert(user.login);
        }
        return logins_.count(login) != 0;
    }

    void tags() {
        const auto* tags = section("tagOwners");
        if (tags == nullptr) return;
        const auto owned = owned_by_others();
        for (const auto& member : tags->members) {
            const auto& tag = member.name.text;
            const auto& owners = document_.tag_owners.at(tag);
            if (owners.empty()) {
                report_.add(Severity::Warning, "tag-without-owner", member.name.begin,
                            fmt::format("{} has no owners: only admins can give it to a device", tag));
            } else if (std::all_of(owners.begin(), owners.end(),
                                   [&](const Selector& owner) { return is_nobody(owner); })) {
                report_.add(
                    Severity::Warning, "tag-without-owner", member.name.begin,
                    fmt::format("{} is owned by groups without members: only admins can give it to a device", tag));
            } else if (owned.count(tag) == 0) {
                report_.add(Severity::Warning, "tag-without-owner", member.name.begin,
                            fmt::format("{} is owned by tags that own each other, and by nobody else", tag));
            }
            for (const auto& owner : owners) {
                if (owner.is(Autogroup::Member))
                    report_.add(
                        Severity::Warning, "tag-for-everybody", owner.offset,
                        fmt::format("every member can give {} to a device, and so have whatever it may reach", tag));
            }
        }
        unused("tagOwners", "unused-tag");
    }

    bool is_nobody(const Selector& owner) const {
        if (owner.kind != Selector::Kind::Group) return false;
        const auto found = document_.groups.find(owner.name);
        return found != document_.groups.end() && found->second.empty();
    }

    /// The tags that somebody owns who is no tag, if only by way of other tags. Groups without members count for
    /// nothing; a tag without any owner is said to be one itself, and what it owns is not spoken of again.
    std::set<std::string> owned_by_others() const {
        std::map<std::string, std::vector<std::string>> owned_by; // the tags that a tag owns
        std::vector<std::string> open;
        for (const auto& [tag, owners] : document_.tag_owners) {
            bool is_owned_by_tags = false;
            bool is_owned_by_others = false;
            for (const auto& owner : owners) {
                if (is_nobody(owner)) continue;
                const bool is_tag = owner.kind == Selector::Kind::Tag;
                is_owned_by_tags = is_owned_by_tags || is_tag;
                is_owned_by_others = is_owned_by_others || !is_tag;
                if (is_tag) owned_by[owner.name].push_back(tag);
            }
            if (is_owned_by_others || !is_owned_by_tags) open.push_back(tag);
        }
        return with_owned_tags(std::move(open), owned_by);
    }

    void hosts() {
        const auto* hosts = section("hosts");
        if (hosts == nullptr) return;
        const auto& own = tailnet_ranges();
        for (const auto& member : hosts->members) {
            const auto& prefix = document_.hosts.at(member.name.text);
            const auto range = IpRange::of(prefix);
            const bool inside =
                std::any_of(own.begin(), own.end(), [&](const IpRange& each) { return each.overlaps(range); });
            if (!inside) continue;
            if (!prefix.is_single()) {
                report_.add(Severity::Warning, "host-in-tailnet", member.value.begin,
                            fmt::format("host {} ({}) overlaps the addresses of the tailnet: it stands for whatever "
                                        "devices have them now",
                                        quoted(member.name.text), prefix.text()));
            } else if (tailnet_ != nullptr && !has_address(prefix.address())) {
                report_.add(Severity::Warning, "host-without-device", member.value.begin,
                            fmt::format("host {}: no device has the address {}", quoted(member.name.text),
                                        prefix.address().text()));
            } else {
                report_.add(
                    Severity::Note, "host-in-tailnet", member.value.begin,
                    fmt::format("host {} overlaps the addresses of the tailnet: it stands for {} alone, not for "
                                "the device's other address; a tag stands for both",
                                quoted(member.name.text), prefix.address().text()));
            }
        }
        unused("hosts", "unused-host");
    }

    bool has_address(const IpAddress& ip) {
        if (addresses_.empty()) {
            for (const auto& node : tailnet_->nodes) addresses_.insert(node.addresses.begin(), node.addresses.end());
        }
        return addresses_.count(ip) != 0;
    }

    void old_spellings() {
        for (const auto* name : {"acls", "tests"}) {
            const auto* rules = section(name);
            if (rules == nullptr) continue;
            for (const auto& rule : rules->elements) {
                for (const auto& member : rule.members) {
                    const auto* now = new_name(name, member.name.text);
                    if (now != nullptr)
                        report_.add(Severity::Note, "old-name", member.name.begin,
                                    fmt::format("{} is the old name of {}", member.name.text, now), true);
                }
            }
        }
        for_each_selector(document_, [&](const Selector& selector) {
            if (selector.text == "autogroup:members")
                report_.add(Severity::Note, "old-name", selector.offset,
                            "autogroup:members is the old name of autogroup:member", true);
        });
    }

    static const char* new_name(std::string_view section, std::string_view member) {
        const bool acls = section == "acls";
        if (acls && equals_ignoring_case(member, "users")) return "src";
        if (acls && equals_ignoring_case(member, "ports")) return "dst";
        if (!acls && equals_ignoring_case(member, "user")) return "src";
        if (!acls && equals_ignoring_case(member, "allow")) return "accept";
        return nullptr;
    }

    void auto_approvers() {
        const auto* approvers = section("autoApprovers");
        if (approvers == nullptr) return;
        for (const auto& part : approvers->members) {
            if (!equals_ignoring_case(part.name.text, "routes")) continue;
            for (const auto& route : part.value.members) {
                auto prefix = parse_address_or_prefix(route.name.text);
                if (prefix && prefix->is_default())
                    report_.add(Severity::Warning, "approves-no-exit", route.name.begin,
                                fmt::format("{} approves every subnet route, but no exit node: those are approved by "
                                            "exitNode alone",
                                            route.name.text));
            }
        }
    }

    const hujson::Tree& tree_;
    const Document& document_;
    const Tailnet* tailnet_;
    LintReport& report_;
    std::set<std::string, std::less<>> words_;
    std::unordered_set<std::string> logins_;  ///< of the tailnet, once they are asked for
    std::unordered_set<IpAddress> addresses_; ///< the same
};

} // namespace

void lint_names(const hujson::Tree& tree, const Document& document, const Tailnet* tailnet, LintReport& report) {
    NameLinter{tree, document, tailnet, report}.run();
}

} // namespace tailrace
