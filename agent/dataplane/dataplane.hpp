// agent/dataplane/dataplane.hpp - the packet filter of one WireGuard device.
#pragma once
#include "agent/dataplane/attachment.hpp"
#include "agent/dataplane/bpffs.hpp"
#include "agent/dataplane/packet_watch.hpp"
#include "agent/dataplane/question.hpp"
#include "agent/dataplane/table_writer.hpp"
#include "base/result.hpp"
#include "bpf/shared/reasons.h"
#include "policy/tables.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

struct DataplaneOptions {
    std::string bpffs = "/sys/fs/bpf";
    AttachMethod attach = AttachMethod::Automatic;
    /// Sizes of the maps, each of which holds two policies. Buckets, a power of two from 2048, and prefixes. Kernel
    /// memory is taken at once for buckets: 128 bytes each, 64 those of rows.
    std::uint32_t hosts = 32768, pairs = 65536, rows = 32768;
    std::uint32_t nets = 65536;
    std::uint32_t flows = 16384;         ///< memory for replies: buckets of eight, a power of two, 384 bytes each
    unsigned schema = TR_SCHEMA_VERSION; ///< another one only in tests of upgrades
};

/// One line of "tailrace debug drops".
struct ReasonCount {
    std::string name;
    bool passes = false;
    tr_counter counter{};
};

/// Loads, pins and attaches the policy and the egress program, or adopts those of an earlier agent while packets flow
/// through them. Until the first commit everything from the device is dropped. Destroying it changes nothing in the
/// kernel: that is what keeps packets judged while no agent runs.
///
/// Beside programs of an older schema it only loads its own: the older ones judge until a policy is committed, and then
/// keep_attached() takes their place, hook by hook, each by one exchange in the kernel. What was sent before is known
/// to the new programs too where the layout is the same, else from the next packet that we send. An agent that is
/// killed at any point of this leaves either program on each hook, and the next one goes on. Programs of a newer schema
/// are an error.
class Dataplane {
public:
    static Result<Dataplane> open(const std::string& device, const DataplaneOptions& options = {});

    /// Detaches and forgets everything of a device, loaded by whomever. The device may be gone already.
    static Result<void> remove(const std::string& device, const DataplaneOptions& options = {});

    Result<CommitReport> commit(const PolicyTables& tables);
    Result<void> withdraw() { return writer_.withdraw(); }
    Result<void> wait_for_readers() { return writer_.wait_for_readers(); }
    TableLimits limits() const { return writer_.limits(); }

    /// Is a policy in force? True right after open() when one was adopted.
    bool has_policy() const { return writer_.has_policy(); }
    bool adopted() const { return adopted_; }
    /// The schema whose programs judge until ours take their place; none when there are none.
    std::optional<unsigned> older_schema() const;
    /// Are replies known that the older schema waited for?
    bool shares_flows() const { return shares_flows_; }
    AttachMethod attach_method() const { return method_; }

    /// Attaches again what somebody took away. Cheap: to be called whenever links or qdiscs change, and now and then,
    /// and after a commit while there is an older_schema().
    Result<void> keep_attached();
    /// Ours, or those of an older schema as long as it is their turn.
    bool is_attached() const;

    /// What the program in force says to such a packet. Counts nothing.
    Result<PacketAnswer> ask(const PacketQuestion& question);
    /// Has the programs tell packet_watch() of packets, until so long from now: to be called again before that. Both
    /// zero: no more, and packets pay nothing for it.
    Result<void> watch(Duration events, Duration counts);
    PacketWatch& packet_watch() { return packet_watch_; }
    const PacketWatch& packet_watch() const { return packet_watch_; }
    Result<std::vector<ReasonCount>> reasons() const;
    /// By rule number (PolicyTables::rules); rules that never matched are left out. 0 stands for all without a counter.
    Result<std::map<std::uint32_t, tr_counter>> rule_hits() const;

private:
    Dataplane(PinDirectory pins, TableWriter writer, PacketWatch packet_watch)
        : pins_(std::move(pins)), writer_(std::move(writer)), packet_watch_(std::move(packet_watch)) {}

    Result<bool> is_turn_of_older(unsigned interface_index) const;

    PinDirectory pins_;
    TableWriter writer_;
    PacketWatch packet_watch_;
    std::vector<PinDirectory> older_; ///< newest first
    std::string device_, bpffs_;
    Fd policy_, egress_;
    Fd question_; ///< from the first question on
    std::map<std::string, Fd> maps_;
    AttachMethod wanted_method_ = AttachMethod::Automatic;
    AttachMethod method_ = AttachMethod::Automatic;
    bool adopted_ = false;
    bool committed_ = false; ///< by this object: an agent killed before us may have left an outdated policy in our maps
    bool shares_flows_ = false;
};

} // namespace tailrace
