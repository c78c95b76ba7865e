// policy/posture.hpp - does a device fulfil a posture?
#pragma once
#include "policy/document.hpp"
#include "policy/tailnet.hpp"

#include <map>
#include <string>
#include <vector>

namespace tailrace {

using PostureAttributes = std::map<std::string, PostureValue>;

/// An attribute that is not set makes every assertion false but NOT SET.
bool holds(const PostureAssertion& assertion, const PostureAttributes& attributes);

/// Whether the device fulfils any of the postures that a rule asks for; without any it does. A rule that asks for none
/// asks for the document's defaults.
bool fulfils(const Document& document, const std::vector<std::string>& asked, const PostureAttributes& attributes);

/// Negative, zero or positive, as versions go: 1.9 < 1.10, 12 < 12.0. Source: tailscale util/cmpver.
int compare_versions(std::string_view a, std::string_view b);

} // namespace tailrace
