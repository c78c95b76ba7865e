#include "agent/dataplane/translator.hpp"

#include "agent/dataplane/programs.hpp"
#include "bpf/via6.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

namespace tailrace {
namespace {

constexpr const char* kInPin = "via_in";
constexpr const char* kOutPin = "via_out";
constexpr std::uint32_t kFilter = 0x7a12;

/// Beside the filter's directory, so that either may go without the other.
std::string translator_pins_of(const std::string& device) {
    return device + "-via6";
}

Hook in_hook(unsigned interface_index) {
    return {interface_index, HookDirection::Ingress, "via_in_link", HookPlace::Last, kFilter};
}
Hook out_hook(unsigned interface_index) {
    return {interface_index, HookDirection::Egress, "via_out_link", HookPlace::First, kFilter};
}

/// Off the device, and forgotten.
Result<void> take_away(const PinDirectory& pins, unsigned interface_index) {
    if (auto gone = detach(pins, in_hook(interface_index)); !gone) return gone;
    if (auto gone = detach(pins, out_hook(interface_index)); !gone) return gone;
    if (auto gone = pins.unpin_all(); !gone) return gone;
    pins.remove_if_empty();
    return {};
}

using Object = std::unique_ptr<tr_via6_object, void (*)(tr_via6_object*)>;

Result<Object> load(const PinDirectory& pins) {
    LibbpfComplaints complaints;
    Object object{tr_via6_object__open(), &tr_via6_object__destroy};
    if (!object) return Error::from_errno(errno, "open the 4via6 programs{}", complaints.text());
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, object->obj) {
        std::string name = ::bpf_map__name(map);
        if (name.starts_with("tr_via_") && name.find('.') == std::string::npos)
            ::bpf_map__set_pin_path(map, pins.path_of(name).c_str());
    }
    if (int failed = tr_via6_object__load(object.get()))
        return Error::from_errno(-failed, "load the 4via6 programs{}", complaints.text());
    return object;
}

/// The pinned program when it is the same as the loaded one; else that one, pinned in its place.
Result<Fd> keep_or_replace(const PinDirectory& pins, const char* name, int loaded, int map) {
    auto pinned = pins.find(name);
    if (!pinned) return pinned;
    if (*pinned) {
        auto same = is_same_program(pinned->get(), loaded);
        if (!same) return same.error();
        auto uses = uses_map(pinned->get(), map);
        if (!uses) return uses.error();
        if (*same && *uses) return pinned;
    }
    Fd kept = duplicate(loaded);
    if (auto done = pins.pin(kept.get(), name); !done) return done.error();
    return kept;
}

/// Makes a map hold exactly this; keys and values as they stand in it.
template <std::size_t KeyBytes>
Result<void> write_all(int map, const std::map<std::array<std::byte, KeyBytes>, std::uint32_t>& wanted) {
    using Key = std::array<std::byte, KeyBytes>;
    std::map<Key, std::uint32_t> present;
    Key key{}, next{};
    for (bool first = true; ::bpf_map_get_next_key(map, first ? nullptr : &key, &next) == 0; first = false) {
        key = next;
        std::uint32_t value = 0;
        if (::bpf_map_lookup_elem(map, &key, &value) == 0) present.emplace(key, value);
    }
    if (errno != ENOENT) return Error::from_errno(errno, "read the table");
    for (const auto& [old, value] : present)
        if (!wanted.contains(old) && ::bpf_map_delete_elem(map, &old) != 0 && errno != ENOENT)
            return Error::from_errno(errno, "forget an entry");
    for (const auto& [fresh, value] : wanted) {
        auto found = present.find(fresh);
        if (found != present.end() && found->second == value) continue;
        if (::bpf_map_update_elem(map, &fresh, &value, BPF_ANY) != 0)
            return Error::from_errno(errno, "write entry {} of {}", present.size(), wanted.size());
    }
    return {};
}

template <typename Key>
std::array<std::byte, sizeof(Key)> bytes_of(const Key& key) {
    std::array<std::byte, sizeof(Key)> out;
    std::memcpy(out.data(), &key, sizeof key);
    return out;
}

tr_addr addr_of(const IpAddress& address) {
    tr_addr out{};
    std::memcpy(out.bytes, address.bytes().data(), address.bytes().size());
    return out;
}

std::uint32_t v4_of(const IpAddress& address) {
    std::uint32_t out = 0; // in network order
    if (address.is_v4()) std::memcpy(&out, address.bytes().data(), sizeof out);
    return out;
}

} // namespace

Result<Translator> Translator::open(const std::string& device, const TranslatorOptions& options) {
    auto pins = PinDirectory::open(options.bpffs, translator_pins_of(device), options.schema);
    if (!pins) return pins.error().with("translate 4via6");
    Translator out{device, std::move(*pins)};
    out.method_ = options.attach;
    auto others = PinDirectory::others(options.bpffs, translator_pins_of(device), options.schema);
    if (!others) return others.error().with("translate 4via6");
    out.others_ = std::move(*others);
    auto left = out.pins_.names();
    if (!left) return left.error().with("translate 4via6");
    auto object = load(out.pins_);
    if (!object && object.error().code() == EINVAL && !left->empty()) {
        // Maps of another layout, of a version before this one: start over, without its flows.
        if (auto gone = take_away(out.pins_, ::if_nametoindex(device.c_str())); !gone) return gone.error();
        if (auto made = PinDirectory::open(options.bpffs, translator_pins_of(device), options.schema); !made)
            return made.error();
        object = load(out.pins_);
    }
    if (!object) return object.error();
    const auto& maps = (*object)->maps;
    out.nets_ = duplicate(::bpf_map__fd(maps.tr_via_nets));
    out.peers_ = duplicate(::bpf_map__fd(maps.tr_via_peers));
    out.self_ = duplicate(::bpf_map__fd(maps.tr_via_self));
    out.counts_ = duplicate(::bpf_map__fd(maps.tr_via_counts));
    const int flows = ::bpf_map__fd(maps.tr_via_flows);
    auto in = keep_or_replace(out.pins_, kInPin, ::bpf_program__fd((*object)->progs.tr_via_in), flows);
    if (!in) return in.error();
    auto way_out = keep_or_replace(out.pins_, kOutPin, ::bpf_program__fd((*object)->progs.tr_via_out), flows);
    if (!way_out) return way_out.error();
    out.in_ = std::move(*in);
    out.out_ = std::move(*way_out);
    return out;
}

Result<void> Translator::remove(const std::string& device, const TranslatorOptions& options) {
    unsigned interface_index = ::if_nametoindex(device.c_str());
    auto others = PinDirectory::others(options.bpffs, translator_pins_of(device), options.schema);
    if (!others) return others.error().with("stop translating 4via6");
    for (const PinDirectory& other : *others)
        if (auto gone = take_away(other, interface_index); !gone) return gone.error().with("stop translating 4via6");
    auto pins = PinDirectory::named(options.bpffs, translator_pins_of(device), options.schema);
    auto gone = take_away(pins, interface_index);
    return gone ? gone : gone.error().with("stop translating 4via6");
}

Result<void> Translator::step_aside(const std::string& device, const TranslatorOptions& options) {
    auto all = PinDirectory::others(options.bpffs, translator_pins_of(device), options.schema);
    if (!all) return all.error();
    all->push_back(PinDirectory::named(options.bpffs, translator_pins_of(device), options.schema));
    for (const PinDirectory& pins : *all)
        if (auto gone = detach(pins, out_hook(::if_nametoindex(device.c_str()))); !gone) return gone;
    return {};
}

Result<void> Translator::set(const ViaTable& table) {
    std::map<std::array<std::byte, sizeof(tr_via_net_key)>, std::uint32_t> nets;
    for (const IpPrefix& net : table.nets)
        nets.emplace(bytes_of(tr_via_net_key{static_cast<__u32>(net.bits()), addr_of(net.first())}), 1);
    if (nets.size() > TR_VIA_NETS)
        return Error::make("{} 4via6 routes are advertised, {} can be translated", nets.size(), int{TR_VIA_NETS});
    std::map<std::array<std::byte, sizeof(tr_addr)>, std::uint32_t> peers;
    for (const auto& [v6, v4] : table.peers) peers.emplace(bytes_of(addr_of(v6)), v4_of(v4));
    if (peers.size() > TR_VIA_PEERS)
        return Error::make("4via6 is translated for {} peers, there are {}", int{TR_VIA_PEERS}, peers.size());
    tr_via_self self{addr_of(table.own6), v4_of(table.own4)};
    std::uint32_t zero = 0;
    if (::bpf_map_update_elem(self_.get(), &zero, &self, BPF_ANY) != 0)
        return Error::from_errno(errno, "write map tr_via_self");
    if (auto done = write_all(peers_.get(), peers); !done) return done.error().with("map tr_via_peers");
    if (auto done = write_all(nets_.get(), nets); !done) return done.error().with("map tr_via_nets");
    return {};
}

bool Translator::is_attached() const {
    unsigned interface_index = ::if_nametoindex(device_.c_str());
    return interface_index && tailrace::is_attached(pins_, in_hook(interface_index), in_.get()) &&
           tailrace::is_attached(pins_, out_hook(interface_index), out_.get());
}

Result<void> Translator::keep_attached() {
    unsigned interface_index = ::if_nametoindex(device_.c_str());
    if (!interface_index) return Error::from_errno(errno, "translate 4via6 on {}", device_);
    // The way back first: no flow begins whose answers would not be known.
    for (const auto& [hook, program] :
         {std::pair{out_hook(interface_index), out_.get()}, std::pair{in_hook(interface_index), in_.get()}}) {
        auto is_there = look_attached(pins_, hook, program);
        if (!is_there) return is_there.error().with("translate 4via6 on {}", device_);
        if (*is_there) continue;
        auto attached = attach(pins_, hook, program, method_, others_);
        if (!attached) return attached.error().with("translate 4via6 on {}", device_);
    }
    for (const PinDirectory& other : others_)
        if (auto gone = take_away(other, 0); !gone) return gone.error().with("translate 4via6 on {}", device_);
    others_.clear();
    return {};
}

Result<std::vector<TranslatorCount>> Translator::counts() const {
    std::vector<TranslatorCount> out = {
#define X(symbol, name, passes) {name, passes != 0, {}},
        TR_VIA_REASONS(X)
#undef X
    };
    std::vector<tr_counter> of_cpus(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
    for (std::uint32_t reason = 0; reason < out.size(); ++reason) {
        if (::bpf_map_lookup_elem(counts_.get(), &reason, of_cpus.data()) != 0)
            return Error::from_errno(errno, "read the counters of 4via6");
        for (const tr_counter& one : of_cpus) {
            out[reason].counter.packets += one.packets;
            out[reason].counter.bytes += one.bytes;
        }
    }
    return out;
}

} // namespace tailrace
