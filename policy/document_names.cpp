// policy/document_names.cpp - groups, hosts, tagOwners, ipsets, postures: the names that rules refer to; and who
// approves routes.
#include "base/text.hpp"
#include "policy/address_set.hpp"
#include "policy/document_reader.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <cctype>
#include <set>

namespace tailrace {

bool DocumentReader::read_groups(const Value& section) {
    std::vector<std::pair<std::string, const Value*>> recursive; // key and the member that is a group
    const bool read = each_member(section, "groups", [&](const std::string& name, const Value& at, const Value& value) {
        if (!name.starts_with("group:") || name.size() == 6)
            return fail(at, fmt::format("groups[{}]: group names start with \"group:\"", quoted(name)));
        auto& members = document_.groups[name];
        if (value.kind == hujson::Kind::Null) return true;
        return each_element(value, fmt::format("groups[{}]", quoted(name)), [&](const Value& element) {
            if (!expect(element, hujson::Kind::String, fmt::format("groups[{}]", quoted(name)))) return false;
            const auto member = trim(element.text);
            if (member.starts_with("group:")) {
                recursive.emplace_back(name, &element);
                return true;
            }
            if (member.find('@') == std::string_view::npos || member.starts_with("tag:") ||
                member.starts_with("autogroup:"))
                return fail(element,
                            fmt::format("groups[{}]: {}: group members must be users", quoted(name), quoted(member)));
            members.emplace_back(member);
            return true;
        });
    });
    if (!read) return false;
    // When several offend, the service names the last one in sorted order.
    const auto last = std::max_element(recursive.begin(), recursive.end(),
                                       [](const auto& a, const auto& b) { return a.first < b.first; });
    if (last == recursive.end()) return true;
    return fail(*last->second, fmt::format("groups[{}]: {}: group members cannot be recursive", quoted(last->first),
                                           quoted(trim(last->second->text))));
}

bool DocumentReader::read_hosts(const Value& section) {
    return each_member(section, "hosts", [&](const std::string& name, const Value& at, const Value& value) {
        if (name.empty() || name.find_first_of("@:/* \t") != std::string::npos)
            return fail(at,
                        fmt::format("hosts[{}]: host names can not contain \"@\", \":\", \"/\", \"*\" or white space: "
                                    "they would be taken for users, tags or addresses",
                                    quoted(name)));
        if (parse_address_or_prefix(name))
            return fail(at, fmt::format("hosts[{}]: a host name can not be an address: rules would mean the address, "
                                        "never this entry",
                                        quoted(name)));
        if (!expect(value, hujson::Kind::String, fmt::format("hosts[{}]", quoted(name)))) return false;
        auto prefix = parse_address_or_prefix(trim(value.text));
        if (!prefix)
            return fail(value, fmt::format("hosts[{}]: {}: invalid address{}", quoted(name), quoted(value.text),
                                           address_cure(trim(value.text))));
        document_.hosts[name] = *prefix;
        return true;
    });
}

bool DocumentReader::read_tag_names(const Value& section) {
    return each_member(section, "tagOwners", [&](const std::string& name, const Value& at, const Value&) {
        if (auto good = check_tag_name(name); !good)
            return fail(at, fmt::format("tagOwners[{}]: {}", quoted(name), good.error()));
        document_.tag_owners[name];
        return true;
    });
}

bool DocumentReader::read_tag_owners(const Value& section) {
    return each_member(section, "tagOwners", [&](const std::string& name, const Value&, const Value& value) {
        if (value.kind == hujson::Kind::Null) return true;
        return read_selectors(value, fmt::format("tagOwners[{}]", quoted(name)), Position::TagOwner,
                              document_.tag_owners[name]);
    });
}

bool DocumentReader::read_ipsets(const Value& section) {
    std::map<std::string, const Value*> items;
    const bool read = each_member(section, "ipsets", [&](const std::string& name, const Value& at, const Value& value) {
        if (!name.starts_with("ipset:") || name.size() == 6)
            return fail(at, fmt::format("ipsets[{}]: names start with \"ipset:\"", quoted(name)));
        if (value.kind != hujson::Kind::Null &&
            !expect(value, hujson::Kind::Array, fmt::format("ipsets[{}]", quoted(name))))
            return false;
        items[name] = &value;
        return true;
    });
    if (!read) return false;

    constexpr std::size_t kMostSteps = 100;
    std::set<std::string> being_read; // from the first to the one that refers to the next: a repetition is a cycle
    std::function<bool(const std::string&, const Value&)> resolve = [&](const std::string& name, const Value& at) {
        if (document_.ipsets.count(name) != 0) return true;
        if (items.count(name) == 0) return fail(at, fmt::format("ipset not found: {}", quoted(name)));
        if (!being_read.insert(name).second) return fail(at, fmt::format("ipsets[{}]: refers to itself", quoted(name)));
        if (being_read.size() > kMostSteps)
            return fail(at, fmt::format("ipsets[{}]: {} ipsets refer to each other one after the other, and {} is the "
                                        "most: write the addresses themselves into one of them",
                                        quoted(name), being_read.size(), kMostSteps));
        AddressSet set;
        for (const auto& element : items[name]->elements) {
            const auto what = fmt::format("ipsets[{}]", quoted(name));
            if (!expect(element, hujson::Kind::String, what)) return false;
            auto target = trim(element.text);
            const bool remove = target.starts_with("remove ");
            if (remove || target.starts_with("add ")) target = trim(target.substr(target.find(' ') + 1));
            std::vector<IpRange> ranges;
            if (target.starts_with("ipset:")) {
                if (!resolve(std::string{target}, element)) return false;
                ranges = document_.ipsets[std::string{target}];
            } else if (target == "autogroup:internet") {
                ranges = internet_ranges();
            } else if (auto range = parse_ip_range(target)) {
                ranges = {*range};
            } else {
                const auto host =
                    document_.hosts.find(std::string{target.starts_with("host:") ? target.substr(5) : target});
                if (host == document_.hosts.end())
                    return fail(element,
                                fmt::format("{}: {}: invalid address{}", what, quoted(target), address_cure(target)));
                ranges = {IpRange::of(host->second)};
            }
            for (const auto& range : ranges) {
                if (remove) {
                    set.remove(range);
                } else {
                    set.add(range);
                }
            }
        }
        being_read.erase(name);
        document_.ipsets[name] = set.ranges();
        return true;
    };
    return std::all_of(items.begin(), items.end(), [&](const auto& item) { return resolve(item.first, *item.second); });
}

Result<IpRange> parse_ip_range(std::string_view text) {
    const auto dash = text.find('-');
    if (dash == std::string_view::npos) {
        auto prefix = parse_address_or_prefix(text);
        if (!prefix) return prefix.error();
        return IpRange::of(*prefix);
    }
    auto first = IpAddress::parse(trim(text.substr(0, dash)));
    if (!first) return first.error();
    auto last = IpAddress::parse(trim(text.substr(dash + 1)));
    if (!last) return last.error();
    if (!first->valid() || first->bits() != last->bits() || *last < *first)
        return Error::make("{}: invalid range", quoted(text));
    return IpRange{*first, *last};
}

bool DocumentReader::read_postures(const Value& section) {
    return each_member(section, "postures", [&](const std::string& name, const Value& at, const Value& value) {
        const auto what = fmt::format("postures[{}]", quoted(name));
        if (!name.starts_with("posture:") || name.size() == 8)
            return fail(at, what + ": names start with \"posture:\"");
        auto& assertions = document_.postures[name];
        if (value.kind == hujson::Kind::Null) return true;
        return each_element(value, what, [&](const Value& element) {
            if (!expect(element, hujson::Kind::String, what)) return false;
            auto assertion = parse_posture_assertion(element.text);
            if (!assertion) return fail(element, fmt::format("{}: {}", what, assertion.error()));
            if (auto fits = check_posture_types(*assertion, document_.attribute_config); !fits)
                return fail(element, fmt::format("{}: {}: {}", what, quoted(element.text), fits.error()));
            assertions.push_back(std::move(*assertion));
            return true;
        });
    });
}

bool DocumentReader::read_posture_names(const Value& array, std::string_view what, std::vector<std::string>& out) {
    return each_element(array, what, [&](const Value& element) {
        if (!expect(element, hujson::Kind::String, what)) return false;
        const std::string name{trim(element.text)};
        if (document_.postures.count(name) == 0)
            return fail(element, fmt::format("{}: posture not found: {}", what, quoted(name)));
        out.push_back(name);
        return true;
    });
}

bool DocumentReader::read_auto_approvers(const Value& section) {
    auto& approvers = document_.auto_approvers;
    const auto read_by_name = [this](const char* what, auto& out, auto parse_name) {
        return [this, what, &out, parse_name](const Value& value) {
            return each_member(value, what, [&](const std::string& name, const Value& at, const Value& who) {
                auto parsed = parse_name(name);
                if (!parsed) return fail(at, fmt::format("{}[{}]: {}", what, quoted(name), parsed.error()));
                auto& entry = out.emplace_back(*parsed, std::vector<Selector>{});
                return who.kind == hujson::Kind::Null || read_selectors(who, what, Position::Approver, entry.second);
            });
        };
    };
    return read_object(
        section, "autoApprovers",
        {{"routes", read_by_name("autoApprovers.routes", approvers.routes, parse_address_or_prefix)},
         {"exitNode",
          [&](const Value& value) {
              return read_selectors(value, "autoApprovers.exitNode", Position::Approver, approvers.exit_node);
          }},
         {"services", read_by_name("autoApprovers.services", approvers.services, [](const std::string& name) {
              if (name.starts_with("svc:") || name.starts_with("tag:")) return Result<std::string>{name};
              return Result<std::string>{Error::make("want a service or a tag")};
          })}});
}

namespace {

/// Takes one word of letters, digits and ":_-." off the front.
std::string_view take_word(std::string_view& rest) {
    std::size_t size = 0;
    while (size < rest.size() && (std::isalnum(static_cast<unsigned char>(rest[size])) != 0 ||
                                  std::string_view{":_-."}.find(rest[size]) != std::string_view::npos))
        ++size;
    const auto word = rest.substr(0, size);
    rest = trim(rest.substr(size));
    return word;
}

bool take_keyword(std::string_view& rest, std::string_view keyword) {
    if (rest.size() < keyword.size() || !equals_ignoring_case(rest.substr(0, keyword.size()), keyword)) return false;
    const auto behind = rest.substr(keyword.size());
    if (std::isalpha(static_cast<unsigned char>(keyword.back())) != 0 && !behind.empty() &&
        std::isalnum(static_cast<unsigned char>(behind.front())) != 0)
        return false;
    rest = trim(behind);
    return true;
}

/// 'string', number, true or false.
Result<void> take_operand(std::string_view& rest, PostureAssertion& assertion) {
    if (!rest.empty() && rest.front() == '\'') {
        const auto end = rest.find('\'', 1);
        if (end == std::string_view::npos) return Error::make("a string that does not end");
        assertion.operands.emplace_back(rest.substr(1, end - 1));
        assertion.is_string = true;
        rest = trim(rest.substr(end + 1));
        return {};
    }
    const auto word = take_word(rest);
    if (word.empty()) return Error::make("want a 'string', a number, true or false");
    assertion.operands.emplace_back(word);
    return {};
}

} // namespace

Result<PostureAssertion> parse_posture_assertion(std::string_view text) {
    using Operator = PostureAssertion::Operator;
    const auto invalid = [&](std::string_view why) { return Error::make("{}: {}", quoted(text), why); };
    std::string_view rest = trim(text);
    PostureAssertion assertion;
    assertion.attribute = std::string{take_word(rest)};
    if (assertion.attribute.find(':') == std::string::npos) return invalid("want an attribute such as node:os");
    if (rest.empty()) {
        assertion.operands = {"true"};
        return assertion;
    }
    if (take_keyword(rest, "IS SET")) {
        assertion.op = Operator::IsSet;
    } else if (take_keyword(rest, "NOT SET")) {
        assertion.op = Operator::NotSet;
    } else {
        struct Spelling {
            std::string_view text;
            Operator op;
        };
        static constexpr Spelling kSpellings[] = {{"==", Operator::Equal},       {"!=", Operator::NotEqual},
                                                  {"<=", Operator::LessOrEqual}, {">=", Operator::GreaterOrEqual},
                                                  {"<", Operator::Less},         {">", Operator::Greater},
                                                  {"NOT IN", Operator::NotIn},   {"IN", Operator::In}};
        const auto found = std::find_if(std::begin(kSpellings), std::end(kSpellings),
                                        [&](const Spelling& spelling) { return take_keyword(rest, spelling.text); });
        if (found == std::end(kSpellings)) return invalid("want an operator");
        assertion.op = found->op;
        const bool list = assertion.op == Operator::In || assertion.op == Operator::NotIn;
        if (list && !take_keyword(rest, "[")) return invalid("want a list in brackets");
        do {
            if (auto taken = take_operand(rest, assertion); !taken) return invalid(taken.error().message());
        } while (list && take_keyword(rest, ","));
        if (list && !take_keyword(rest, "]")) return invalid("want ] after the list");
    }
    if (!rest.empty()) return invalid("something stands after the assertion");
    return assertion;
}

} // namespace tailrace
