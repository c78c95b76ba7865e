// bench/policy/company.hpp - a company's tailnet and its policy, made by a fixed recipe.
#pragma once
#include "policy/tailnet.hpp"

#include <cstddef>
#include <string>

namespace tailrace {

/// Two thirds of the nodes are people's, the rest are servers with tags; some of these route subnets, a few are exit
/// nodes. The same numbers give the same tailnet.
Tailnet bench_tailnet(std::size_t nodes);

/// Rules between groups, users, tags, hosts and subnets as companies write them; each tenth is a grant.
std::string bench_policy(std::size_t nodes, std::size_t rules);

} // namespace tailrace
