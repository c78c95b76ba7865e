#include "agent/dataplane/table_writer.hpp"

#include "agent/dataplane/map_window.hpp"
#include "agent/dataplane/net_writer.hpp"
#include "bpf/shared/flow_map.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <span>
#include <tuple>

namespace tailrace {
namespace {

Result<std::uint32_t> size_of(const Fd& map, const char* name) {
    bpf_map_info info{};
    std::uint32_t bytes = sizeof info;
    if (::bpf_obj_get_info_by_fd(map.get(), &info, &bytes) != 0)
        return Error::from_errno(errno, "ask for the size of map {}", name);
    return info.max_entries;
}

/// Into an array map, by one call where the kernel has batches. 0 or the errno.
template <typename Value>
int write_values(int map, std::size_t first, const Value* values, std::size_t count) {
    std::vector<std::uint32_t> keys(count);
    std::iota(keys.begin(), keys.end(), static_cast<std::uint32_t>(first));
    bpf_map_batch_opts options{};
    options.sz = sizeof options;
    auto written = static_cast<std::uint32_t>(count);
    if (::bpf_map_update_batch(map, keys.data(), values, &written, &options) == 0) return 0;
    for (std::size_t i = 0; i < count; ++i)
        if (::bpf_map_update_elem(map, &keys[i], &values[i], BPF_ANY) != 0) return errno;
    return 0;
}

/// Puts an image into the half of a map that belongs to a table, which holds what `known` says, and says what it holds.
template <typename Bucket>
Result<tr_place> write_image(const Fd& map, const char* name, std::uint32_t map_buckets, std::uint32_t table,
                             const ImagePart<Bucket>& image, std::vector<ContentSum>& known, CommitReport& report) {
    constexpr std::size_t kMostByCalls = 16; // blocks; to map many pages takes longer than a few system calls
    std::uint32_t first = table == TR_TABLE_A ? 0 : map_buckets / 2;
    std::vector<ContentSum> held = std::move(known);
    known.clear(); // until all is written
    std::vector<std::size_t> changed;
    for (std::size_t block = 0; block < image.sums.size(); ++block)
        if (block >= held.size() || held[block] != image.sums[block]) changed.push_back(block);

    auto end_of = [&](std::size_t block) { return std::min((block + 1) * image.kBlock, image.buckets.size()); };
    if (changed.size() <= kMostByCalls) {
        for (std::size_t block : changed) {
            std::size_t from = block * image.kBlock, count = end_of(block) - from;
            if (int failed = write_values(map.get(), first + from, &image.buckets[from], count))
                return Error::from_errno(failed, "write map {}", name);
            report.written += count;
        }
    } else {
        auto window =
            MapWindow::open(map.get(), std::size_t{first} * sizeof(Bucket), image.buckets.size() * sizeof(Bucket));
        if (!window) return window.error().with("write map {}", name);
        for (std::size_t block : changed) {
            std::size_t from = block * image.kBlock, count = end_of(block) - from;
            window->write(from * sizeof(Bucket), std::as_bytes(std::span{&image.buckets[from], count}));
            report.written += count;
        }
    }

    // Read some back, as packets will find it.
    for (std::size_t n = 0; n < changed.size(); n += changed.size() / 16 + 1) {
        std::size_t i = changed[n] * image.kBlock;
        auto index = static_cast<std::uint32_t>(first + i);
        Bucket found;
        if (::bpf_map_lookup_elem(map.get(), &index, &found) != 0)
            return Error::from_errno(errno, "read back map {}", name);
        if (std::memcmp(&found, &image.buckets[i], sizeof found) != 0)
            return Error::make("map {} does not hold what was written to it: does somebody else write?", name);
    }
    // A smaller image leaves the rest of a larger one standing, where no packet looks.
    known = image.sums;
    known.insert(known.end(), held.begin() + static_cast<std::ptrdiff_t>(std::min(held.size(), known.size())),
                 held.end());
    return tr_place{first, place_shift(image.buckets.size())};
}

} // namespace

Result<TableWriter> TableWriter::create(TableMaps maps) {
    TableWriter writer{std::move(maps)};
    std::uint32_t zero = 0;
    if (::bpf_map_lookup_elem(writer.maps_.live.get(), &zero, &writer.live_) != 0)
        return Error::from_errno(errno, "read map tr_live");
    if (writer.live_ & TR_LIVE_WATCHED) { // the agent before us died while it watched
        writer.live_ &= ~TR_LIVE_WATCHED;
        if (auto written = writer.write_live(writer.live_, false); !written) return written.error();
    }
    if (writer.live_ >= TR_TABLES) return Error::make("map tr_live names table {}, which does not exist", writer.live_);
    if (writer.live_ != TR_TABLE_NONE &&
        ::bpf_map_lookup_elem(writer.maps_.settings.get(), &writer.live_, &writer.in_force_) != 0)
        return Error::from_errno(errno, "read map tr_settings");
    const std::tuple<const Fd&, const char*, std::uint32_t&> sized[] = {
        {writer.maps_.hosts, "tr_hosts", writer.sizes_.hosts},
        {writer.maps_.nets, "tr_nets", writer.sizes_.nets},
        {writer.maps_.pairs, "tr_pairs", writer.sizes_.pairs},
        {writer.maps_.rows, "tr_rows", writer.sizes_.rows}};
    for (const auto& [map, name, size] : sized) {
        auto found = size_of(map, name);
        if (!found) return found.error();
        size = *found;
    }

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

Result<void> TableWriter::write_live(std::uint32_t table, bool watched) {
    std::uint32_t zero = 0, word = table | (watched ? TR_LIVE_WATCHED : 0);
    if (::bpf_map_update_elem(maps_.live.get(), &zero, &word, BPF_ANY) != 0)
        return Error::from_errno(errno, "write map tr_live");
    return {};
}

Result<void> TableWriter::withdraw() {
    if (live_ == TR_TABLE_NONE) return {};
    if (auto written = write_live(TR_TABLE_NONE, watched_); !written) return written.error();
    live_ = TR_TABLE_NONE;
    readers_may_linger_ = true;
    return {};
}

Result<void> TableWriter::set_watched(bool watched) {
    if (watched == watched_) return {};
    if (auto written = write_live(live_, watched); !written) return written.error();
    watched_ = watched;
    return {};
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

TableLimits TableWriter::limits() const {
    return {entries_in_buckets(sizes_.hosts / 2), sizes_.nets / 2, entries_in_buckets(sizes_.pairs / 2),
            entries_in_buckets(sizes_.rows / 2)};
}

Result<void> TableWriter::write(const PolicyTables& tables, std::uint32_t table, tr_settings& settings,
                                CommitReport& report) {
    const TableImage& image = tables.image;
    Idle& idle = present_[table];
    auto hosts = write_image(maps_.hosts, "tr_hosts", sizes_.hosts, table, image.hosts, idle.hosts, report);
    if (!hosts) return hosts.error();
    auto pairs = write_image(maps_.pairs, "tr_pairs", sizes_.pairs, table, image.pairs, idle.pairs, report);
    if (!pairs) return pairs.error();
    auto rows = write_image(maps_.rows, "tr_rows", sizes_.rows, table, image.rows, idle.rows, report);
    if (!rows) return rows.error();
    settings.hosts = *hosts;
    settings.pairs = *pairs;
    settings.rows = *rows;
    settings.seed = image.seed;

    if (tables.ports_sum != idle.ports) {
        idle.ports = {};
        if (::bpf_map_update_elem(maps_.ports.get(), &table, tables.ports.get(), BPF_ANY) != 0)
            return Error::from_errno(errno, "write map tr_ports");
        idle.ports = tables.ports_sum;
    }

    if (!idle.known) {
        auto found = read_nets(maps_.nets.get(), static_cast<std::uint8_t>(table));
        if (!found) return found.error();
        idle.nets = std::move(*found);
    }
    SortedNets wanted = lay_out_nets(tables.nets, static_cast<std::uint8_t>(table));
    idle.known = false; // until all is written
    auto changes = change_nets(maps_.nets.get(), idle.nets, wanted);
    if (!changes) return changes.error();
    report.written += changes->written;
    report.removed += changes->removed;
    idle.nets = std::move(wanted);
    idle.known = true;
    return {};
}

Result<CommitReport> TableWriter::commit(const PolicyTables& tables) {
    const TableImage& image = tables.image;
    if (image.hosts.buckets.size() > sizes_.hosts / 2 || image.pairs.buckets.size() > sizes_.pairs / 2 ||
        image.rows.buckets.size() > sizes_.rows / 2 || tables.nets.size() > sizes_.nets / 2)
        return Error::from_errno(ENOSPC,
                                 "put {} + {} + {} buckets and {} prefixes of a policy into the {} + {} + {} and {} "
                                 "that the maps have for one",
                                 image.hosts.buckets.size(), image.pairs.buckets.size(), image.rows.buckets.size(),
                                 tables.nets.size(), sizes_.hosts / 2, sizes_.pairs / 2, sizes_.rows / 2,
                                 sizes_.nets / 2);
    if (auto waited = wait_for_readers(); !waited) return waited.error();
    auto started = std::chrono::steady_clock::now();
    std::uint32_t idle = live_ == TR_TABLE_A ? TR_TABLE_B : TR_TABLE_A;

    CommitReport report;
    tr_settings settings = tables.settings;
    if (auto written = write(tables, idle, settings, report); !written) return written.error();
    settings.serial = in_force_.serial + 1;
    settings.lineage = in_force_.lineage;
    bool shields_go_up = (settings.flags & TR_SETTING_SHIELDS_UP) && !(in_force_.flags & TR_SETTING_SHIELDS_UP);
    if (shields_go_up) settings.lineage = static_cast<std::uint16_t>((settings.lineage + 1) % TR_LINEAGE_JAILED);
    if (::bpf_map_update_elem(maps_.settings.get(), &idle, &settings, BPF_ANY) != 0)
        return Error::from_errno(errno, "write map tr_settings");

    std::atomic_thread_fence(std::memory_order_seq_cst); // all of it before the word that tells packets to read it
    if (auto switched = write_live(idle, watched_); !switched) return switched.error().with("switch to the new policy");
    live_ = idle;
    in_force_ = settings;
    readers_may_linger_ = true;
    report.serial = settings.serial;
    report.entries = tables.hosts.size() + tables.nets.size() + tables.pairs.size() + tables.rows.size();
    report.took = std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - started);
    return report;
}

} // namespace tailrace
