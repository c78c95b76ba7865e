// policy/rule_address.hpp - the words for addresses in a filter rule on the wire.
#pragma once
#include "base/net.hpp"

#include <string_view>

namespace tailrace {

/// Whether an element of SrcIPs, DstPorts or Dsts (FilterRule) names the address: "*", an address, a prefix or
/// "first-last". What is none of these names nobody.
bool names_address(std::string_view text, const IpAddress& address);

} // namespace tailrace
