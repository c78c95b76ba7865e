// Rules of the host's firewall whose meaning changes without a word of nftables: those of iptables-legacy, and those
// that ask what is kept elsewhere (an ipset, a list of recent addresses, a quota) or the time. A flow that skips the
// firewall, as those of the fast path do, would outlive what such a rule forbids from now on.
#pragma once
#include "base/result.hpp"

#include <string>

namespace tailrace {

/// Tables of iptables-legacy that could refuse forwarded packets, in this thread's network namespace. Empty: none.
/// Cheap: nobody tells when the first of them appears, so look often.
std::string find_legacy_tables();

/// The first of all such rules, in words for people ("rules of iptables-legacy in the table filter", "a rule in chain
/// FORWARD of table ip filter that asks an ipset"). Empty: none.
Result<std::string> find_silent_rules();

} // namespace tailrace
