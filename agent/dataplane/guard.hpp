// agent/dataplane/guard.hpp - keeps floods of forged handshakes from WireGuard, in the drivers of underlay interfaces.
#pragma once
#include "agent/dataplane/bpffs.hpp"
#include "base/net.hpp"
#include "base/result.hpp"
#include "bpf/shared/guard_map.h"
#include "bpf/shared/reasons.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace tailrace {

struct GuardOptions {
    std::string bpffs = "/sys/fs/bpf";
    unsigned schema = TR_SCHEMA_VERSION; ///< another one only in tests of upgrades
};

/// How many handshakes may begin from where no peer is known to be, all such sources together.
///
/// The burst stays below the 512 waiting messages from which on WireGuard calls itself under load and makes everybody,
/// peers included, come again with a cookie (linux drivers/net/wireguard/receive.c); a forged initiation costs it a key
/// agreement, 40 to 200 us, so that a hundred a second are one or two percent of a processor. Peers seldom need it:
/// they are heard by path discovery before they begin, and exempt from then on.
struct GuardBudget {
    std::uint32_t per_second = 100;
    std::uint32_t burst = 500;
    bool operator==(const GuardBudget&) const = default;
};

struct GuardCount {
    std::string name;
    bool passes = false;
    tr_counter counter{};
};

/// One program and its maps for all interfaces. Judges nothing until it has been told port, addresses and interfaces.
/// Stays attached when the object goes, with the endpoints that it knew last.
class Guard {
public:
    /// `device`: the WireGuard device whose pins these are kept beside.
    static Result<Guard> open(const std::string& device, const GuardOptions& options = {});
    static Result<void> remove(const std::string& device, const GuardOptions& options = {});

    Result<void> set_port(std::uint16_t wireguard, const GuardBudget& budget);
    /// All addresses of this host. Datagrams to any other may be forwarded and are never touched.
    Result<void> set_local_addresses(const std::vector<IpAddress>& addresses);
    /// Whose handshakes always pass: these and no others. Says how many there was no room for.
    Result<std::size_t> set_endpoints(const std::vector<Endpoint>& endpoints);
    Result<void> add_endpoint(const Endpoint& endpoint);

    /// An interface that does not take it: its driver has no XDP, or somebody else's program is there.
    struct Refusal {
        std::string interface, why;
        bool operator==(const Refusal&) const = default;
    };
    /// Attaches to these and detaches from all others. Takes the place of programs of other schemas.
    Result<std::vector<Refusal>> set_interfaces(const std::vector<std::string>& names);
    /// On all interfaces of set_interfaces() that took it and still are.
    bool is_in_place() const;
    std::size_t interfaces() const { return attached_.size(); }
    Result<std::vector<GuardCount>> counts() const;

private:
    explicit Guard(PinDirectory pins) : pins_(std::move(pins)) {}

    PinDirectory pins_;
    std::vector<PinDirectory> others_; ///< of other schemas, until ours have taken their place
    std::vector<unsigned> attached_;   ///< interface indexes
    std::set<Endpoint> endpoints_;     ///< as in the map
    Fd program_, config_, local_, peers_, count_;
};

} // namespace tailrace
