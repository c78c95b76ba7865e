#include "agent/dataplane/net_writer.hpp"

#include <bpf/bpf.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <type_traits>

namespace tailrace {
namespace {

constexpr int kNotSupported = 524; // ENOTSUPP, which user space has no name for

int compare(const tr_net_key& a, const tr_net_key& b) {
    static_assert(std::has_unique_object_representations_v<tr_net_key>);
    return std::memcmp(&a, &b, sizeof a);
}

void sort_nets(SortedNets& nets) {
    std::sort(nets.begin(), nets.end(), [](const auto& a, const auto& b) { return compare(a.first, b.first) < 0; });
}

/// Elements come from per-CPU caches that refill behind our back: a long run of new entries can be too fast for them.
bool wait_for_memory(int error, int& tries) {
    if (error != ENOMEM || tries++ == 200) return false;
    timespec pause{0, 2'000'000};
    ::nanosleep(&pause, nullptr);
    return true;
}

Result<void> write_singly(int map, const SortedNets& entries, std::size_t from) {
    int tries = 0;
    for (std::size_t i = from; i < entries.size();) {
        if (::bpf_map_update_elem(map, &entries[i].first, &entries[i].second, BPF_ANY) == 0)
            ++i;
        else if (int error = errno; !wait_for_memory(error, tries))
            return Error::from_errno(error, "write a prefix to map tr_nets ({} of {} written)", i, entries.size());
    }
    return {};
}

Result<void> write_all(int map, const SortedNets& entries) {
    std::vector<tr_net_key> keys;
    std::vector<tr_address> values;
    for (const auto& [key, value] : entries) {
        keys.push_back(key);
        values.push_back(value);
    }
    bpf_map_batch_opts options{};
    options.sz = sizeof options;
    int tries = 0;
    for (std::size_t done = 0; done < entries.size();) {
        auto count = static_cast<std::uint32_t>(entries.size() - done);
        if (::bpf_map_update_batch(map, &keys[done], &values[done], &count, &options) == 0) return {};
        int error = errno;
        if (error == EINVAL || error == kNotSupported) return write_singly(map, entries, done);
        done += std::min<std::size_t>(count, entries.size() - done);
        if (!wait_for_memory(error, tries))
            return Error::from_errno(error, "write prefixes to map tr_nets ({} of {} written)", done, entries.size());
    }
    return {};
}

} // namespace

SortedNets lay_out_nets(const std::vector<PolicyTables::Address>& nets, std::uint8_t table) {
    SortedNets out;
    out.reserve(nets.size());
    for (const PolicyTables::Address& net : nets) {
        tr_net_key key{};
        key.prefix_bits = 32 + static_cast<std::uint32_t>(net.prefix.bits());
        key.scope = {table, net.side, static_cast<std::uint8_t>(net.prefix.address().is_v4() ? 4 : 6), 0};
        auto bytes = net.prefix.address().bytes();
        std::memcpy(key.addr.bytes, bytes.data(), bytes.size());
        out.emplace_back(key, net.value);
    }
    sort_nets(out);
    return out;
}

Result<SortedNets> read_nets(int map, std::uint8_t table) {
    SortedNets out;
    tr_net_key key, next;
    bool first = true;
    while (::bpf_map_get_next_key(map, first ? nullptr : &key, &next) == 0) {
        first = false;
        key = next;
        if (key.scope.table != table) continue;
        tr_address value;
        if (::bpf_map_lookup_elem(map, &key, &value) != 0) return Error::from_errno(errno, "read map tr_nets");
        out.emplace_back(key, value);
    }
    if (errno != ENOENT) return Error::from_errno(errno, "list map tr_nets");
    sort_nets(out);
    return out;
}

Result<NetChanges> change_nets(int map, const SortedNets& present, const SortedNets& wanted) {
    SortedNets changed;
    NetChanges changes;
    auto remove = [&](const tr_net_key& key) -> Result<void> {
        if (::bpf_map_delete_elem(map, &key) != 0 && errno != ENOENT)
            return Error::from_errno(errno, "remove a prefix from map tr_nets");
        ++changes.removed;
        return {};
    };
    auto old = present.begin();
    for (const auto& entry : wanted) {
        for (; old != present.end() && compare(old->first, entry.first) < 0; ++old)
            if (auto removed = remove(old->first); !removed) return removed.error();
        bool same_key = old != present.end() && compare(old->first, entry.first) == 0;
        if (!same_key || std::memcmp(&old->second, &entry.second, sizeof(tr_address)) != 0) changed.push_back(entry);
        if (same_key) ++old;
    }
    for (; old != present.end(); ++old)
        if (auto removed = remove(old->first); !removed) return removed.error();
    // Only now, so that the map never holds more than it must.
    if (auto written = write_all(map, changed); !written) return written.error();
    changes.written = changed.size();

    // Read some back: all of a small change, a sample of a large one.
    for (std::size_t i = 0; i < changed.size(); i += changed.size() / 1024 + 1) {
        tr_address found;
        if (::bpf_map_lookup_elem(map, &changed[i].first, &found) != 0)
            return Error::from_errno(errno, "read back map tr_nets");
        if (std::memcmp(&found, &changed[i].second, sizeof found) != 0)
            return Error::make("map tr_nets does not hold what was written to it: does somebody else write?");
    }
    return changes;
}

} // namespace tailrace
