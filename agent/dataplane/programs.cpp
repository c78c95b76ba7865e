#include "agent/dataplane/programs.hpp"

#include "base/random.hpp"
#include "bpf/shared/flow_map.h" // first: the skeletons use it

#include "bpf/egress.skel.h"
#include "bpf/policy.skel.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <string_view>

namespace tailrace {
namespace {

using PolicyObject = std::unique_ptr<tr_policy_object, void (*)(tr_policy_object*)>;
using EgressObject = std::unique_ptr<tr_egress_object, void (*)(tr_egress_object*)>;

bool is_our_map(const bpf_map* map) {
    // Not the read-only data of one program: tr_polic.rodata, which bpffs would not take for its dot.
    std::string_view name = ::bpf_map__name(map);
    return name.starts_with("tr_") && name.find('.') == std::string_view::npos;
}

/// By name. Asked before it is loaded: of a map that is there already libbpf takes over the name as the kernel has it,
/// and it may have none.
std::map<std::string, bpf_map*> our_maps(bpf_object* object) {
    std::map<std::string, bpf_map*> out;
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, object) {
        if (is_our_map(map)) out.emplace(::bpf_map__name(map), map);
    }
    return out;
}

Result<void> prepare_maps(const std::map<std::string, bpf_map*>& maps, const ProgramOptions& options) {
    for (const auto& [name, map] : maps) {
        if (auto size = options.map_sizes.find(name); size != options.map_sizes.end())
            ::bpf_map__set_max_entries(map, size->second);
        if (options.pins)
            if (int failed = ::bpf_map__set_pin_path(map, options.pins->path_of(name).c_str()))
                return Error::from_errno(-failed, "choose where to pin map {}", name);
    }
    return {};
}

Result<void> share_map(const std::string& name, bpf_map* map, int with) {
    if (int failed = ::bpf_map__reuse_fd(map, with)) return Error::from_errno(-failed, "share map {}", name);
    return {};
}

/// That of an earlier agent, or a new one.
Result<tr_secret> find_secret(const PinDirectory* pins) {
    tr_secret secret{};
    std::uint32_t zero = 0;
    auto map = pins ? pins->find("tr_secret") : Result<Fd>{Fd{}};
    if (!map) return map.error();
    if (*map && ::bpf_map_lookup_elem(map->get(), &zero, &secret) != 0)
        return Error::from_errno(errno, "read map tr_secret");
    if (!secret.word[0])
        for (auto& word : secret.word) word = random_u64() | 1; // a product with an odd number loses nothing
    return secret;
}

} // namespace

Result<TableMaps> PacketPrograms::table_maps() const {
    TableMaps out;
    const std::pair<const char*, Fd*> wanted[] = {
        {"tr_live", &out.live},   {"tr_settings", &out.settings}, {"tr_hosts", &out.hosts}, {"tr_nets", &out.nets},
        {"tr_pairs", &out.pairs}, {"tr_ports", &out.ports},       {"tr_rows", &out.rows}};
    for (auto& [name, fd] : wanted) {
        *fd = duplicate(maps.at(name).get());
        if (!*fd) return Error::from_errno(errno, "keep map {}", name);
    }
    return out;
}

Result<PacketPrograms> load_packet_programs(const ProgramOptions& options) {
    LibbpfComplaints complaints;
    PolicyObject policy{tr_policy_object__open(), &tr_policy_object__destroy};
    EgressObject egress{tr_egress_object__open(), &tr_egress_object__destroy};
    if (!policy || !egress) return Error::from_errno(errno, "open the packet programs{}", complaints.text());
    policy->rodata->l2_bytes = options.l2_bytes;
    egress->rodata->l2_bytes = options.l2_bytes;
    ::bpf_program__set_autoload(policy->progs.tr_question, false);

    const auto policy_maps = our_maps(policy->obj), egress_maps = our_maps(egress->obj);
    if (auto ready = prepare_maps(policy_maps, options); !ready) return ready.error();
    std::uint32_t flow_buckets = ::bpf_map__max_entries(policy->maps.tr_flows);
    if (!std::has_single_bit(flow_buckets))
        return Error::make("the memory for flows has {} buckets, which is no power of two", flow_buckets);
    policy->rodata->flow_mask = egress->rodata->flow_mask = flow_buckets - 1;
    auto secret = find_secret(options.pins);
    if (!secret) return secret.error();
    std::memcpy(&policy->rodata->flow_secret, &*secret, sizeof *secret);
    std::memcpy(&egress->rodata->flow_secret, &*secret, sizeof *secret);
    if (int failed = tr_policy_object__load(policy.get()))
        return Error::from_errno(-failed, "load the policy program{}", complaints.text());
    std::uint32_t zero = 0;
    if (::bpf_map_update_elem(::bpf_map__fd(policy->maps.tr_secret), &zero, &*secret, BPF_ANY) != 0)
        return Error::from_errno(errno, "write map tr_secret");

    // The second program uses the first one's maps. libbpf makes only those of a pin path the same by itself.
    if (auto ready = prepare_maps(egress_maps, {options.l2_bytes, options.map_sizes, nullptr}); !ready)
        return ready.error();
    for (const auto& [name, map] : egress_maps)
        if (auto shared = share_map(name, map, ::bpf_map__fd(policy_maps.at(name))); !shared) return shared.error();
    if (int failed = tr_egress_object__load(egress.get()))
        return Error::from_errno(-failed, "load the egress program{}", complaints.text());

    PacketPrograms out;
    out.policy = duplicate(::bpf_program__fd(policy->progs.tr_policy));
    out.egress = duplicate(::bpf_program__fd(egress->progs.tr_egress));
    if (!out.policy || !out.egress) return Error::from_errno(errno, "keep the packet programs");
    for (const auto& [name, map] : policy_maps) {
        Fd kept = duplicate(::bpf_map__fd(map));
        if (!kept) return Error::from_errno(errno, "keep map {}", name);
        out.maps.emplace(name, std::move(kept));
    }
    return out;
}

Result<Fd> load_question(const std::map<std::string, Fd>& maps, std::uint32_t l2_bytes) {
    LibbpfComplaints complaints;
    PolicyObject policy{tr_policy_object__open(), &tr_policy_object__destroy};
    if (!policy) return Error::from_errno(errno, "open the program that answers questions{}", complaints.text());
    ::bpf_program__set_autoload(policy->progs.tr_policy, false);
    for (const auto& [name, map] : our_maps(policy->obj))
        if (auto shared = share_map(name, map, maps.at(name).get()); !shared) return shared.error();
    std::uint32_t zero = 0;
    tr_secret secret{};
    if (::bpf_map_lookup_elem(maps.at("tr_secret").get(), &zero, &secret) != 0)
        return Error::from_errno(errno, "read map tr_secret");
    std::memcpy(&policy->rodata->flow_secret, &secret, sizeof secret);
    policy->rodata->flow_mask = ::bpf_map__max_entries(policy->maps.tr_flows) - 1;
    policy->rodata->l2_bytes = l2_bytes;
    if (int failed = tr_policy_object__load(policy.get()))
        return Error::from_errno(-failed, "load the program that answers questions{}", complaints.text());
    Fd out = duplicate(::bpf_program__fd(policy->progs.tr_question));
    if (!out) return Error::from_errno(errno, "keep the program that answers questions");
    return out;
}

Result<bool> is_same_program(int a, int b) {
    bpf_prog_info first{}, second{};
    std::uint32_t first_bytes = sizeof first, second_bytes = sizeof second;
    if (::bpf_obj_get_info_by_fd(a, &first, &first_bytes) != 0 ||
        ::bpf_obj_get_info_by_fd(b, &second, &second_bytes) != 0)
        return Error::from_errno(errno, "compare programs");
    return std::memcmp(first.tag, second.tag, sizeof first.tag) == 0;
}

Result<bool> uses_map(int program, int map) {
    bpf_map_info wanted{};
    std::uint32_t bytes = sizeof wanted;
    if (::bpf_obj_get_info_by_fd(map, &wanted, &bytes) != 0) return Error::from_errno(errno, "ask about a map");
    std::uint32_t ids[64];
    bpf_prog_info info{};
    info.nr_map_ids = std::size(ids);
    info.map_ids = reinterpret_cast<std::uintptr_t>(ids);
    bytes = sizeof info;
    if (::bpf_obj_get_info_by_fd(program, &info, &bytes) != 0)
        return Error::from_errno(errno, "ask which maps a program uses");
    std::uint32_t* end = ids + std::min<std::size_t>(info.nr_map_ids, std::size(ids));
    return std::find(ids, end, wanted.id) != end;
}

} // namespace tailrace
