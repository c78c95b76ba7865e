// relay/server/metrics.hpp - the counters of all cores as Prometheus text.
#pragma once
#include "relay/core/counters.hpp"

#include <string>
#include <vector>

namespace tailrace::relay {

std::string write_metrics(const std::vector<const Counters*>& cores);

} // namespace tailrace::relay
