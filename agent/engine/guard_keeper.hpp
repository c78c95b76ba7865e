// agent/engine/guard_keeper.hpp - the guard as the daemon's options want it: on every interface that takes it, or
// nowhere.
#pragma once
#include "agent/dataplane/guard.hpp"
#include "base/time.hpp"
#include "netlink/link.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Which interfaces can be the way in for packets from outside and have a driver of their own. Not the loopback, not
/// tunnels, not what is made of other interfaces (bridges, VLANs, bonds), whose packets come by these first; of virtual
/// cables only our end, which has an address.
std::vector<std::string> interfaces_to_guard(const std::vector<Link>& links, std::string_view device);

/// The tailnet works without the guard: what is wrong with it is a sentence for health, and never an error.
class GuardKeeper {
public:
    /// From where a peer was heard, its handshakes pass this long: as long as a session lives without a new one.
    static constexpr auto kHeardFor = std::chrono::seconds{180};
    static constexpr std::size_t kMostHeard = 4096;

    /// No budget: there shall be no guard.
    GuardKeeper(std::string device, unsigned schema, std::optional<GuardBudget> budget)
        : device_(std::move(device)), schema_(schema), budget_(budget) {}

    /// Attaches it where it shall be, or takes away what an earlier agent left.
    void keep(TimePoint now, std::uint16_t port, const std::vector<Link>& links);
    Result<void> remove();
    /// An error says what somebody took away.
    Result<void> check() const;

    bool is_wanted() const { return budget_.has_value(); }
    /// Where WireGuard sends to its peers: all of them.
    void set_endpoints(TimePoint now, std::vector<Endpoint> in_force);
    /// Where it will, or something authentic of a peer came from there: before WireGuard hears of it.
    void heard(TimePoint now, const Endpoint& from);

    std::vector<std::string> warnings() const;
    /// [{"Reason","Passes","Packets","Bytes"}]; empty while there is no guard.
    std::string counters_json() const;
    const Guard* guard() const { return guard_ ? &*guard_ : nullptr; }

private:
    Result<std::vector<Guard::Refusal>> put_in_place(std::uint16_t port, const std::vector<Link>& links);
    void forget_old(TimePoint now);

    std::string device_;
    unsigned schema_;
    std::optional<GuardBudget> budget_;
    std::optional<Guard> guard_;
    bool looked_for_leftovers_ = false;
    std::optional<TimePoint> again_; ///< not before, and not for the same interfaces
    std::vector<std::string> interfaces_;
    std::string trouble_; ///< why there is none
    std::vector<Guard::Refusal> refusals_;
    std::size_t left_out_ = 0;
    std::map<Endpoint, TimePoint> heard_; ///< and when last
};

} // namespace tailrace
