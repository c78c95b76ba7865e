#include "proto/control/names.hpp"

#include <algorithm>

namespace tailrace {

bool is_dns_label(std::string_view text) {
    if (text.empty() || text.size() > 63 || text.front() == '-' || text.back() == '-') return false;
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

Result<void> check_service_name(std::string_view name) {
    constexpr std::string_view kPrefix = "svc:";
    if (name.starts_with(kPrefix) && is_dns_label(name.substr(kPrefix.size()))) return {};
    return Error::make(
        "\"{}\" can't be a service's name: write svc:web, with small letters, digits and dashes, at most "
        "63 of them",
        name);
}

} // namespace tailrace
