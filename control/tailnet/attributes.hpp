// control/tailnet/attributes.hpp - posture attributes of nodes: what a node is known to be, and what an administrator
// says of it. Policies ask for them in "postures". Source: policy.md 8.3, 8.4.
#pragma once
#include "base/result.hpp"
#include "control/model/model.hpp"
#include "proto/control/hostinfo.hpp"

#include <map>
#include <string>
#include <string_view>

namespace tailrace {

using PostureValues = std::map<std::string, PostureValue>;

/// node:os, node:osVersion, node:tsVersion, node:tsReleaseTrack, node:tsAutoUpdate, node:tsStateEncrypted; those that
/// the client does not report are unset.
PostureValues reported_posture(const wire::Hostinfo& hostinfo);
/// All that policies may ask about a node: what it reports, and the custom: ones that have not expired.
PostureValues posture_of(const Node& node);

/// "custom:" and then letters, digits, "_" and ":", at most 50 characters in all.
Result<void> check_attribute_name(std::string_view name);
/// "true", "false", a whole number, or text of at most 50 letters, digits, "_" and ".".
Result<PostureValue> parse_attribute(std::string_view text);
std::string attribute_text(const PostureValue& value);
/// "a string", "a number", "true or false"
std::string_view attribute_kind(const PostureValue& value);

/// As the store keeps them; text that is no such JSON is an error.
std::string write_attributes(const CustomAttributes& attributes);
Result<CustomAttributes> read_attributes(std::string_view json);

} // namespace tailrace
