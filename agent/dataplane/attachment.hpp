// agent/dataplane/attachment.hpp - a tc program on a device, in a way that outlives the agent.
#pragma once
#include "agent/dataplane/bpffs.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tailrace {

/// A pinned TCX link where the kernel has them (6.6), else a filter of the clsact qdisc.
enum class AttachMethod { Automatic, Tcx, Clsact };
enum class HookDirection { Ingress, Egress };

/// Before all programs that are there when it is attached, ours and others', or behind them.
enum class HookPlace { First, Last };

/// One place where a program may hang.
struct Hook {
    unsigned interface_index = 0;
    HookDirection direction = HookDirection::Ingress;
    std::string pin; ///< name of the link's pin
    HookPlace place = HookPlace::First;
    std::uint32_t filter = 0x7a11; ///< handle of the filter in the clsact qdisc, another one for each program of ours
};

/// Is exactly this program attached there, by our link or our filter? An error: the kernel did not say.
Result<bool> look_attached(const PinDirectory& pins, const Hook& hook, int program);
/// The same, and no when the kernel did not say.
bool is_attached(const PinDirectory& pins, const Hook& hook, int program);

/// Makes it so, in the hook's place; replaces an older program of ours without a gap. Says which
/// way was taken. `older` are pins of older schemas: their links are taken over in place, so that every packet is
/// judged by one program and no packet by none, or go once ours is there. Ended anywhere, it can be called again.
Result<AttachMethod> attach(const PinDirectory& pins, const Hook& hook, int program, AttachMethod method,
                            std::span<const PinDirectory> older = {});

/// Takes our link and our filter away, if there. Never deletes a clsact qdisc: others may use it.
Result<void> detach(const PinDirectory& pins, const Hook& hook);

/// The programs on an interface, whatever their pins are called: those of the links that are pinned here. Of this and
/// what follows an error says that the kernel did not tell, and nothing of what is there.
Result<std::vector<std::uint32_t>> programs_by_links(const PinDirectory& pins, unsigned interface_index);
/// All programs that are pinned here.
Result<std::vector<std::uint32_t>> pinned_programs(const PinDirectory& pins);
/// The program of our filter in the clsact qdisc, 0 when there is none.
Result<std::uint32_t> filter_program_id(unsigned interface_index, HookDirection direction);

/// Kernel's number of a loaded program.
Result<std::uint32_t> program_id(int program);

} // namespace tailrace
