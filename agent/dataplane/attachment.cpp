#include "agent/dataplane/attachment.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace tailrace {
namespace {

// Newer than the headers of libbpf 1.1. Source: linux include/uapi/linux/bpf.h (6.6).
constexpr int kTcxIngress = 46, kTcxEgress = 47;
constexpr std::uint32_t kLinkTypeTcx = 11;
constexpr std::uint32_t kBefore = 1u << 3; // BPF_F_BEFORE, with nobody named: first of all
constexpr std::uint32_t kAfter = 1u << 4;  // BPF_F_AFTER, likewise: last

// Where our filters stand in a clsact qdisc that we may share. Of those of one priority the newest is asked first.
constexpr std::uint32_t kFirstPriority = 1, kLastPriority = 2;

/// bpf_link_info as a TCX link fills it.
struct TcxLinkInfo {
    std::uint32_t type = 0, id = 0, program_id = 0, padding = 0;
    std::uint32_t interface_index = 0, attach_type = 0;
    std::uint64_t rest[8] = {};
};

/// `info.type` says whether it is a link of TCX.
Result<TcxLinkInfo> link_info(int link) {
    TcxLinkInfo info;
    std::uint32_t bytes = sizeof info;
    if (::bpf_obj_get_info_by_fd(link, &info, &bytes) != 0) return Error::from_errno(errno, "ask about a pinned link");
    return info;
}

int tcx_type(const Hook& hook) {
    return hook.direction == HookDirection::Ingress ? kTcxIngress : kTcxEgress;
}

bpf_tc_hook clsact_hook(const Hook& hook) {
    bpf_tc_hook out{};
    out.sz = sizeof out;
    out.ifindex = static_cast<int>(hook.interface_index);
    out.attach_point = hook.direction == HookDirection::Ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
    return out;
}

bpf_tc_opts our_filter(const Hook& hook) {
    bpf_tc_opts out{};
    out.sz = sizeof out;
    out.handle = hook.filter;
    out.priority = hook.place == HookPlace::First ? kFirstPriority : kLastPriority;
    return out;
}

/// What the kernel answers when there can be no filter of ours: ENOENT, no such filter; EINVAL, no clsact qdisc, or
/// somebody else's filter in its place; EOPNOTSUPP, no traffic control; ENODEV, no interface.
/// Source: linux net/sched/cls_api.c, tc_get_tfilter().
bool says_there_is_none(int code) {
    return code == ENOENT || code == EINVAL || code == EOPNOTSUPP || code == ENODEV;
}

/// The program of our filter, 0 when there is none.
Result<std::uint32_t> filter_program_id(const Hook& hook) {
    LibbpfComplaints ignored;
    bpf_tc_hook where = clsact_hook(hook);
    bpf_tc_opts filter = our_filter(hook);
    const int failed = ::bpf_tc_query(&where, &filter);
    if (failed == 0) return filter.prog_id;
    if (says_there_is_none(-failed)) return std::uint32_t{0};
    return Error::from_errno(-failed, "ask for our filter on interface {}", hook.interface_index);
}

Result<void> attach_clsact(const Hook& hook, int program) {
    LibbpfComplaints complaints;
    bpf_tc_hook both = clsact_hook(hook);
    both.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
    if (int failed = ::bpf_tc_hook_create(&both); failed && failed != -EEXIST)
        return Error::from_errno(-failed, "create a clsact qdisc on interface {}", hook.interface_index);
    bpf_tc_hook where = clsact_hook(hook);
    bpf_tc_opts filter = our_filter(hook);
    filter.prog_fd = program;
    auto present = filter_program_id(hook);
    if (!present) return present.error();
    filter.flags = *present ? BPF_TC_F_REPLACE : 0;
    if (int failed = ::bpf_tc_attach(&where, &filter))
        return Error::from_errno(-failed, "add a filter to the clsact qdisc of interface {}", hook.interface_index);
    return {};
}

Result<void> detach_clsact(const Hook& hook) {
    auto present = filter_program_id(hook);
    if (!present) return present.error();
    if (*present == 0) return {};
    LibbpfComplaints ignored;
    bpf_tc_hook where = clsact_hook(hook);
    bpf_tc_opts filter = our_filter(hook);
    if (int failed = ::bpf_tc_detach(&where, &filter); failed && failed != -ENOENT)
        return Error::from_errno(-failed, "take our filter from interface {}", hook.interface_index);
    return {};
}

/// The pinned link of this very hook; none when there is none.
Result<Fd> link_on(const PinDirectory& pins, const Hook& hook) {
    auto link = pins.find(hook.pin);
    if (!link || !*link) return link;
    auto info = link_info(link->get());
    if (!info) return info.error();
    if (info->type == kLinkTypeTcx && info->interface_index == hook.interface_index &&
        info->attach_type == static_cast<std::uint32_t>(tcx_type(hook)))
        return link;
    return Fd{};
}

Result<void> exchange(int link, const Hook& hook, int program) {
    auto info = link_info(link);
    if (!info) return info.error();
    auto wanted = program_id(program);
    if (!wanted) return wanted.error();
    if (info->type == kLinkTypeTcx && info->program_id == *wanted) return {};
    if (::bpf_link_update(link, program, nullptr) == 0) return {};
    return Error::from_errno(errno, "exchange the program on interface {}", hook.interface_index);
}

/// code() is EINVAL where the kernel knows no TCX.
Result<void> attach_tcx(const PinDirectory& pins, const Hook& hook, int program, std::span<const PinDirectory> older) {
    auto ours = link_on(pins, hook);
    if (!ours) return ours.error();
    if (*ours) return exchange(ours->get(), hook, program);
    for (const PinDirectory& other : older) {
        auto theirs = link_on(other, hook);
        if (!theirs) return theirs.error();
        if (!*theirs) continue;
        if (auto exchanged = exchange(theirs->get(), hook, program); !exchanged) return exchanged;
        return pins.pin(theirs->get(), hook.pin);
    }
    bpf_link_create_opts options{};
    options.sz = sizeof options;
    options.flags = hook.place == HookPlace::First ? kBefore : kAfter;
    auto create = [&] {
        return Fd{::bpf_link_create(program, static_cast<int>(hook.interface_index),
                                    static_cast<bpf_attach_type>(tcx_type(hook)), &options)};
    };
    Fd link = create();
    // A link whose pin was taken away goes a moment later, and holds the place of this program until then.
    for (int tries = 0; !link && errno == EEXIST && tries < 50; ++tries) {
        std::this_thread::sleep_for(std::chrono::milliseconds{2});
        link = create();
    }
    if (!link) return Error::from_errno(errno, "attach to interface {}", hook.interface_index);
    return pins.pin(link.get(), hook.pin);
}

/// The kernel answers for maps, programs and links alike, each in its own layout.
Result<bool> is_a(const char* kind, const Fd& object) {
    char name[64] = {};
    std::string path = fmt::format("/proc/self/fd/{}", object.get());
    if (::readlink(path.c_str(), name, sizeof name - 1) < 0)
        return Error::from_errno(errno, "ask what is pinned, of {}", path);
    return fmt::format("anon_inode:{}", kind) == name;
}

/// All that is pinned here and is of this kind.
Result<std::vector<Fd>> pinned(const PinDirectory& pins, const char* kind) {
    auto names = pins.names();
    if (!names) return names.error();
    std::vector<Fd> found;
    for (const std::string& name : *names) {
        auto object = pins.find(name);
        if (!object) return object.error();
        if (!*object) continue; // gone since
        auto wanted = is_a(kind, *object);
        if (!wanted) return wanted.error();
        if (*wanted) found.push_back(std::move(*object));
    }
    return found;
}

/// Ours hangs already: what an older schema's link adds is either this same link, or a program behind ours.
Result<void> drop_older_links(std::span<const PinDirectory> older, const Hook& hook) {
    for (const PinDirectory& other : older)
        if (auto unpinned = other.unpin(hook.pin); !unpinned) return unpinned;
    return {};
}

} // namespace

Result<std::vector<std::uint32_t>> programs_by_links(const PinDirectory& pins, unsigned interface_index) {
    auto links = pinned(pins, "bpf-link");
    if (!links) return links.error();
    std::vector<std::uint32_t> found;
    for (const Fd& link : *links) {
        auto info = link_info(link.get());
        if (!info) return info.error().with("{}", pins.path());
        if (info->type == kLinkTypeTcx && info->interface_index == interface_index) found.push_back(info->program_id);
    }
    return found;
}

Result<std::vector<std::uint32_t>> pinned_programs(const PinDirectory& pins) {
    auto programs = pinned(pins, "bpf-prog");
    if (!programs) return programs.error();
    std::vector<std::uint32_t> found;
    for (const Fd& program : *programs) {
        auto id = program_id(program.get());
        if (!id) return id.error().with("{}", pins.path());
        found.push_back(*id);
    }
    return found;
}

Result<std::uint32_t> filter_program_id(unsigned interface_index, HookDirection direction) {
    return filter_program_id(Hook{interface_index, direction, "", HookPlace::First});
}

Result<std::uint32_t> program_id(int program) {
    bpf_prog_info info{};
    std::uint32_t bytes = sizeof info;
    if (::bpf_obj_get_info_by_fd(program, &info, &bytes) != 0)
        return Error::from_errno(errno, "ask for the number of a program");
    return info.id;
}

Result<bool> look_attached(const PinDirectory& pins, const Hook& hook, int program) {
    auto wanted = program_id(program);
    if (!wanted) return wanted.error();
    auto link = pins.find(hook.pin);
    if (!link) return link.error();
    if (*link) {
        auto info = link_info(link->get());
        if (!info) return info.error();
        if (info->type == kLinkTypeTcx)
            return info->interface_index == hook.interface_index && info->program_id == *wanted;
    }
    auto filter = filter_program_id(hook);
    if (!filter) return filter.error();
    return *filter == *wanted;
}

bool is_attached(const PinDirectory& pins, const Hook& hook, int program) {
    auto attached = look_attached(pins, hook, program);
    return attached && *attached;
}

Result<AttachMethod> attach(const PinDirectory& pins, const Hook& hook, int program, AttachMethod method,
                            std::span<const PinDirectory> older) {
    if (method != AttachMethod::Clsact) {
        auto linked = attach_tcx(pins, hook, program, older);
        if (linked) {
            (void)detach_clsact(hook); // from before a kernel or agent upgrade; TCX programs are asked first
            if (auto dropped = drop_older_links(older, hook); !dropped) return dropped.error();
            return AttachMethod::Tcx;
        }
        if (method == AttachMethod::Tcx || linked.error().code() != EINVAL) return linked.error();
    }
    auto filtered = attach_clsact(hook, program);
    if (!filtered) return filtered.error();
    if (auto dropped = drop_older_links(older, hook); !dropped) return dropped.error();
    return AttachMethod::Clsact;
}

Result<void> detach(const PinDirectory& pins, const Hook& hook) {
    if (auto unpinned = pins.unpin(hook.pin); !unpinned) return unpinned; // the last reference to a link
    return hook.interface_index ? detach_clsact(hook) : Result<void>{};
}

} // namespace tailrace
