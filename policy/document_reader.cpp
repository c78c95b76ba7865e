// policy/document_reader.cpp - the order of the sections, and the tools that read them.
#include "policy/document_reader.hpp"

#include "base/file.hpp"
#include "base/text.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <set>

namespace tailrace {

std::string PolicyProblem::text() const {
    return is_syntax ? fmt::format("hujson: {}: {}", position.text(), message)
                     : fmt::format("{}: {}", position.text(), message);
}

namespace {

constexpr const char* kCureForSize =
    "put what repeats into groups, hosts and ipsets, and join rules that differ on one "
    "side only";

std::shared_ptr<const std::vector<std::uint32_t>> line_begins_in(const std::string& text) {
    std::vector<std::uint32_t> begins{0};
    for (auto at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 1))
        begins.push_back(static_cast<std::uint32_t>(at + 1));
    return std::make_shared<const std::vector<std::uint32_t>>(std::move(begins));
}

} // namespace

hujson::Position Document::position_of(std::uint32_t offset) const {
    if (!line_begins) return hujson::position_of(*text, offset);
    const auto at = std::min(offset, static_cast<std::uint32_t>(text->size()));
    const auto behind = std::upper_bound(line_begins->begin(), line_begins->end(), at);
    return {static_cast<std::size_t>(behind - line_begins->begin()), std::size_t{1} + at - *std::prev(behind)};
}

Result<std::string> read_policy_file(const std::string& path) {
    auto text = read_file(path, kMostPolicyBytes);
    if (!text && text.error().code() == 0) // only its size is an error without a number
        return Error::make("{}: a policy has at most {} bytes: {}", path, kMostPolicyBytes, kCureForSize);
    return text;
}

Result<Document> Document::parse(std::string_view text, PolicyProblem* problem, PolicyIs is) {
    if (text.size() > kMostPolicyBytes) {
        const PolicyProblem too_large{
            fmt::format("the policy has {} bytes, and {} is the most: {}", text.size(), kMostPolicyBytes, kCureForSize),
            {1, 1},
            false};
        if (problem != nullptr) *problem = too_large;
        return too_large.error();
    }
    Document empty;
    if (trim(text).empty()) {
        empty.text = std::make_shared<const std::string>(text);
        return empty;
    }
    hujson::SyntaxError found;
    auto tree = hujson::Tree::parse(std::string{text}, &found);
    if (!tree) {
        if (problem != nullptr) *problem = {found.message, found.position, true};
        return tree.error();
    }
    DocumentReader reader{*tree, is};
    if (!reader.read()) {
        if (problem != nullptr) *problem = reader.problem();
        return reader.problem().error();
    }
    auto document = reader.take_document();
    document.text = std::make_shared<const std::string>(tree->text());
    document.line_begins = line_begins_in(*document.text);
    return document;
}

bool DocumentReader::read() {
    // Names first, so that rules may stand before the sections that they refer to.
    const Value* sections[32] = {};
    enum Section {
        Acls,
        Grants,
        Groups,
        Hosts,
        IpSets,
        TagOwners,
        AutoApprovers,
        Ssh,
        NodeAttrs,
        Postures,
        DefaultPosture,
        AttrConfig,
        Tests,
        SshTests,
        DerpMap
    };
    const auto keep = [&](Section section) {
        return [&sections, section](const Value& value) {
            sections[section] = &value;
            return true;
        };
    };
    const bool structure = read_object(
        tree_.root(), "the policy",
        {{"acls", keep(Acls)},
         {"grants", keep(Grants)},
         {"groups", keep(Groups)},
         {"hosts", keep(Hosts)},
         {"ipsets", keep(IpSets)},
         {"tagOwners", keep(TagOwners)},
         {"autoApprovers", keep(AutoApprovers)},
         {"ssh", keep(Ssh)},
         {"nodeAttrs", keep(NodeAttrs)},
         {"postures", keep(Postures)},
         {"defaultSrcPosture", keep(DefaultPosture)},
         {"attrConfig", keep(AttrConfig)},
         {"tests", keep(Tests)},
         {"sshTests", keep(SshTests)},
         {"derpMap", keep(DerpMap)},
         {"disableIPv4", [&](const Value& value) { return read_bool(value, "disableIPv4", document_.disable_ipv4); }},
         {"randomizeClientPort",
          [&](const Value& value) { return read_bool(value, "randomizeClientPort", document_.randomize_client_port); }},
         {"OneCGNATRoute", [&](const Value& value) { return read_cgnat_route(value); }}});
    if (!structure) return false;

    const auto read_section = [&](Section section, auto method) {
        return sections[section] == nullptr || (this->*method)(*sections[section]);
    };
    const auto read_list = [&](Section section, const char* name, auto method) {
        return sections[section] == nullptr ||
               each_element(*sections[section], name, [&](const Value& element) { return (this->*method)(element); });
    };

    if (!read_section(Groups, &DocumentReader::read_groups)) return false;
    if (!read_section(TagOwners, &DocumentReader::read_tag_names)) return false;
    if (!read_section(Hosts, &DocumentReader::read_hosts)) return false;
    if (!read_section(TagOwners, &DocumentReader::read_tag_owners)) return false;
    if (!read_section(IpSets, &DocumentReader::read_ipsets)) return false;
    if (!read_section(AttrConfig, &DocumentReader::read_attribute_config)) return false;
    if (!read_section(Postures, &DocumentReader::read_postures)) return false;
    if (sections[DefaultPosture] != nullptr &&
        !read_posture_names(*sections[DefaultPosture], "defaultSrcPosture", document_.default_source_postures)) {
        return false;
    }
    if (!read_section(DerpMap, &DocumentReader::read_derp_map)) return false;

    if (sections[Acls] != nullptr) document_.acls.emplace();
    if (sections[Grants] != nullptr) document_.grants.emplace();
    document_.has_ssh = sections[Ssh] != nullptr;
    return read_list(Acls, "acls", &DocumentReader::read_acl) &&
           read_list(Grants, "grants", &DocumentReader::read_grant) &&
           read_list(Ssh, "ssh", &DocumentReader::read_ssh_rule) &&
           read_list(NodeAttrs, "nodeAttrs", &DocumentReader::read_node_attribute) &&
           read_section(AutoApprovers, &DocumentReader::read_auto_approvers) &&
           read_list(Tests, "tests", &DocumentReader::read_test) &&
           read_list(SshTests, "sshTests", &DocumentReader::read_ssh_test) && check_member_spelling();
}

bool DocumentReader::fail_at(std::uint32_t offset, std::string message) {
    if (!failed_) problem_ = {std::move(message), hujson::position_of(tree_.text(), offset), false};
    failed_ = true;
    return false;
}

bool DocumentReader::expect(const Value& value, hujson::Kind kind, std::string_view what) {
    if (value.kind == kind) return true;
    return fail(value, fmt::format("{}: want {}, not {}", what, name_of(kind), name_of(value.kind)));
}

bool DocumentReader::read_object(const Value& object, std::string_view what, std::initializer_list<Field> fields) {
    if (!expect(object, hujson::Kind::Object, what)) return false;
    std::set<const char*> seen;
    for (const auto& member : object.members) {
        const Field* found = nullptr;
        for (const auto& field : fields) {
            if (equals_ignoring_case(field.name, member.name.text)) found = &field;
        }
        if (found == nullptr) return fail(member.name, fmt::format("unknown field: {}", quoted(member.name.text)));
        if (!seen.insert(found->name).second)
            return fail(member.name, fmt::format("duplicate field: {}", quoted(member.name.text)));
        if (member.value.kind != hujson::Kind::Null && !found->read(member.value)) return false;
    }
    return true;
}

bool DocumentReader::refuse_both(const Value& object, std::string_view what, std::initializer_list<Alias> aliases) {
    for (const auto& [name, old_name] : aliases) {
        const Value* seen = nullptr;
        const Value* old = nullptr;
        for (const auto& member : object.members) {
            if (equals_ignoring_case(name, member.name.text)) seen = &member.name;
            if (equals_ignoring_case(old_name, member.name.text)) old = &member.name;
        }
        if (seen != nullptr && old != nullptr)
            return fail(*old, fmt::format("{}: {} is the old name of {}: keep one of them, with everything in it", what,
                                          quoted(old->text), quoted(seen->text)));
    }
    return true;
}

bool DocumentReader::read_string(const Value& value, std::string_view what, std::string& out) {
    if (!expect(value, hujson::Kind::String, what)) return false;
    out = value.text;
    return true;
}

bool DocumentReader::read_bool(const Value& value, std::string_view what, bool& out) {
    if (!expect(value, hujson::Kind::Bool, what)) return false;
    out = value.truth;
    return true;
}

bool DocumentReader::read_strings(const Value& value, std::string_view what, std::vector<std::string>& out) {
    return each_element(value, what, [&](const Value& element) {
        if (!expect(element, hujson::Kind::String, what)) return false;
        out.emplace_back(trim(element.text));
        return true;
    });
}

bool DocumentReader::each_element(const Value& array, std::string_view what,
                                  const std::function<bool(const Value&)>& read) {
    if (!expect(array, hujson::Kind::Array, what)) return false;
    for (const auto& element : array.elements) {
        if (!read(element)) return false;
    }
    return true;
}

bool DocumentReader::each_member(const Value& object, std::string_view what,
                                 const std::function<bool(const std::string&, const Value&, const Value&)>& read) {
    if (!expect(object, hujson::Kind::Object, what)) return false;
    std::set<std::string_view> seen;
    for (const auto& member : object.members) {
        if (!seen.insert(member.name.text).second)
            return fail(member.name, fmt::format("{}: duplicate name {}", what, quoted(member.name.text)));
        if (!read(member.name.text, member.name, member.value)) return false;
    }
    return true;
}

bool DocumentReader::read_selectors(const Value& array, std::string_view what, Position position,
                                    std::vector<Selector>& out) {
    out.reserve(array.elements.size());
    return each_element(array, what, [&](const Value& element) {
        if (!expect(element, hujson::Kind::String, what)) return false;
        return read_selector(element, trim(element.text), position, out.emplace_back());
    });
}

bool DocumentReader::read_selector(const Value& value, std::string_view text, Position position, Selector& out) {
    auto selector = parse_selector(text);
    auto allowed = selector ? check_position(*selector, position) : Result<void>{selector.error()};
    if (!allowed) {
        const auto& message = allowed.error().message();
        // The two sides of a rule put the place before "not found" and "invalid address"; what is not allowed there at
        // all says so itself.
        if (selector) return fail(value, message);
        if (position == Position::Source) return fail(value, "src=" + message);
        if (position == Position::Destination) return fail(value, fmt::format("dst={}: {}", quoted(text), message));
        return fail(value, message);
    }
    out = std::move(*selector);
    out.offset = value.begin;
    return true;
}

Result<Selector> DocumentReader::parse_selector(std::string_view text) const {
    Selector selector;
    selector.text = std::string{text};
    selector.name = selector.text;
    using Kind = Selector::Kind;
    if (text == "*") return selector;
    if (auto prefix = parse_address_or_prefix(text)) {
        selector.kind = Kind::Prefix;
        selector.prefix = *prefix;
        return selector;
    }
    if (text.starts_with("user:*@")) {
        selector.kind = Kind::UserDomain;
        selector.name = std::string{text.substr(7)};
        return selector;
    }
    if (text.starts_with("group:")) {
        selector.kind = Kind::Group;
        if (document_.groups.count(selector.text) == 0) return Error::make("group not found: {}", quoted(text));
        return selector;
    }
    if (text.starts_with("tag:")) {
        selector.kind = Kind::Tag;
        if (document_.tag_owners.count(selector.text) == 0) return Error::make("tag not found: {}", quoted(text));
        return selector;
    }
    if (text.starts_with("autogroup:")) {
        selector.kind = Kind::AutogroupKind;
        const auto autogroup = autogroup_named(text.substr(10));
        if (!autogroup) return Error::make("autogroup not found: {}", quoted(text));
        selector.autogroup = *autogroup;
        return selector;
    }
    if (text.starts_with("ipset:")) {
        selector.kind = Kind::IpSet;
        if (document_.ipsets.count(selector.text) == 0) return Error::make("ipset not found: {}", quoted(text));
        return selector;
    }
    if (text.starts_with("svc:")) {
        selector.kind = Kind::Service;
        return selector;
    }
    if (text.find('@') != std::string_view::npos) {
        selector.kind = Kind::User;
        return selector;
    }
    if (const auto host = document_.hosts.find(selector.text); host != document_.hosts.end()) {
        selector.kind = Kind::Prefix;
        selector.prefix = host->second;
        return selector;
    }
    return Error::make("{}: invalid address{}", quoted(text), address_cure(text));
}

Result<void> DocumentReader::check_position(const Selector& selector, Position position) const {
    using Kind = Selector::Kind;
    const auto refused = [&](std::string_view where) {
        return Error::make("{} not valid {}", quoted(selector.text), where);
    };
    const bool is_address =
        selector.kind == Kind::Prefix || selector.kind == Kind::IpSet || selector.kind == Kind::Service;
    switch (position) {
    case Position::Source:
        if (selector.is(Autogroup::Self) || selector.is(Autogroup::Internet) || selector.is(Autogroup::Nonroot) ||
            selector.kind == Kind::Service)
            return refused("on the src side of a rule");
        return {};
    case Position::Destination:
        if (selector.is(Autogroup::DangerAll)) return Error::make("cannot use autogroup:danger-all as a dst");
        if (selector.is(Autogroup::Shared) || selector.is(Autogroup::Nonroot))
            return refused("on the dst side of a rule");
        return {};
    case Position::SshSource:
        if (selector.kind == Kind::Everything || is_address || selector.is(Autogroup::Self) ||
            selector.is(Autogroup::Internet) || selector.is(Autogroup::DangerAll) || selector.is(Autogroup::Nonroot) ||
            selector.is(Autogroup::Shared))
            return Error::make("invalid src {}", quoted(selector.text));
        return {};
    case Position::SshDestination:
        if (selector.kind == Kind::Everything || is_address || selector.kind == Kind::Group ||
            selector.is(Autogroup::Internet) || selector.is(Autogroup::DangerAll) || selector.is(Autogroup::Nonroot) ||
            selector.is(Autogroup::Shared))
            return Error::make("invalid dst {}", quoted(selector.text));
        return {};
    case Position::AttributeTarget:
        if (selector.is(Autogroup::Self) || selector.is(Autogroup::Internet) || selector.is(Autogroup::DangerAll) ||
            selector.is(Autogroup::Nonroot) || selector.is(Autogroup::Shared) || selector.kind == Kind::Service ||
            selector.kind == Kind::IpSet)
            return refused("as a nodeAttrs target");
        return {};
    case Position::Approver:
    case Position::TagOwner:
        if (selector.kind == Kind::Everything || is_address ||
            (selector.kind == Kind::AutogroupKind && !selector.is(Autogroup::Member) && !is_role(selector.autogroup)))
            return refused(position == Position::TagOwner ? "as a tag owner" : "as an approver");
        return {};
    }
    return {};
}

} // namespace tailrace
