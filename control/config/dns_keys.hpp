// control/config/dns_keys.hpp - reads the "dns" block. Heavy, for it sees YAML: config.cpp alone includes it.
#pragma once
#include "base/yaml/reader.hpp"
#include "control/config/dns.hpp"

namespace tailrace {

/// Lower case, without a dot behind. An error for what is no domain name.
Result<std::string> check_domain(std::string domain);
yaml::Handler dns_settings_into(DnsSettings& settings);

} // namespace tailrace
