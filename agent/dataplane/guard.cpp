#include "agent/dataplane/guard.hpp"

#include "agent/dataplane/local_addresses.hpp"
#include "agent/dataplane/programs.hpp"
#include "agent/dataplane/xdp_link.hpp"
#include "base/text.hpp"
#include "bpf/guard.skel.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace tailrace {
namespace {

constexpr const char* kProgramPin = "guard";
constexpr const char* kLinkPrefix = "guard_link_";
constexpr const char* kMaps[] = {"tr_guard_cfg", "tr_guard_local", "tr_guard_peers", "tr_guard_budget",
                                 "tr_guard_count"};

/// Beside the filter's directory, so that either may go without the other.
std::string guard_pins_of(const std::string& device) {
    return device + "-guard";
}

XdpHook hook_on(unsigned interface_index) {
    return {interface_index, fmt::format("{}{}", kLinkPrefix, interface_index)};
}

tr_guard_key key_of(const Endpoint& endpoint) {
    tr_guard_key key{};
    std::memcpy(key.addr.bytes, endpoint.address.bytes().data(), endpoint.address.bytes().size());
    key.port = htons(endpoint.port);
    key.family = endpoint.address.is_v4() ? 4 : 6;
    return key;
}

Endpoint endpoint_of(const tr_guard_key& key) {
    auto bytes = std::as_bytes(std::span{key.addr.bytes}).first(key.family == 4 ? 4 : 16);
    return {IpAddress::from_bytes(bytes), ntohs(key.port)};
}

Result<std::vector<unsigned>> linked(const PinDirectory& pins) {
    auto names = pins.names();
    if (!names) return names.error();
    std::vector<unsigned> found;
    for (const std::string& name : *names)
        if (name.starts_with(kLinkPrefix))
            if (auto index = parse_number<unsigned>(name.substr(std::strlen(kLinkPrefix)))) found.push_back(*index);
    return found;
}

/// The pin of a link is all that holds it, and with it the program on an interface.
Result<void> take_away(const PinDirectory& pins) {
    if (auto gone = pins.unpin_all(); !gone) return gone;
    pins.remove_if_empty();
    return {};
}

bool exists(unsigned interface_index) {
    char name[IF_NAMESIZE];
    return ::if_indextoname(interface_index, name) != nullptr;
}

std::string why(const Error& error) {
    switch (error.code()) {
    case EBUSY:
    case EEXIST:
        return "another XDP program is there";
    case EOPNOTSUPP:
        return "its driver takes no XDP programs";
    default:
        return error.message();
    }
}

} // namespace

Result<Guard> Guard::open(const std::string& device, const GuardOptions& options) {
    auto pins = PinDirectory::open(options.bpffs, guard_pins_of(device), options.schema);
    if (!pins) return pins.error();
    Guard out{std::move(*pins)};
    auto others = PinDirectory::others(options.bpffs, guard_pins_of(device), options.schema);
    if (!others) return others.error();
    out.others_ = std::move(*others);

    LibbpfComplaints complaints;
    std::unique_ptr<tr_guard_object, void (*)(tr_guard_object*)> object{tr_guard_object__open(),
                                                                        &tr_guard_object__destroy};
    if (!object) return Error::from_errno(errno, "open the guard{}", complaints.text());
    for (const char* name : kMaps)
        if (bpf_map* map = ::bpf_object__find_map_by_name(object->obj, name))
            ::bpf_map__set_pin_path(map, out.pins_.path_of(name).c_str());
    if (int failed = tr_guard_object__load(object.get()))
        return Error::from_errno(-failed, "load the guard{}", complaints.text());

    out.config_ = duplicate(::bpf_map__fd(object->maps.tr_guard_cfg));
    out.local_ = duplicate(::bpf_map__fd(object->maps.tr_guard_local));
    out.peers_ = duplicate(::bpf_map__fd(object->maps.tr_guard_peers));
    out.count_ = duplicate(::bpf_map__fd(object->maps.tr_guard_count));
    int loaded = ::bpf_program__fd(object->progs.tr_guard);
    auto pinned = out.pins_.find(kProgramPin);
    if (!pinned) return pinned.error();
    out.program_ = std::move(*pinned);
    auto same = out.program_ ? is_same_program(out.program_.get(), loaded) : Result<bool>{false};
    if (!same) return same.error();
    if (!*same) {
        out.program_ = duplicate(loaded);
        if (auto done = out.pins_.pin(loaded, kProgramPin); !done) return done.error();
    }
    auto attached = linked(out.pins_);
    if (!attached) return attached.error();
    out.attached_ = std::move(*attached);
    tr_guard_key key{}, next{};
    for (bool first = true; ::bpf_map_get_next_key(out.peers_.get(), first ? nullptr : &key, &next) == 0;
         first = false) {
        out.endpoints_.insert(endpoint_of(next));
        key = next;
    }
    return out;
}

Result<void> Guard::remove(const std::string& device, const GuardOptions& options) {
    auto found = PinDirectory::others(options.bpffs, guard_pins_of(device), options.schema);
    if (!found) return found.error().with("take the guard away");
    found->push_back(PinDirectory::named(options.bpffs, guard_pins_of(device), options.schema));
    for (const PinDirectory& pins : *found)
        if (auto gone = take_away(pins); !gone) return gone.error().with("take the guard away");
    return {};
}

Result<void> Guard::set_port(std::uint16_t wireguard, const GuardBudget& budget) {
    constexpr std::uint64_t kSecond = 1'000'000'000;
    if (budget.per_second == 0 || budget.burst == 0) return Error::make("a budget of nothing would let no peer in");
    tr_guard_config config{};
    config.wireguard_port = htons(wireguard);
    config.interval_ns = std::max<std::uint64_t>(1, kSecond / budget.per_second);
    config.tolerance_ns = (budget.burst - 1) * config.interval_ns;
    std::uint32_t zero = 0;
    if (::bpf_map_update_elem(config_.get(), &zero, &config, BPF_ANY) != 0)
        return Error::from_errno(errno, "tell the guard its port");
    return {};
}

Result<void> Guard::set_local_addresses(const std::vector<IpAddress>& addresses) {
    return write_local_addresses(local_.get(), addresses);
}

Result<std::size_t> Guard::set_endpoints(const std::vector<Endpoint>& endpoints) {
    std::set<Endpoint> wanted{endpoints.begin(), endpoints.end()};
    for (auto old = endpoints_.begin(); old != endpoints_.end();) {
        if (wanted.contains(*old)) {
            ++old;
            continue;
        }
        tr_guard_key key = key_of(*old);
        if (::bpf_map_delete_elem(peers_.get(), &key) != 0 && errno != ENOENT)
            return Error::from_errno(errno, "tell the guard that {} is nobody's endpoint any more", old->text());
        old = endpoints_.erase(old);
    }
    std::size_t left_out = 0;
    for (const Endpoint& endpoint : wanted) {
        auto added = add_endpoint(endpoint);
        if (!added && added.error().code() != E2BIG) return added.error();
        left_out += !added;
    }
    return left_out;
}

Result<void> Guard::add_endpoint(const Endpoint& endpoint) {
    if (!endpoint.valid() || endpoints_.contains(endpoint)) return {};
    tr_guard_key key = key_of(endpoint);
    std::uint32_t one = 1;
    if (::bpf_map_update_elem(peers_.get(), &key, &one, BPF_ANY) != 0)
        return Error::from_errno(errno, "tell the guard of endpoint {}", endpoint.text());
    endpoints_.insert(endpoint);
    return {};
}

Result<std::vector<Guard::Refusal>> Guard::set_interfaces(const std::vector<std::string>& names) {
    std::map<unsigned, std::string> wanted;
    for (const std::string& name : names)
        if (unsigned index = ::if_nametoindex(name.c_str())) wanted[index] = name;
    for (unsigned index : attached_)
        if (!wanted.contains(index))
            if (auto gone = pins_.unpin(hook_on(index).pin); !gone) return gone.error();
    attached_.clear();
    std::vector<Refusal> refusals;
    for (const auto& [index, name] : wanted) {
        auto attached = attach_xdp(pins_, hook_on(index), program_.get(), others_);
        if (attached)
            attached_.push_back(index);
        else if (exists(index))
            refusals.push_back({name, why(attached.error())});
    }
    for (const PinDirectory& other : others_)
        if (auto gone = take_away(other); !gone) return gone.error();
    others_.clear();
    return refusals;
}

bool Guard::is_in_place() const {
    return std::ranges::all_of(attached_, [&](unsigned index) {
        return !exists(index) || is_attached_xdp(pins_, hook_on(index), program_.get());
    });
}

Result<std::vector<GuardCount>> Guard::counts() const {
    constexpr struct {
        const char* name;
        bool passes;
    } kVerdicts[] = {
#define X(symbol, name, passes) {name, passes},
        TR_GUARD_VERDICTS(X)
#undef X
    };
    std::vector<tr_counter> of_cpus(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
    std::vector<GuardCount> out;
    for (std::uint32_t verdict = 0; verdict < TR_GUARD_VERDICT_COUNT; ++verdict) {
        if (::bpf_map_lookup_elem(count_.get(), &verdict, of_cpus.data()) != 0)
            return Error::from_errno(errno, "read the guard's counters");
        GuardCount& sum = out.emplace_back();
        sum.name = kVerdicts[verdict].name;
        sum.passes = kVerdicts[verdict].passes;
        for (const tr_counter& one : of_cpus) {
            sum.counter.packets += one.packets;
            sum.counter.bytes += one.bytes;
        }
    }
    return out;
}

} // namespace tailrace
