// agent/doctor/ethtool.hpp - the offloads of an interface.
#pragma once
#include <map>
#include <string>

namespace tailrace {

/// By the names of `ethtool -k`, true where they are on; empty when the interface does not tell.
std::map<std::string, bool> interface_features(const std::string& interface);

} // namespace tailrace
