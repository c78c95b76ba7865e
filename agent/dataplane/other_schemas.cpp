#include "agent/dataplane/other_schemas.hpp"

#include "agent/dataplane/attachment.hpp"

#include <bpf/bpf.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace tailrace {

namespace {

/// The map that is pinned there, with its layout; no descriptor and no layout without one.
struct PinnedMap {
    Fd fd;
    std::optional<bpf_map_info> info;
};
Result<PinnedMap> pinned_map(const PinDirectory& pins, const char* name) {
    PinnedMap out;
    auto map = pins.find(name);
    if (!map) return map.error();
    out.fd = std::move(*map);
    auto info = map_info(out.fd);
    if (!info) return info.error().with("{}", pins.path_of(name));
    out.info = *info;
    return out;
}

} // namespace

Result<std::optional<bpf_map_info>> map_info(const Fd& map) {
    bpf_map_info info{};
    std::uint32_t bytes = sizeof info;
    if (!map) return std::optional<bpf_map_info>{};
    if (::bpf_obj_get_info_by_fd(map.get(), &info, &bytes) != 0) return Error::from_errno(errno, "ask about a map");
    return std::optional{info};
}

Result<std::vector<std::uint32_t>> programs_on(unsigned interface_index, std::span<const PinDirectory> pins) {
    std::vector<std::uint32_t> out;
    for (const PinDirectory& directory : pins) {
        auto found = programs_by_links(directory, interface_index);
        if (!found) return found;
        out.insert(out.end(), found->begin(), found->end());
    }
    for (HookDirection direction : {HookDirection::Ingress, HookDirection::Egress}) {
        auto id = filter_program_id(interface_index, direction);
        if (!id) return id.error();
        if (*id) out.push_back(*id);
    }
    return out;
}

Result<bool> is_involved(const PinDirectory& pins, unsigned interface_index,
                         const std::vector<std::uint32_t>& attached) {
    auto linked = programs_by_links(pins, interface_index);
    if (!linked) return linked.error();
    if (!linked->empty()) return true;
    auto programs = pinned_programs(pins);
    if (!programs) return programs.error();
    return std::find_first_of(programs->begin(), programs->end(), attached.begin(), attached.end()) != programs->end();
}

Result<OtherSchemas> find_other_schemas(const std::string& bpffs, const std::string& device, const PinDirectory& ours,
                                        unsigned interface_index) {
    OtherSchemas out;
    auto all = PinDirectory::others(bpffs, device, ours.schema());
    if (!all) return all.error();
    all->push_back(ours);
    auto attached = programs_on(interface_index, *all);
    if (!attached) return attached.error();
    out.attached = std::move(*attached);
    all->pop_back();
    for (PinDirectory& other : *all) {
        auto involved = is_involved(other, interface_index, out.attached);
        if (!involved) return involved.error();
        if (!*involved)
            out.idle.push_back(std::move(other));
        else if (other.schema() < ours.schema())
            out.older.push_back(std::move(other));
        else if (!out.newer)
            out.newer = std::move(other);
    }
    return out;
}

Result<void> refuse_newer_schema(const std::string& bpffs, const std::string& device, unsigned schema) {
    unsigned interface_index = ::if_nametoindex(device.c_str());
    if (!interface_index) return {};
    auto found = find_other_schemas(bpffs, device, PinDirectory::named(bpffs, device, schema), interface_index);
    if (!found) return found.error().with("look for the programs of other schemas on {}", device);
    if (!found->newer) return {};
    return Error::make(
        "the packets of {} are judged by the programs of a newer tailraced ({} has schema {}, this one knows "
        "{}), and that goes on; start the newer tailraced, or run \"tailrace down\" with it before you go back to this "
        "one",
        device, found->newer->path(), found->newer->schema(), schema);
}

Result<bool> share_flows(const PinDirectory& from, const PinDirectory& to, std::uint32_t flows) {
    if (from.schema() < TR_FLOWS_SINCE) return false;
    auto flow_map = pinned_map(from, "tr_flows");
    if (!flow_map) return flow_map.error();
    if (!flow_map->info || flow_map->info->type != BPF_MAP_TYPE_ARRAY ||
        flow_map->info->value_size != sizeof(tr_flow_bucket) || flow_map->info->max_entries != flows)
        return false;
    auto secret_map = pinned_map(from, "tr_secret");
    if (!secret_map) return secret_map.error();
    if (!secret_map->info || secret_map->info->type != BPF_MAP_TYPE_ARRAY ||
        secret_map->info->value_size != sizeof(tr_secret))
        return false;
    auto event_map = pinned_map(from, "tr_flow_events");
    if (!event_map) return event_map.error();
    if (!event_map->info || event_map->info->type != BPF_MAP_TYPE_PERCPU_ARRAY ||
        event_map->info->max_entries != TR_FLOW_EVENT_COUNT)
        return false;
    for (const auto& [name, map] : {std::pair{"tr_secret", &*secret_map}, std::pair{"tr_flows", &*flow_map},
                                    std::pair{"tr_flow_events", &*event_map}})
        if (auto pinned = to.pin(map->fd.get(), name); !pinned) return pinned.error();
    return true;
}

Result<std::optional<tr_settings>> settings_in_force(const PinDirectory& pins) {
    std::optional<tr_settings> none;
    if (pins.schema() < TR_FLOWS_SINCE) return none;
    auto live = pinned_map(pins, "tr_live");
    if (!live) return live.error();
    auto settings = pinned_map(pins, "tr_settings");
    if (!settings) return settings.error();
    constexpr std::size_t kKnown = offsetof(tr_settings, has_own4);
    if (!live->info || live->info->value_size != sizeof(std::uint32_t) || !settings->info ||
        settings->info->value_size < kKnown)
        return none;
    std::uint32_t zero = 0, table = TR_TABLE_NONE;
    if (::bpf_map_lookup_elem(live->fd.get(), &zero, &table) != 0)
        return Error::from_errno(errno, "read {}", pins.path_of("tr_live"));
    if ((table &= TR_LIVE_TABLE) == TR_TABLE_NONE) return none;
    std::vector<std::byte> value(settings->info->value_size);
    if (::bpf_map_lookup_elem(settings->fd.get(), &table, value.data()) != 0) {
        if (errno == ENOENT) return none;
        return Error::from_errno(errno, "read {}", pins.path_of("tr_settings"));
    }
    tr_settings out{};
    std::memcpy(&out, value.data(), kKnown);
    return std::optional{out};
}

} // namespace tailrace
