#include "agent/dataplane/other_schemas.hpp"

#include "agent/dataplane/attachment.hpp"

#include <bpf/bpf.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace tailrace {

std::optional<bpf_map_info> map_info(const Fd& map) {
    bpf_map_info info{};
    std::uint32_t bytes = sizeof info;
    if (!map || ::bpf_obj_get_info_by_fd(map.get(), &info, &bytes) != 0) return std::nullopt;
    return info;
}

std::vector<std::uint32_t> programs_on(unsigned interface_index, std::span<const PinDirectory> pins) {
    std::vector<std::uint32_t> out;
    for (const PinDirectory& directory : pins) {
        auto found = programs_by_links(directory, interface_index);
        out.insert(out.end(), found.begin(), found.end());
    }
    for (HookDirection direction : {HookDirection::Ingress, HookDirection::Egress})
        if (std::uint32_t id = filter_program_id(interface_index, direction)) out.push_back(id);
    return out;
}

bool is_involved(const PinDirectory& pins, unsigned interface_index, const std::vector<std::uint32_t>& attached) {
    if (!programs_by_links(pins, interface_index).empty()) return true;
    const std::vector<std::uint32_t> programs = pinned_programs(pins);
    return std::find_first_of(programs.begin(), programs.end(), attached.begin(), attached.end()) != programs.end();
}

OtherSchemas find_other_schemas(const std::string& bpffs, const std::string& device, const PinDirectory& ours,
                                unsigned interface_index) {
    OtherSchemas out;
    std::vector<PinDirectory> all = PinDirectory::others(bpffs, device, ours.schema());
    all.push_back(ours);
    out.attached = programs_on(interface_index, all);
    all.pop_back();
    for (PinDirectory& other : all) {
        if (!is_involved(other, interface_index, out.attached))
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
    if (!found.newer) return {};
    return Error::make(
        "the packets of {} are judged by the programs of a newer tailraced ({} has schema {}, this one knows "
        "{}), and that goes on; start the newer tailraced, or run \"tailrace down\" with it before you go back to this "
        "one",
        device, found.newer->path(), found.newer->schema(), schema);
}

Result<bool> share_flows(const PinDirectory& from, const PinDirectory& to, std::uint32_t flows) {
    if (from.schema() < TR_FLOWS_SINCE) return false;
    auto flow_map = map_info(from.get("tr_flows")), secret_map = map_info(from.get("tr_secret"));
    if (!flow_map || flow_map->type != BPF_MAP_TYPE_ARRAY || flow_map->value_size != sizeof(tr_flow_bucket) ||
        flow_map->max_entries != flows)
        return false;
    if (!secret_map || secret_map->type != BPF_MAP_TYPE_ARRAY || secret_map->value_size != sizeof(tr_secret))
        return false;
    auto event_map = map_info(from.get("tr_flow_events"));
    if (!event_map || event_map->type != BPF_MAP_TYPE_PERCPU_ARRAY || event_map->max_entries != TR_FLOW_EVENT_COUNT)
        return false;
    for (const char* name : {"tr_secret", "tr_flows", "tr_flow_events"}) {
        Fd map = from.get(name);
        if (!map) return Error::from_errno(errno, "open {}", from.path_of(name));
        if (auto pinned = to.pin(map.get(), name); !pinned) return pinned.error();
    }
    return true;
}

std::optional<tr_settings> settings_in_force(const PinDirectory& pins) {
    if (pins.schema() < TR_FLOWS_SINCE) return std::nullopt;
    Fd live = pins.get("tr_live"), settings = pins.get("tr_settings");
    auto live_info = map_info(live), info = map_info(settings);
    constexpr std::size_t kKnown = offsetof(tr_settings, has_own4);
    if (!live_info || live_info->value_size != sizeof(std::uint32_t) || !info || info->value_size < kKnown)
        return std::nullopt;
    std::uint32_t zero = 0, table = TR_TABLE_NONE;
    if (::bpf_map_lookup_elem(live.get(), &zero, &table) != 0 || (table &= TR_LIVE_TABLE) == TR_TABLE_NONE)
        return std::nullopt;
    std::vector<std::byte> value(info->value_size);
    if (::bpf_map_lookup_elem(settings.get(), &table, value.data()) != 0) return std::nullopt;
    tr_settings out{};
    std::memcpy(&out, value.data(), kKnown);
    return out;
}

} // namespace tailrace
