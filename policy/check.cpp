// policy/check.cpp - checks that need to know the tailnet.
#include "policy/check.hpp"

#include <algorithm>
#include <optional>

namespace tailrace {
namespace {

struct Found {
    std::string message;
    std::uint32_t offset = 0;
};

std::string tailnet_domain(const Tailnet& tailnet) {
    if (!tailnet.domain.empty()) return tailnet.domain;
    for (const auto& user : tailnet.users) {
        const auto at = user.login.rfind('@');
        if (at != std::string::npos) return user.login.substr(at + 1);
    }
    return {};
}

/// user:*@domain and localpart:*@domain only for the tailnet's own domain.
std::optional<Found> find_foreign_domain(const Document& document, const std::string& own) {
    if (own.empty()) return std::nullopt;
    const auto sentence = [](std::string_view domain) {
        return fmt::format("{} is not associated with this Tailnet and cannot be used in user:*@<domain> expressions",
                           domain);
    };
    const auto in = [&](const std::vector<Selector>& selectors, const char* prefix) -> std::optional<Found> {
        for (const auto& selector : selectors) {
            if (selector.kind == Selector::Kind::UserDomain && selector.name != own)
                return Found{prefix + sentence(selector.name), selector.offset};
        }
        return std::nullopt;
    };
    if (document.acls) {
        for (const auto& acl : *document.acls) {
            if (auto found = in(acl.sources, "")) return found;
            for (const auto& destination : acl.destinations) {
                if (auto found = in({destination.selector}, "")) return found;
            }
        }
    }
    if (document.grants) {
        for (const auto& grant : *document.grants) {
            if (auto found = in(grant.sources, "")) return found;
            if (auto found = in(grant.destinations, "")) return found;
        }
    }
    constexpr std::string_view kLocalpart = "localpart:*@";
    for (const auto& rule : document.ssh) {
        if (auto found = in(rule.sources, "[ssh] ")) return found;
        for (const auto& user : rule.users) {
            if (!user.starts_with(kLocalpart) || user.size() == kLocalpart.size()) continue;
            const auto domain = std::string_view{user}.substr(kLocalpart.size());
            if (domain != own) return Found{sentence(domain), rule.offset};
        }
    }
    return std::nullopt;
}

} // namespace

Result<void> check(const Document& document, const Tailnet& tailnet, Strangers strangers, PolicyProblem* problem,
                   std::vector<TestFailure>* failures) {
    auto found = find_foreign_domain(document, tailnet_domain(tailnet));
    auto failed = found ? std::vector<TestFailure>{} : run_policy_tests(document, tailnet, strangers);
    if (!found && !failed.empty()) found = Found{"test(s) failed", failed.front().offset};
    const auto first_failure =
        failed.empty() ? std::string{} : fmt::format(": {}: {}", failed.front().source, failed.front().message);
    if (failures != nullptr) *failures = std::move(failed);
    if (!found) return {};
    const PolicyProblem refusal{found->message, document.position_of(found->offset), false};
    if (problem != nullptr) *problem = refusal;
    return Error::make("{}{}", refusal.text(), first_failure);
}

Result<Document> check(std::string_view text, const Tailnet& tailnet, PolicyProblem* problem,
                       std::vector<TestFailure>* failures) {
    auto document = Document::parse(text, problem);
    if (!document) return document;
    if (auto good = check(*document, tailnet, Strangers::AreNobody, problem, failures); !good) return good.error();
    return document;
}

} // namespace tailrace
