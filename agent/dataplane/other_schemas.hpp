// agent/dataplane/other_schemas.hpp - what agents of other schemas left on a device.
#pragma once
#include "agent/dataplane/bpffs.hpp"
#include "base/result.hpp"
#include "bpf/shared/flow_map.h"
#include "bpf/shared/policy_map.h"

#include <linux/bpf.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tailrace {

/// Layout and size of a map; none without a map.
Result<std::optional<bpf_map_info>> map_info(const Fd& map);

/// Programs on an interface, by the links that are pinned here or by our filter in its clsact qdisc.
Result<std::vector<std::uint32_t>> programs_on(unsigned interface_index, std::span<const PinDirectory> pins);

/// Does a program that is pinned here judge packets of this interface, or does a link of it, whatever program the link
/// has by now? `attached`: programs_on() the interface.
Result<bool> is_involved(const PinDirectory& pins, unsigned interface_index,
                         const std::vector<std::uint32_t>& attached);

/// The pins of a device but for those of one schema. Told apart by what hangs on the device and not by names, which
/// belong to their schema. An error says that the kernel did not tell, and nothing of what is there.
struct OtherSchemas {
    std::vector<PinDirectory> older;     ///< at work, newest first: their place is to be taken
    std::vector<PinDirectory> idle;      ///< of neither schema does anything hang on the device: left over
    std::optional<PinDirectory> newer;   ///< at work
    std::vector<std::uint32_t> attached; ///< programs of any schema on the device
};
Result<OtherSchemas> find_other_schemas(const std::string& bpffs, const std::string& device, const PinDirectory& ours,
                                        unsigned interface_index);

/// An error, fit to be shown, when programs of a newer schema are at work on the device; one with a code() when the
/// kernel did not tell. Changes nothing.
Result<void> refuse_newer_schema(const std::string& bpffs, const std::string& device, unsigned schema);

/// Lets `to` use the same memory for flows as `from`, so that no reply is lost while both are at work; `flows` is the
/// number of buckets that ours shall have. False when theirs has another size or layout: then ours begins empty.
Result<bool> share_flows(const PinDirectory& from, const PinDirectory& to, std::uint32_t flows);

/// Flags, serial and lineage of the policy that is in force there, the rest zero; none when they are not known.
Result<std::optional<tr_settings>> settings_in_force(const PinDirectory& pins);

} // namespace tailrace
