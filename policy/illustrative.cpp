// policy/illustrative.cpp - finds the selectors and ports behind everyday words.
#include "policy/illustrative.hpp"

#include "base/text.hpp"
#include "policy/words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

namespace tailrace {
namespace {

using hujson::Draft;
using Kind = hujson::Kind;

struct Meaning {
    std::string_view word;
    std::string_view means; ///< several, separated by spaces
};

constexpr Meaning kServices[] = {
    {"anything", "*"},         {"everything", "*"},      {"all", "*"},
    {"access", "*"},           {"connect", "*"},         {"reach", "*"},
    {"ssh", "tcp:22"},         {"http", "tcp:80"},       {"https", "tcp:443"},
    {"web", "tcp:80 tcp:443"}, {"dns", "udp:53 tcp:53"}, {"rdp", "tcp:3389"},
    {"vnc", "tcp:5900"},       {"smtp", "tcp:25"},       {"postgres", "tcp:5432"},
    {"mysql", "tcp:3306"},     {"redis", "tcp:6379"},    {"postgresql", "tcp:5432"},
    {"mongodb", "tcp:27017"},  {"ping", "icmp:*"},       {"icmp", "icmp:*"},
    {"ntp", "udp:123"},        {"smb", "tcp:445"},       {"nfs", "tcp:2049"},
};
constexpr Meaning kPeople[] = {
    {"everyone", "autogroup:member"},
    {"everybody", "autogroup:member"},
    {"anyone", "autogroup:member"},
    {"anybody", "autogroup:member"},
    {"members", "autogroup:member"},
    {"users", "autogroup:member"},
    {"admins", "autogroup:admin"},
    {"administrators", "autogroup:admin"},
    {"everything", "*"},
    {"all", "*"},
};
constexpr Meaning kPlaces[] = {
    {"the internet", "autogroup:internet"},
    {"internet", "autogroup:internet"},
    {"self", "autogroup:self"},
    {"themselves", "autogroup:self"},
    {"own devices", "autogroup:self"},
    {"their own devices", "autogroup:self"},
    {"everything", "*"},
    {"anything", "*"},
    {"everywhere", "*"},
    {"all", "*"},
};

template <std::size_t N>
std::optional<std::string_view> look_up(const Meaning (&table)[N], std::string_view word) {
    const auto lower = to_lower(word);
    const auto* found =
        std::find_if(std::begin(table), std::end(table), [&](const Meaning& entry) { return entry.word == lower; });
    if (found == std::end(table)) return std::nullopt;
    return found->means;
}

/// One string or a list of them.
std::optional<std::vector<std::string>> words_of(const Draft& value) {
    std::vector<std::string> words;
    if (value.kind == Kind::String) {
        words.emplace_back(trim(value.string_value()));
        return words;
    }
    if (value.kind != Kind::Array) return std::nullopt;
    for (const auto& item : value.values) {
        if (item.kind != Kind::String) return std::nullopt;
        words.emplace_back(trim(item.string_value()));
    }
    return words;
}

Draft list_of(const std::vector<std::string>& words) {
    Draft list;
    list.kind = Kind::Array;
    for (const auto& word : words) list.append(Draft::string(word));
    return list;
}

class Rewriter {
public:
    explicit Rewriter(const Draft& document) {
        for (const auto* section : {"groups", "tagOwners", "hosts", "ipsets"}) {
            const auto at = document.find(section);
            if (!at || document.values[*at].kind != Kind::Object) continue;
            for (const auto& name : document.values[*at].names) known_.insert(name.string_value());
        }
    }

    /// Changes a copy, so that a grant is rewritten whole or not at all.
    std::optional<Draft> rewrite(Draft grant, std::string& because) {
        if (!rename(grant, "who", "src", kPeople) || !rename(grant, "to", "dst", kPlaces) || !rewrite_can(grant))
            return std::nullopt;
        if (const auto at = grant.find("because")) {
            const auto words = words_of(grant.values[*at]);
            if (!words) return unclear("because", "want a sentence");
            because = join(*words, "\n");
            grant.erase(*at);
        }
        return grant;
    }

    const std::string& problem() const { return problem_; }

private:
    std::nullopt_t unclear(std::string_view member, std::string_view why) {
        problem_ = fmt::format("{}: {}", quoted(member), why);
        return std::nullopt;
    }

    template <std::size_t N>
    std::optional<std::string> selector_for(const std::string& word, const Meaning (&table)[N]) const {
        if (word.find_first_of(":@*") != std::string::npos || known_.count(word) != 0) return word;
        if (auto address = parse_address_or_prefix(word); !word.empty() && address) return word;
        for (const auto* prefix : {"group:", "tag:", "ipset:"}) {
            if (known_.count(prefix + word) != 0) return prefix + word;
        }
        if (const auto meaning = look_up(table, word)) return std::string{*meaning};
        return std::nullopt;
    }

    template <std::size_t N>
    bool rename(Draft& grant, const char* from, const char* to, const Meaning (&table)[N]) {
        const auto at = grant.find(from);
        if (!at) return true;
        if (grant.find(to)) {
            unclear(from, fmt::format("the grant has {} as well", quoted(to)));
            return false;
        }
        const auto words = words_of(grant.values[*at]);
        if (!words) {
            unclear(from, "want a name or a list of names");
            return false;
        }
        std::vector<std::string> selectors;
        for (const auto& word : *words) {
            auto selector = selector_for(word, table);
            if (!selector) {
                unclear(from, fmt::format("can't tell whom {} means; write a user, a group, a tag or an autogroup",
                                          quoted(word)));
                return false;
            }
            selectors.push_back(std::move(*selector));
        }
        grant.names[*at].replace(Draft::string(to));
        // A list keeps the comments inside it: only what differs is changed.
        auto& value = grant.values[*at];
        if (value.kind == Kind::Array) {
            for (std::size_t i = 0; i < selectors.size(); ++i) {
                if (selectors[i] != (*words)[i]) value.values[i].replace(Draft::string(selectors[i]));
            }
        } else {
            value.replace(list_of(selectors));
        }
        return true;
    }

    bool rewrite_can(Draft& grant) {
        const auto at = grant.find("can");
        if (!at) return true;
        if (grant.find("ip") || grant.find("app")) {
            unclear("can", "the grant has ip or app as well");
            return false;
        }
        auto& value = grant.values[*at];
        if (value.kind == Kind::Object) { // capabilities with their values
            grant.names[*at].replace(Draft::string("app"));
            return true;
        }
        const auto words = words_of(value);
        if (!words || words->empty()) {
            unclear("can", "want ports such as tcp:443, or capabilities");
            return false;
        }
        std::vector<std::string> ip;
        Draft app;
        app.kind = Kind::Object;
        for (const auto& word : *words) {
            if (const auto meaning = look_up(kServices, word)) {
                for (const auto item : split(*meaning, ' ')) ip.emplace_back(item);
            } else if (is_ports(word)) {
                ip.push_back(word);
            } else if (word.find('/') != std::string::npos && word.find("://") == std::string::npos) {
                app.set(word, Draft::made("[{}]"));
            } else {
                unclear("can",
                        fmt::format("can't tell which ports {} means; write ip, such as [\"tcp:443\"]", quoted(word)));
                return false;
            }
        }
        if (!ip.empty()) {
            grant.names[*at].replace(Draft::string("ip"));
            value.replace(list_of(ip));
            if (!app.values.empty()) grant.set("app", std::move(app));
        } else {
            grant.names[*at].replace(Draft::string("app"));
            value.replace(std::move(app));
        }
        return true;
    }

    static bool is_ports(std::string_view word) {
        const auto colon = word.find(':');
        if (colon != std::string_view::npos && !parse_protocol(word.substr(0, colon))) return false;
        return static_cast<bool>(parse_port_range(word.substr(colon == std::string_view::npos ? 0 : colon + 1)));
    }

    std::set<std::string> known_;
    std::string problem_;
};

} // namespace

bool is_illustrative(std::string_view member) {
    return equals_ignoring_case(member, "who") || equals_ignoring_case(member, "can") ||
           equals_ignoring_case(member, "to") || equals_ignoring_case(member, "because");
}

std::size_t rewrite_illustrative_grants(Draft& document, std::vector<std::string>& unclear) {
    const auto at = document.find("grants");
    if (!at || document.values[*at].kind != Kind::Array) return 0;
    Rewriter rewriter{document};
    auto& grants = document.values[*at];
    std::size_t rewritten = 0;
    for (std::size_t i = 0; i < grants.values.size(); ++i) {
        const auto& names = grants.values[i].names;
        if (std::none_of(names.begin(), names.end(),
                         [](const Draft& name) { return is_illustrative(name.string_value()); }))
            continue;
        std::string because;
        auto grant = rewriter.rewrite(grants.values[i], because);
        if (!grant) {
            unclear.push_back(fmt::format("grants[{}]: {}", i, rewriter.problem()));
            continue;
        }
        grants.values[i] = std::move(*grant);
        if (!because.empty()) grants.add_comment(i, because);
        ++rewritten;
    }
    return rewritten;
}

} // namespace tailrace
