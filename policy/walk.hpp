// policy/walk.hpp - every selector of a document, wherever it stands.
#pragma once
#include "policy/document.hpp"

namespace tailrace {

/// Calls `visit(const Selector&)`.
template <typename Visit>
void for_each_selector(const Document& document, Visit visit) {
    const auto all = [&](const std::vector<Selector>& selectors) {
        for (const auto& selector : selectors) visit(selector);
    };
    if (document.acls) {
        for (const auto& acl : *document.acls) {
            all(acl.sources);
            for (const auto& destination : acl.destinations) visit(destination.selector);
        }
    }
    if (document.grants) {
        for (const auto& grant : *document.grants) {
            all(grant.sources);
            all(grant.destinations);
        }
    }
    for (const auto& rule : document.ssh) {
        all(rule.sources);
        all(rule.destinations);
    }
    for (const auto& entry : document.node_attributes) all(entry.targets);
    for (const auto& [tag, owners] : document.tag_owners) all(owners);
    for (const auto& [prefix, who] : document.auto_approvers.routes) all(who);
    all(document.auto_approvers.exit_node);
    for (const auto& [service, who] : document.auto_approvers.services) all(who);
}

} // namespace tailrace
