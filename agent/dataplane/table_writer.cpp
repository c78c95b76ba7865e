#include "agent/dataplane/table_writer.hpp"

#include "bpf/shared/flow_map.h"

#include <bpf/bpf.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

template <typename Key>
int compare(const Key& a, const Key& b) {
    static_assert(std::has_unique_object_representations_v<Key>,
                  "keys are compared as the kernel does, by their bytes");
    return std::memcmp(&a, &b, sizeof(Key));
}

template <typename Key, typename Value>
void sort_entries(std::vector<std::pair<Key, Value>>& entries) {
    auto before = [](const auto& a, const auto& b) { return compare(a.first, b.first) < 0; };
    if (!std::is_sorted(entries.begin(), entries.end(), before)) std::sort(entries.begin(), entries.end(), before);
}

std::uint8_t table_of(const tr_host_key& key) {
    return key.scope.table;
}
std::uint8_t table_of(const tr_net_key& key) {
    return key.host.scope.table;
}
std::uint8_t table_of(const tr_pair_key& key) {
    return static_cast<std::uint8_t>(key.table);
}
std::uint8_t table_of(const tr_row_key& key) {
    return key.table;
}

tr_host_key host_key(const PolicyTables::Address& address, std::uint8_t table) {
    tr_host_key key{};
    key.scope.table = table;
    key.scope.side = address.side;
    key.scope.family = address.prefix.address().is_v4() ? 4 : 6;
    auto bytes = address.prefix.address().bytes();
    std::memcpy(key.addr.bytes, bytes.data(), bytes.size());
    return key;
}

/// Elements come from per-CPU caches that refill behind our back: a long run of new entries can be too fast for them.
int update_patiently(int map, const void* key, const void* value) {
    for (int tries = 0;; ++tries) {
        if (::bpf_map_update_elem(map, key, value, BPF_ANY) == 0) return 0;
        if (errno != ENOMEM || tries == 200) return errno;
        timespec pause{0, 2'000'000};
        ::nanosleep(&pause, nullptr);
    }
}

template <typename Key, typename Value>
Result<void> apply(int map, const char* name, const std::vector<std::pair<Key, Value>>& wanted,
                   const std::vector<std::pair<Key, Value>>& present, CommitReport& report) {
    std::vector<const std::pair<Key, Value>*> changed;
    auto old = present.begin();
    for (const auto& entry : wanted) {
        int order = 1;
        while (old != present.end() && (order = compare(old->first, entry.first)) < 0) {
            if (::bpf_map_delete_elem(map, &old->first) != 0 && errno != ENOENT)
                return Error::from_errno(errno, "remove an entry from map {}", name);
            ++report.removed;
            ++old;
        }
        bool same_key = old != present.end() && order == 0;
        if (!same_key || std::memcmp(&old->second, &entry.second, sizeof(Value)) != 0) changed.push_back(&entry);
        if (same_key) ++old;
    }
    for (; old != present.end(); ++old) {
        if (::bpf_map_delete_elem(map, &old->first) != 0 && errno != ENOENT)
            return Error::from_errno(errno, "remove an entry from map {}", name);
        ++report.removed;
    }
    // Only now, so that the map never holds more than it must.
    for (const auto* entry : changed)
        if (int failed = update_patiently(map, &entry->first, &entry->second))
            return Error::from_errno(failed, "write an entry to map {} ({} of {} written)", name, report.written,
                                     changed.size());
        else
            ++report.written;

    // Read some back: all of a small change, a sample of a large one.
    std::size_t step = changed.size() / 1024 + 1;
    for (std::size_t i = 0; i < changed.size(); i += step) {
        Value found;
        if (::bpf_map_lookup_elem(map, &changed[i]->first, &found) != 0)
            return Error::from_errno(errno, "read back map {}", name);
        if (std::memcmp(&found, &changed[i]->second, sizeof(Value)) != 0)
            return Error::make("map {} does not hold what was written to it: does somebody else write?", name);
    }
    return {};
}

template <typename Key, typename Value>
Result<void> read_entries(int map, const char* name, std::uint8_t table, std::vector<std::pair<Key, Value>>& out) {
    Key key, next;
    bool first = true;
    while (::bpf_map_get_next_key(map, first ? nullptr : &key, &next) == 0) {
        first = false;
        key = next;
        Value value;
        if (table_of(key) != table) continue;
        if (::bpf_map_lookup_elem(map, &key, &value) != 0) return Error::from_errno(errno, "read map {}", name);
        out.emplace_back(key, value);
    }
    if (errno != ENOENT) return Error::from_errno(errno, "list map {}", name);
    sort_entries(out);
    return {};
}

} // namespace

TableWriter::Contents TableWriter::lay_out(const PolicyTables& tables, std::uint8_t table) {
    Contents out;
    out.known = true;
    out.hosts.reserve(tables.hosts.size());
    for (const auto& host : tables.hosts) out.hosts.emplace_back(host_key(host, table), host.value);
    for (const auto& net : tables.nets)
        out.nets.emplace_back(tr_net_key{32 + static_cast<std::uint32_t>(net.prefix.bits()), host_key(net, table)},
                              net.value);
    out.pairs.reserve(tables.pairs.size());
    for (const auto& pair : tables.pairs)
        out.pairs.emplace_back(tr_pair_key{table, pair.src_class, pair.dst_class}, pair.value);
    out.rows.reserve(tables.rows.size());
    for (const auto& row : tables.rows)
        out.rows.emplace_back(tr_row_key{row.rule_set, row.port_class, row.ip_proto, table}, row.rule);
    out.ports = tables.ports;
    sort_entries(out.hosts);
    sort_entries(out.nets);
    sort_entries(out.pairs);
    sort_entries(out.rows);
    return out;
}

Result<TableWriter::Contents> TableWriter::read_back(std::uint8_t table) const {
    Contents out;
    if (auto read = read_entries(maps_.hosts.get(), "tr_hosts", table, out.hosts); !read) return read.error();
    if (auto read = read_entries(maps_.nets.get(), "tr_nets", table, out.nets); !read) return read.error();
    if (auto read = read_entries(maps_.pairs.get(), "tr_pairs", table, out.pairs); !read) return read.error();
    if (auto read = read_entries(maps_.rows.get(), "tr_rows", table, out.rows); !read) return read.error();
    auto ports = std::make_shared<tr_port_classes>();
    std::uint32_t index = table;
    if (::bpf_map_lookup_elem(maps_.ports.get(), &index, ports.get()) != 0)
        return Error::from_errno(errno, "read map tr_ports");
    out.ports = std::move(ports);
    out.known = true;
    return out;
}

Result<TableWriter> TableWriter::create(TableMaps maps) {
    TableWriter writer{std::move(maps)};
    std::uint32_t zero = 0;
    if (::bpf_map_lookup_elem(writer.maps_.live.get(), &zero, &writer.live_) != 0)
        return Error::from_errno(errno, "read map tr_live");
    if (writer.live_ >= TR_TABLES) return Error::make("map tr_live names table {}, which does not exist", writer.live_);
    if (writer.live_ != TR_TABLE_NONE &&
        ::bpf_map_lookup_elem(writer.maps_.settings.get(), &writer.live_, &writer.in_force_) != 0)
        return Error::from_errno(errno, "read map tr_settings");

    // Writing to a map of maps returns only after a grace period. It need not have anything to do with our programs.
    writer.grace_inner_ = Fd{::bpf_map_create(BPF_MAP_TYPE_ARRAY, "tr_grace_inner", 4, 4, 1, nullptr)};
    if (!writer.grace_inner_) return Error::from_errno(errno, "create map tr_grace_inner");
    bpf_map_create_opts options{};
    options.sz = sizeof options;
    options.inner_map_fd = static_cast<std::uint32_t>(writer.grace_inner_.get());
    writer.grace_outer_ = Fd{::bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "tr_grace", 4, 4, 1, &options)};
    if (!writer.grace_outer_) return Error::from_errno(errno, "create map tr_grace");
    return writer;
}

Result<void> TableWriter::wait_for_readers() {
    if (!readers_may_linger_) return {};
    std::uint32_t zero = 0;
    int inner = grace_inner_.get();
    if (::bpf_map_update_elem(grace_outer_.get(), &zero, &inner, BPF_ANY) != 0)
        return Error::from_errno(errno, "wait for packets that read the retired policy");
    readers_may_linger_ = false;
    return {};
}

Result<void> TableWriter::bring_to(const Contents& wanted, const Contents& present, std::uint8_t table,
                                   CommitReport& report) {
    std::uint32_t index = table;
    if (auto done = apply(maps_.hosts.get(), "tr_hosts", wanted.hosts, present.hosts, report); !done) return done;
    if (auto done = apply(maps_.nets.get(), "tr_nets", wanted.nets, present.nets, report); !done) return done;
    if (auto done = apply(maps_.pairs.get(), "tr_pairs", wanted.pairs, present.pairs, report); !done) return done;
    if (auto done = apply(maps_.rows.get(), "tr_rows", wanted.rows, present.rows, report); !done) return done;
    bool same_ports = wanted.ports == present.ports ||
                      std::memcmp(wanted.ports.get(), present.ports.get(), sizeof(tr_port_classes)) == 0;
    if (!same_ports && ::bpf_map_update_elem(maps_.ports.get(), &index, wanted.ports.get(), BPF_ANY) != 0)
        return Error::from_errno(errno, "write map tr_ports");
    return {};
}

Result<CommitReport> TableWriter::commit(const PolicyTables& tables) {
    if (auto waited = wait_for_readers(); !waited) return waited.error();
    auto started = std::chrono::steady_clock::now();
    std::uint32_t idle = live_ == TR_TABLE_A ? TR_TABLE_B : TR_TABLE_A;
    auto table = static_cast<std::uint8_t>(idle);
    if (!present_[idle].known) {
        auto found = read_back(table);
        if (!found) return found.error();
        present_[idle] = std::move(*found);
    }

    CommitReport report;
    Contents wanted = lay_out(tables, table);
    present_[idle].known = false; // until all is written
    if (auto brought = bring_to(wanted, present_[idle], table, report); !brought) return brought.error();
    present_[idle] = std::move(wanted);

    tr_settings settings = tables.settings;
    settings.serial = in_force_.serial + 1;
    settings.lineage = in_force_.lineage;
    bool shields_go_up = (settings.flags & TR_SETTING_SHIELDS_UP) && !(in_force_.flags & TR_SETTING_SHIELDS_UP);
    if (shields_go_up) settings.lineage = static_cast<std::uint16_t>((settings.lineage + 1) % TR_LINEAGE_JAILED);
    if (::bpf_map_update_elem(maps_.settings.get(), &idle, &settings, BPF_ANY) != 0)
        return Error::from_errno(errno, "write map tr_settings");

    std::uint32_t zero = 0;
    if (::bpf_map_update_elem(maps_.live.get(), &zero, &idle, BPF_ANY) != 0)
        return Error::from_errno(errno, "switch to the new policy");
    live_ = idle;
    in_force_ = settings;
    readers_may_linger_ = true;
    report.serial = settings.serial;
    report.entries = present_[idle].size();
    report.took = std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - started);
    return report;
}

} // namespace tailrace
