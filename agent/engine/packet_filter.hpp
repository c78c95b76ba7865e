// agent/engine/packet_filter.hpp - the packet programs of one device: compiled, put in force, kept attached.
#pragma once
#include "agent/dataplane/dataplane.hpp"
#include "agent/dataplane/steering.hpp"
#include "agent/dataplane/translator.hpp"
#include "base/io/reactor.hpp"
#include "netlink/link.hpp"
#include "policy/tables.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

class PacketFilter {
public:
    /// Loads or adopts, and attaches to the device.
    static Result<std::unique_ptr<PacketFilter>> open(Reactor& reactor, const std::string& device, unsigned schema,
                                                      AttachMethod attach = AttachMethod::Automatic);
    /// Takes the programs of a device away, whoever loaded them.
    static Result<void> remove(const std::string& device, unsigned schema);
    /// The policy program's bit in the mark of what it lets in.
    static std::uint32_t passed_mark();

    /// Nobody took the steering program off an interface where it should be.
    bool is_steering() const { return !steering_ || steering_->is_in_place(); }
    bool is_attached() const { return dataplane_.is_attached() && (!translator_ || translator_->is_attached()); }
    Result<void> keep_attached();
    /// In force when it returns, and programs of an older schema are replaced. Gives sentences for the health report.
    /// When it cannot be written, what the old policy allowed does not pass all the same: the new one is in force
    /// without its rules, and where even that fails (an error) none is.
    Task<Result<std::vector<std::string>>> commit(FilterInput input);
    /// Was the last policy written? Else there is one without rules in force, or none, and it should be tried again.
    bool is_whole() const { return write_trouble_.empty(); }
    /// Datagrams for the agent on WireGuard's port go to its sockets, whichever interface they come by.
    Result<void> steer(const SteeringPorts& ports, const std::vector<Link>& links);
    /// See Steering; nothing is moved before steer().
    Result<void> move_ports(const std::vector<PortMove>& moves);
    Result<std::vector<PortMove>> moved_ports() const {
        return steering_ ? steering_->moves() : Result<std::vector<PortMove>>{std::vector<PortMove>{}};
    }
    /// Packets for these via routes are IPv4 behind the filter; without any the programs for it are taken away.
    Result<void> translate(const ViaTable& table);
    Result<std::vector<TranslatorCount>> translator_counts() const;
    Result<std::vector<ReasonCount>> reasons() const { return dataplane_.reasons(); }
    /// By where the rule stands in the filter in force. Counters go on when the rule is still there after a change.
    std::map<std::size_t, tr_counter> rule_counters() const;
    /// What the last commit did; all zero when an earlier agent's policy is still in force.
    struct InForce {
        CommitReport report;
        std::size_t rules = 0, left_out = 0;
    };
    const InForce& in_force() const { return in_force_; }
    /// {"Reasons":[{"Reason","Passes","Packets","Bytes"}],"Rules":[...]}
    std::string counters_json() const;
    Result<PacketAnswer> ask(const PacketQuestion& question) { return dataplane_.ask(question); }
    /// See Dataplane::watch().
    Result<void> watch(Duration events, Duration counts) { return dataplane_.watch(events, counts); }
    PacketWatch& packet_watch() { return dataplane_.packet_watch(); }
    /// Where the rule of that number stands in the filter in force.
    std::optional<std::size_t> index_of(std::uint32_t rule) const;

private:
    PacketFilter(Reactor& reactor, std::string device, unsigned schema, AttachMethod attach, Dataplane dataplane)
        : reactor_(reactor), device_(std::move(device)), schema_(schema), attach_(attach),
          dataplane_(std::move(dataplane)) {}

    Reactor& reactor_;
    std::string device_;
    unsigned schema_;
    AttachMethod attach_;
    Dataplane dataplane_;
    std::optional<Steering> steering_;
    std::optional<Translator> translator_;
    std::optional<ViaTable> translated_; ///< what is in force; none: not known
    TableNumbers numbers_;
    InForce in_force_;
    std::string write_trouble_;                  ///< why the last policy is not in force as it is
    std::map<std::uint32_t, std::size_t> rules_; ///< rule number -> index in the filter
};

} // namespace tailrace
