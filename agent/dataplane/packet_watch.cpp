#include "agent/dataplane/packet_watch.hpp"

#include "bpf/shared/flow_map.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <time.h>

#include <cerrno>
#include <utility>

namespace tailrace {
namespace {

/// The clock of bpf_ktime_get_ns().
std::uint64_t kernel_now_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

template <typename Value>
Result<std::vector<Value>> read_of_cpus(const Fd& map, std::uint32_t index, const char* name) {
    std::vector<Value> of_cpus(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
    if (::bpf_map_lookup_elem(map.get(), &index, of_cpus.data()) != 0)
        return Error::from_errno(errno, "read map {}", name);
    return of_cpus;
}

} // namespace

void PacketWatch::RingDeleter::operator()(ring_buffer* ring) const {
    ::ring_buffer__free(ring);
}

Result<PacketWatch> PacketWatch::create(const std::map<std::string, Fd>& maps) {
    PacketWatch out;
    const std::pair<const char*, Fd*> wanted[] = {
        {"tr_watch", &out.watch_},        {"tr_watch_tally", &out.tally_},
        {"tr_flow_counts", &out.counts_}, {"tr_flow_events", &out.flow_events_},
        {"tr_flows", &out.flows_},        {"tr_events", &out.events_}};
    for (auto& [name, fd] : wanted) {
        *fd = Fd{::fcntl(maps.at(name).get(), F_DUPFD_CLOEXEC, 0)};
        if (!*fd) return Error::from_errno(errno, "keep map {}", name);
    }
    return out;
}

Result<void> PacketWatch::want(Duration events, Duration counts) {
    std::uint64_t now = kernel_now_ns();
    auto until = [now](Duration from_now) { return from_now.count() > 0 ? now + std::uint64_t(from_now.count()) : 0; };
    tr_watch wanted{until(events), until(counts)};
    std::uint32_t zero = 0;
    if (::bpf_map_update_elem(watch_.get(), &zero, &wanted, BPF_ANY) != 0)
        return Error::from_errno(errno, "write map tr_watch");
    return {};
}

int PacketWatch::take_record(void* context, void* record, std::size_t bytes) {
    auto& taken = *static_cast<Taken*>(context);
    auto event = parse_packet_event({static_cast<const std::byte*>(record), bytes});
    if (event) taken.events.push_back(*event);
    return ++taken.seen >= taken.most ? -ENOBUFS : 0; // this one is taken all the same, then libbpf stops
}

Result<std::vector<PacketEvent>> PacketWatch::take_events(std::size_t most) {
    if (most == 0) return std::vector<PacketEvent>{};
    if (!ring_) {
        ring_.reset(::ring_buffer__new(events_.get(), &take_record, taken_.get(), nullptr));
        if (!ring_) return Error::from_errno(errno, "open the ring of packet events");
    }
    *taken_ = Taken{{}, most, 0};
    int failed = ::ring_buffer__consume(ring_.get());
    if (failed < 0 && failed != -ENOBUFS) return Error::from_errno(-failed, "read the ring of packet events");
    return std::exchange(taken_->events, {});
}

Result<std::vector<FlowTraffic>> PacketWatch::take_traffic() {
    constexpr std::uint32_t kBatch = 2048;
    std::vector<FlowTraffic> out;
    std::vector<tr_flow_id> keys(kBatch);
    std::vector<tr_flow_count> values(kBatch);
    std::uint32_t from = 0, next = 0; // of the kernel's; a bucket's number
    bpf_map_batch_opts options{};
    options.sz = sizeof options;
    bool more = true;
    for (bool first = true; more && out.size() < TR_COUNTED_FLOWS; first = false) {
        std::uint32_t count = kBatch;
        int failed = ::bpf_map_lookup_and_delete_batch(counts_.get(), first ? nullptr : &from, &next, keys.data(),
                                                       values.data(), &count, &options);
        if (failed && errno != ENOENT) return Error::from_errno(errno, "take the counts of flows");
        more = !failed;
        for (std::uint32_t i = 0; i < count; ++i)
            if (auto flow = to_flow(keys[i])) out.push_back({*flow, values[i]});
        from = next;
    }
    return out;
}

Result<WatchTally> PacketWatch::tally() const {
    auto of_cpus = read_of_cpus<tr_watch_tally>(tally_, 0, "tr_watch_tally");
    if (!of_cpus) return of_cpus.error();
    WatchTally out;
    for (const tr_watch_tally& one : *of_cpus) {
        out.drops_not_sampled += one.not_sampled;
        out.events_lost += one.lost;
        out.packets_uncounted += one.uncounted;
    }
    return out;
}

Result<FlowMemory> PacketWatch::memory() const {
    FlowMemory out;
    for (auto [index, sum] : {std::pair{TR_FLOW_NEW, &out.added}, {TR_FLOW_EVICTED, &out.evicted}}) {
        auto of_cpus = read_of_cpus<std::uint64_t>(flow_events_, index, "tr_flow_events");
        if (!of_cpus) return of_cpus.error();
        for (std::uint64_t one : *of_cpus) *sum += one;
    }
    bpf_map_info info{};
    std::uint32_t bytes = sizeof info;
    if (::bpf_obj_get_info_by_fd(flows_.get(), &info, &bytes) != 0)
        return Error::from_errno(errno, "ask for the size of map tr_flows");
    out.capacity = std::uint64_t{info.max_entries} * TR_FLOW_WAYS;
    return out;
}

} // namespace tailrace
