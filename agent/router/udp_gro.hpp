// agent/router/udp_gro.hpp - does the kernel merge UDP packets that it forwards into the tunnel? Pure.
#pragma once
#include <map>
#include <string>

namespace tailrace {

/// Features of an interface by the names that ethtool(8) shows.
using InterfaceFeatures = std::map<std::string, bool>;

/// Empty, or the sentence of the reference client (linux-router.md 8.2): where the tunnel takes large UDP packets, the
/// interface to the internet should make some.
std::string udp_gro_trouble(const InterfaceFeatures& tunnel, const std::string& uplink,
                            const InterfaceFeatures& features);

} // namespace tailrace
