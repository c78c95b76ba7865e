// policy/tag_owners.hpp - tags own tags, in chains of any length. Pure.
#pragma once
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace tailrace {

/// These tags and all that they own, one way or the other. `owned_by`: the tags that a tag owns itself. Not by
/// recursion: policies come from outside.
template <typename Name>
std::set<Name> with_owned_tags(std::vector<Name> open, const std::map<Name, std::vector<Name>>& owned_by) {
    std::set<Name> all;
    while (!open.empty()) {
        const Name tag = std::move(open.back());
        open.pop_back();
        if (!all.insert(tag).second) continue;
        if (const auto next = owned_by.find(tag); next != owned_by.end())
            open.insert(open.end(), next->second.begin(), next->second.end());
    }
    return all;
}

} // namespace tailrace
