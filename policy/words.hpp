// policy/words.hpp - the small languages inside policy strings: ports, protocols, durations, names.
#pragma once
#include "base/net.hpp"
#include "base/result.hpp"
#include "policy/filter_rule.hpp"

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// "*", "22" or "80-90". Errors read: port range "ssh": invalid first integer.
Result<PortRange> parse_port_range(std::string_view text);
/// A comma list of those.
Result<std::vector<PortRange>> parse_port_list(std::string_view text);

/// A name ("tcp", any case) or a number from 0 to 255.
Result<int> parse_protocol(std::string_view text);
/// TCP, UDP and SCTP; rules for all others must cover every port.
bool has_ports(int protocol);

/// Go's duration syntax: "1h30m", "-1m", "0". Errors read: time: invalid duration "abc".
Result<std::chrono::nanoseconds> parse_go_duration(std::string_view text);
/// As Go prints it: "200h0m0s".
std::string duration_text(std::chrono::nanoseconds duration);

/// Whether "tag:..." is a name that the service accepts; the error is the rule it breaks.
Result<void> check_tag_name(std::string_view tag);

/// An address or a prefix, as a prefix without host bits.
Result<IpPrefix> parse_address_or_prefix(std::string_view text);
/// How to write what that did not read, if the text looks like an address: ": write 0.0.0.0/0, ::/0 or *". Else empty.
std::string address_cure(std::string_view text);

/// In double quotes with the escapes of JSON, for messages.
std::string quoted(std::string_view text);

} // namespace tailrace
