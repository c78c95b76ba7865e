#include "policy/rule_address.hpp"

namespace tailrace {

bool names_address(std::string_view text, const IpAddress& address) {
    if (text == "*") return true;
    if (auto dash = text.find('-'); dash != std::string_view::npos) {
        auto first = IpAddress::parse(text.substr(0, dash)), last = IpAddress::parse(text.substr(dash + 1));
        return first && last && IpRange{*first, *last}.contains(address);
    }
    if (text.find('/') != std::string_view::npos) {
        auto prefix = IpPrefix::parse(text);
        return prefix && prefix->contains(address);
    }
    auto single = IpAddress::parse(text);
    return single && *single == address;
}

} // namespace tailrace
