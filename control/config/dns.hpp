// control/config/dns.hpp - the "dns" block of the configuration: how nodes look names up.
#pragma once
#include "proto/control/dns.hpp"

#include <map>
#include <string>
#include <vector>

namespace tailrace {

struct DnsSettings {
    bool magic_dns = true;                   ///< names of nodes are known to all nodes
    std::vector<wire::Resolver> nameservers; ///< for all names, instead of each machine's own; none: its own
    std::map<std::string, std::vector<wire::Resolver>> split; ///< for names below a suffix
    std::vector<std::string> search_domains;                  ///< after the tailnet's own
    std::vector<wire::DnsRecord> extra_records;
    bool operator==(const DnsSettings&) const = default;
};

} // namespace tailrace
