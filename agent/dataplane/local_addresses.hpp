// agent/dataplane/local_addresses.hpp - tells the programs of underlay interfaces which addresses this host has.
#pragma once
#include "base/net.hpp"
#include "base/result.hpp"
#include "bpf/shared/steer_map.h"

#include <vector>

namespace tailrace {

tr_local_key local_key(const IpAddress& address);

/// Makes a hash of tr_local_key hold these and no others.
Result<void> write_local_addresses(int map, const std::vector<IpAddress>& addresses);

} // namespace tailrace
