// policy/names.hpp - what a name means to somebody who asks about a policy: devices with their addresses.
#pragma once
#include "policy/directory.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Somebody or something that packets go to or come from.
struct NamedDevice {
    std::string name;
    std::optional<NodeIndex> node; ///< nothing: an address that is no device's
    std::vector<IpAddress> addresses;
};

/// A node by its name, then an address, then what policies use: alice@example.com, group:ops, tag:web,
/// autogroup:member, a host. Empty: it is known, but stands for no device. Unknown names are an error that says what is
/// expected.
Result<std::vector<NamedDevice>> devices_named(const Document& document, const Directory& directory,
                                               std::string_view name);

/// "laptop (alice@example.com)", "100.64.0.7 (tag:web)"
std::string describe(const Directory& directory, NodeIndex node);

/// The selector that a name is in rules; nothing when it is none or names nothing that the document knows.
std::optional<Selector> selector_named(const Document& document, std::string_view name);

} // namespace tailrace
