#include "agent/dataplane/dataplane.hpp"

#include "agent/dataplane/other_schemas.hpp"
#include "agent/dataplane/programs.hpp"
#include "agent/dataplane/translator.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include <cerrno>

namespace tailrace {
namespace {

constexpr const char* kPolicyPin = "policy";
constexpr const char* kEgressPin = "egress";
constexpr const char* kPolicyLink = "policy_link";
constexpr const char* kEgressLink = "egress_link";

Hook policy_hook(unsigned interface_index) {
    return {interface_index, HookDirection::Ingress, kPolicyLink};
}
Hook egress_hook(unsigned interface_index) {
    return {interface_index, HookDirection::Egress, kEgressLink};
}

bool is_ours(const std::string& pin) {
    return pin.starts_with("tr_") || pin == kPolicyPin || pin == kEgressPin || pin == kPolicyLink || pin == kEgressLink;
}

/// Everything of the directory but the pins of the steering. Links go first: after them nothing uses the rest.
Result<void> forget_pins(const PinDirectory& pins, unsigned interface_index) {
    if (auto gone = detach(pins, policy_hook(interface_index)); !gone) return gone;
    if (auto gone = detach(pins, egress_hook(interface_index)); !gone) return gone;
    auto names = pins.names();
    if (!names) return names.error();
    for (const std::string& name : *names)
        if (is_ours(name))
            if (auto gone = pins.unpin(name); !gone) return gone;
    return {};
}

/// All of it; the names belong to the schema. A link that is pinned nowhere else is detached by this.
Result<void> forget_schema(const PinDirectory& pins) {
    if (auto gone = pins.unpin_all(); !gone) return gone;
    pins.remove_if_empty();
    return {};
}

/// Is what is pinned here at work on this very device? If not it is left over from a device that is gone, maybe of
/// another network namespace, and says nothing about ours.
Result<bool> is_at_work(const PinDirectory& pins, unsigned interface_index) {
    for (const auto& [pin, hook] :
         {std::pair{kPolicyPin, policy_hook(interface_index)}, std::pair{kEgressPin, egress_hook(interface_index)}}) {
        auto program = pins.find(pin);
        if (!program) return program.error();
        if (!*program) return false;
        auto attached = look_attached(pins, hook, program->get());
        if (!attached || !*attached) return attached;
    }
    return true;
}

ProgramOptions program_options(const DataplaneOptions& options, const PinDirectory& pins) {
    return {0,
            {{"tr_hosts", options.hosts},
             {"tr_nets", options.nets},
             {"tr_pairs", options.pairs},
             {"tr_rows", options.rows},
             {"tr_flows", options.flows}},
            &pins};
}

/// Maps of another configuration, which programs of this one cannot use.
Result<bool> has_other_sizes(const PinDirectory& pins, const std::map<std::string, std::uint32_t>& sizes) {
    for (const auto& [name, entries] : sizes) {
        auto map = pins.find(name);
        if (!map) return map.error();
        if (!*map) continue;
        bpf_map_info info{};
        std::uint32_t bytes = sizeof info;
        if (::bpf_obj_get_info_by_fd(map->get(), &info, &bytes) != 0)
            return Error::from_errno(errno, "ask for the size of map {}", name);
        if (info.max_entries != entries) return true;
    }
    return false;
}

/// The pinned program when it is the same as the one that this agent brings; else that one, pinned in its place.
Result<Fd> keep_or_replace(const PinDirectory& pins, const char* name, Fd loaded, int map) {
    auto pinned = pins.find(name);
    if (!pinned) return pinned;
    if (*pinned) {
        auto same = is_same_program(pinned->get(), loaded.get());
        if (!same) return same.error();
        auto uses = uses_map(pinned->get(), map);
        if (!uses) return uses.error();
        if (*same && *uses) return pinned;
    }
    if (auto done = pins.pin(loaded.get(), name); !done) return done.error();
    return loaded;
}

/// A value of a per-CPU map, as each processor has it.
template <typename Value>
Result<std::vector<Value>> read_of_cpus(int map, std::uint32_t index) {
    std::vector<Value> of_cpus(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
    if (::bpf_map_lookup_elem(map, &index, of_cpus.data()) != 0)
        return Error::from_errno(errno, "read a packet counter");
    return of_cpus;
}

void add(tr_counter& total, const tr_counter& one) {
    total.packets += one.packets;
    total.bytes += one.bytes;
}

} // namespace

Result<Dataplane> Dataplane::open(const std::string& device, const DataplaneOptions& options) {
    unsigned interface_index = ::if_nametoindex(device.c_str());
    if (!interface_index) return Error::from_errno(errno, "filter the packets of {}", device);
    if (auto newest = refuse_newer_schema(options.bpffs, device, options.schema); !newest) return newest.error();
    auto pins = PinDirectory::open(options.bpffs, device, options.schema);
    if (!pins) return pins.error().with("filter the packets of {}", device);
    auto others = find_other_schemas(options.bpffs, device, *pins, interface_index);
    if (!others) return others.error().with("filter the packets of {}", device);
    for (const PinDirectory& left_over : others->idle)
        if (auto gone = forget_schema(left_over); !gone) return gone.error().with("filter the packets of {}", device);

    auto at_work = is_at_work(*pins, interface_index);
    if (!at_work) return at_work.error().with("filter the packets of {}", device);
    bool adopting = *at_work, shares_flows = false;
    auto forgotten = others->older.empty() && !adopting ? forget_pins(*pins, interface_index) : Result<void>{};
    if (!others->older.empty()) {
        auto involved = is_involved(*pins, interface_index, others->attached);
        if (!involved) return involved.error().with("filter the packets of {}", device);
        if (!*involved) {
            forgotten = pins->unpin_all(); // what an agent left that was killed before it put a policy in force
            auto shared = forgotten ? share_flows(others->older.front(), *pins, options.flows) : Result<bool>{false};
            if (!shared) forgotten = shared.error();
            shares_flows = shared && *shared;
        }
    }
    if (!forgotten) return forgotten.error().with("filter the packets of {}", device);

    auto loaded = load_packet_programs(program_options(options, *pins));
    Result<bool> other_sizes =
        !loaded && adopting ? has_other_sizes(*pins, program_options(options, *pins).map_sizes) : Result<bool>{false};
    if (!other_sizes) return other_sizes.error().with("filter the packets of {}", device);
    if (*other_sizes) { // start over. The new programs drop until the first commit.
        auto names = pins->names();
        if (!names) return names.error().with("filter the packets of {}", device);
        for (const std::string& name : *names)
            if (name.starts_with("tr_")) (void)pins->unpin(name); // a failure shows when the new map is pinned
        adopting = false;
        loaded = load_packet_programs(program_options(options, *pins));
        if (loaded) {
            (void)pins->unpin(kPolicyPin); // they read the old maps
            (void)pins->unpin(kEgressPin);
        }
    }
    if (!loaded) return loaded.error().with("filter the packets of {}", device);

    auto maps = loaded->table_maps();
    if (!maps) return maps.error();
    auto writer = TableWriter::create(std::move(*maps));
    if (!writer) return writer.error();
    auto packet_watch = PacketWatch::create(loaded->maps);
    if (!packet_watch) return packet_watch.error();
    Dataplane out{std::move(*pins), std::move(*writer), std::move(*packet_watch)};
    out.older_ = std::move(others->older);
    out.shares_flows_ = shares_flows;
    if (shares_flows) {
        auto before = settings_in_force(out.older_.front());
        if (!before) return before.error().with("filter the packets of {}", device);
        if (*before) out.writer_.continue_from(**before);
    }
    int live = loaded->maps.at("tr_live").get();
    auto policy = keep_or_replace(out.pins_, kPolicyPin, std::move(loaded->policy), live);
    if (!policy) return policy.error();
    auto egress = keep_or_replace(out.pins_, kEgressPin, std::move(loaded->egress), live);
    if (!egress) return egress.error();
    out.device_ = device;
    out.bpffs_ = options.bpffs;
    out.policy_ = std::move(*policy);
    out.egress_ = std::move(*egress);
    out.maps_ = std::move(loaded->maps);
    out.wanted_method_ = options.attach;
    out.adopted_ = adopting;
    if (auto attached = out.keep_attached(); !attached) return attached.error();
    return out;
}

Result<void> Dataplane::remove(const std::string& device, const DataplaneOptions& options) {
    auto pins = PinDirectory::open(options.bpffs, device, options.schema);
    if (!pins) return pins.error();
    if (auto gone = forget_pins(*pins, ::if_nametoindex(device.c_str())); !gone)
        return gone.error().with("take the packet filter from {}", device);
    pins->remove_if_empty();
    auto others = PinDirectory::others(options.bpffs, device, options.schema);
    if (!others) return others.error().with("take the packet filter from {}", device);
    for (const PinDirectory& other : *others)
        if (auto gone = forget_schema(other); !gone) return gone.error().with("take the packet filter from {}", device);
    return {};
}

Result<CommitReport> Dataplane::commit(const PolicyTables& tables) {
    auto report = writer_.commit(tables);
    if (report) committed_ = true;
    return report;
}

std::optional<unsigned> Dataplane::older_schema() const {
    return older_.empty() ? std::nullopt : std::optional{older_.front().schema()};
}

/// Not when somebody took them away: then ours drop everything until the commit.
Result<bool> Dataplane::is_turn_of_older(unsigned interface_index) const {
    if (older_.empty() || committed_) return false;
    auto attached = programs_on(interface_index, older_);
    if (!attached) return attached.error();
    return is_involved(older_.front(), interface_index, *attached);
}

bool Dataplane::is_attached() const {
    unsigned interface_index = ::if_nametoindex(device_.c_str());
    if (!interface_index) return false;
    if (auto theirs = is_turn_of_older(interface_index); theirs && *theirs) return true;
    return older_.empty() && tailrace::is_attached(pins_, policy_hook(interface_index), policy_.get()) &&
           tailrace::is_attached(pins_, egress_hook(interface_index), egress_.get());
}

Result<void> Dataplane::keep_attached() {
    unsigned interface_index = ::if_nametoindex(device_.c_str());
    if (!interface_index) return Error::from_errno(errno, "filter the packets of {}", device_);
    auto theirs = is_turn_of_older(interface_index);
    if (!theirs) return theirs.error().with("filter the packets of {}", device_);
    if (*theirs) return {};
    // The memory for replies first: from the first packet that may come in, what we sent is known.
    for (const auto& [hook, program] : {std::pair{egress_hook(interface_index), egress_.get()},
                                        std::pair{policy_hook(interface_index), policy_.get()}}) {
        auto is_there = look_attached(pins_, hook, program);
        if (!is_there) return is_there.error().with("filter the packets of {}", device_);
        if (*is_there) {
            method_ = pins_.get(hook.pin) ? AttachMethod::Tcx : AttachMethod::Clsact;
            continue;
        }
        if (hook.direction == HookDirection::Egress)
            if (auto aside = Translator::step_aside(device_, {bpffs_, wanted_method_, pins_.schema()}); !aside)
                return aside.error().with("filter the packets of {}", device_);
        auto attached = attach(pins_, hook, program, wanted_method_, older_);
        if (!attached) return attached.error().with("filter the packets of {}", device_);
        method_ = *attached;
    }
    for (const PinDirectory& older : older_)
        if (auto gone = forget_schema(older); !gone)
            return gone.error().with("forget the older packet programs of {}", device_);
    older_.clear();
    return {};
}

Result<PacketAnswer> Dataplane::ask(const PacketQuestion& question) {
    if (!question_) {
        auto loaded = load_question(maps_);
        if (!loaded) return loaded.error();
        question_ = std::move(*loaded);
    }
    return ask_program(question_.get(), question_packet(question));
}

Result<void> Dataplane::watch(Duration events, Duration counts) {
    if (auto wanted = packet_watch_.want(events, counts); !wanted) return wanted.error();
    return writer_.set_watched(events.count() > 0 || counts.count() > 0);
}

Result<std::vector<ReasonCount>> Dataplane::reasons() const {
    std::vector<ReasonCount> out;
    for (std::uint32_t reason = 0; reason < TR_REASON_COUNT; ++reason) {
        auto of_cpus = read_of_cpus<tr_counter>(maps_.at("tr_reasons").get(), reason);
        if (!of_cpus) return of_cpus.error();
        tr_counter total{};
        for (const tr_counter& one : *of_cpus) add(total, one);
        out.push_back({std::string{reason_name(tr_reason(reason))}, reason_passes(tr_reason(reason)), total});
    }
    return out;
}

Result<std::map<std::uint32_t, tr_counter>> Dataplane::rule_hits() const {
    std::map<std::uint32_t, tr_counter> out;
    for (std::uint32_t first = 0; first < TR_COUNTED_RULES; first += TR_RULES_A_VALUE) {
        auto of_cpus = read_of_cpus<tr_rule_hits>(maps_.at("tr_rule_hits").get(), first / TR_RULES_A_VALUE);
        if (!of_cpus) return of_cpus.error();
        for (std::uint32_t i = 0; i < TR_RULES_A_VALUE; ++i) {
            tr_counter total{};
            for (const tr_rule_hits& hits : *of_cpus) add(total, hits.of[i]);
            if (total.packets) out.emplace(first + i, total);
        }
    }
    return out;
}

} // namespace tailrace
