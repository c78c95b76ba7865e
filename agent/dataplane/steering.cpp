#include "agent/dataplane/steering.hpp"

#include "agent/dataplane/local_addresses.hpp"
#include "agent/dataplane/other_schemas.hpp"
#include "agent/dataplane/programs.hpp"
#include "base/text.hpp"
#include "bpf/move.skel.h"
#include "bpf/steer.skel.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace tailrace {
namespace {

constexpr const char* kProgramPin = "steer";
constexpr const char* kLinkPrefix = "steer_link_";
constexpr const char* kMoverPin = "move";
constexpr const char* kMoverLinkPrefix = "move_link_";
constexpr const char* kMaps[] = {"tr_steer_cfg", "tr_local", "tr_moves", "tr_steered"};

/// Beside the filter's directory, so that either may go without the other.
std::string pins_of(const std::string& device) {
    return device + "-steer";
}

Hook hook_on(unsigned interface_index) {
    return {interface_index, HookDirection::Ingress, fmt::format("{}{}", kLinkPrefix, interface_index)};
}

Hook mover_hook_on(unsigned interface_index) {
    return {interface_index, HookDirection::Egress, fmt::format("{}{}", kMoverLinkPrefix, interface_index)};
}

/// Maps are found again by their pins, and so shared by the two objects.
void pin_maps(bpf_object* object, const PinDirectory& pins) {
    for (const char* name : kMaps)
        if (bpf_map* map = ::bpf_object__find_map_by_name(object, name))
            ::bpf_map__set_pin_path(map, pins.path_of(name).c_str());
}

/// The pinned program when it is the same as the loaded one; else that one, pinned in its place.
Result<Fd> keep_or_replace(const PinDirectory& pins, const char* name, int loaded) {
    auto pinned = pins.find(name);
    if (!pinned) return pinned;
    if (*pinned) {
        auto same = is_same_program(pinned->get(), loaded);
        if (!same) return same.error();
        if (*same) return pinned;
    }
    Fd kept = duplicate(loaded);
    if (auto done = pins.pin(kept.get(), name); !done) return done.error();
    return kept;
}

tr_move_key key_of(const Endpoint& remote) {
    tr_move_key key{};
    key.addr = htonl(remote.address.v4_value());
    key.port = htons(remote.port);
    return key;
}

/// The interfaces that we have a link on.
Result<std::vector<unsigned>> linked(const PinDirectory& pins) {
    auto names = pins.names();
    if (!names) return names.error();
    std::vector<unsigned> found;
    for (const std::string& name : *names)
        if (name.starts_with(kLinkPrefix))
            if (auto index = parse_number<unsigned>(name.substr(std::strlen(kLinkPrefix)))) found.push_back(*index);
    return found;
}

/// All interfaces of the namespace: filters of a clsact qdisc have no pin to remember them by.
std::vector<unsigned> all_interfaces() {
    std::vector<unsigned> found;
    std::unique_ptr<struct if_nameindex, void (*)(struct if_nameindex*)> list{::if_nameindex(), &::if_freenameindex};
    for (auto* entry = list.get(); entry && entry->if_index; ++entry) found.push_back(entry->if_index);
    return found;
}

/// Off every interface, and forgotten.
Result<void> take_away(const PinDirectory& pins) {
    for (const auto& [pin, make_hook] : {std::pair{kProgramPin, &hook_on}, std::pair{kMoverPin, &mover_hook_on}}) {
        auto program = pins.find(pin);
        if (!program) return program.error();
        if (!*program) continue;
        for (unsigned index : all_interfaces()) {
            Hook hook = make_hook(index);
            auto attached = look_attached(pins, hook, program->get());
            if (!attached) return attached.error();
            if (!*attached) continue;
            if (auto gone = detach(pins, hook); !gone) return gone;
        }
    }
    if (auto gone = pins.unpin_all(); !gone) return gone;
    pins.remove_if_empty();
    return {};
}

/// Moves that programs of an older schema have in force, while ours know none: their peers' NATs have no other way in.
void inherit_moves(const std::vector<PinDirectory>& others, int config_map, int moves_map) {
    tr_move_key key{}, next{};
    if (::bpf_map_get_next_key(moves_map, nullptr, &next) == 0) return;
    for (const PinDirectory& other : others) {
        Fd theirs = other.get("tr_moves");
        auto info = map_info(theirs); // without an answer they are found again by path discovery
        if (!info || !*info || (*info)->type != BPF_MAP_TYPE_HASH || (*info)->key_size != sizeof(tr_move_key) ||
            (*info)->value_size != sizeof(tr_move))
            continue;
        tr_steer_config config{};
        for (bool first = true; ::bpf_map_get_next_key(theirs.get(), first ? nullptr : &key, &next) == 0;
             first = false) {
            key = next;
            tr_move move{};
            if (::bpf_map_lookup_elem(theirs.get(), &key, &move) == 0 &&
                ::bpf_map_update_elem(moves_map, &key, &move, BPF_ANY) == 0)
                ++config.moves;
        }
        if (config.moves == 0) continue;
        std::uint32_t zero = 0;
        (void)::bpf_map_update_elem(config_map, &zero, &config, BPF_ANY); // set_ports() completes it
        return;
    }
}

} // namespace

Result<Steering> Steering::open(const std::string& device, const SteeringOptions& options) {
    auto pins = PinDirectory::open(options.bpffs, pins_of(device), options.schema);
    if (!pins) return pins.error().with("steer datagrams");
    Steering out{std::move(*pins)};
    auto others = PinDirectory::others(options.bpffs, pins_of(device), options.schema);
    if (!others) return others.error().with("steer datagrams");
    out.others_ = std::move(*others);
    out.method_ = options.attach;

    LibbpfComplaints complaints;
    std::unique_ptr<tr_steer_object, void (*)(tr_steer_object*)> object{tr_steer_object__open(),
                                                                        &tr_steer_object__destroy};
    if (!object) return Error::from_errno(errno, "open the steering program{}", complaints.text());
    pin_maps(object->obj, out.pins_);
    if (int failed = tr_steer_object__load(object.get()))
        return Error::from_errno(-failed, "load the steering program{}", complaints.text());
    std::unique_ptr<tr_move_object, void (*)(tr_move_object*)> mover{tr_move_object__open(), &tr_move_object__destroy};
    if (!mover) return Error::from_errno(errno, "open the moving program{}", complaints.text());
    pin_maps(mover->obj, out.pins_);
    if (int failed = tr_move_object__load(mover.get()))
        return Error::from_errno(-failed, "load the moving program{}", complaints.text());

    out.config_ = duplicate(::bpf_map__fd(object->maps.tr_steer_cfg));
    out.local_ = duplicate(::bpf_map__fd(object->maps.tr_local));
    out.steered_ = duplicate(::bpf_map__fd(object->maps.tr_steered));
    out.moves_ = duplicate(::bpf_map__fd(object->maps.tr_moves));
    auto program = keep_or_replace(out.pins_, kProgramPin, ::bpf_program__fd(object->progs.tr_steer));
    if (!program) return program.error();
    out.program_ = std::move(*program);
    auto moving = keep_or_replace(out.pins_, kMoverPin, ::bpf_program__fd(mover->progs.tr_move_out));
    if (!moving) return moving.error();
    out.mover_ = std::move(*moving);
    inherit_moves(out.others_, out.config_.get(), out.moves_.get());
    auto attached = linked(out.pins_);
    if (!attached) return attached.error().with("steer datagrams");
    out.attached_ = std::move(*attached);
    return out;
}

Result<void> Steering::remove(const std::string& device, const SteeringOptions& options) {
    auto pins = PinDirectory::open(options.bpffs, pins_of(device), options.schema);
    if (!pins) return pins.error().with("stop steering datagrams");
    auto others = PinDirectory::others(options.bpffs, pins_of(device), options.schema);
    if (!others) return others.error().with("stop steering datagrams");
    for (const PinDirectory& other : *others)
        if (auto gone = take_away(other); !gone) return gone;
    return take_away(*pins);
}

Result<void> Steering::set_ports(const SteeringPorts& ports) {
    tr_steer_config config{};
    std::uint32_t zero = 0;
    if (::bpf_map_lookup_elem(config_.get(), &zero, &config) != 0)
        return Error::from_errno(errno, "ask the steering program for its ports");
    config.wireguard_port = htons(ports.wireguard);
    config.agent_port4 = htons(ports.agent4);
    config.agent_port6 = htons(ports.agent6);
    if (::bpf_map_update_elem(config_.get(), &zero, &config, BPF_ANY) != 0)
        return Error::from_errno(errno, "tell the steering program its ports");
    return {};
}

Result<void> Steering::set_local_addresses(const std::vector<IpAddress>& addresses) {
    return write_local_addresses(local_.get(), addresses);
}

Result<void> Steering::set_interfaces(const std::vector<std::string>& names) {
    std::vector<unsigned> wanted;
    for (const std::string& name : names)
        if (unsigned index = ::if_nametoindex(name.c_str())) wanted.push_back(index);
    for (unsigned index : attached_)
        if (std::find(wanted.begin(), wanted.end(), index) == wanted.end())
            if (auto gone = detach(pins_, hook_on(index)); !gone) return gone.error().with("stop steering datagrams");
    attached_ = wanted;
    for (unsigned index : wanted) {
        auto is_there = look_attached(pins_, hook_on(index), program_.get());
        if (!is_there) return is_there.error().with("steer datagrams");
        if (*is_there) continue;
        auto attached = attach(pins_, hook_on(index), program_.get(), method_, others_);
        if (!attached && attached.error().code() != ENODEV) return attached.error().with("steer datagrams");
    }
    if (auto kept = keep_movers(); !kept) return kept;
    for (const PinDirectory& other : others_)
        if (auto gone = take_away(other); !gone) return gone.error().with("steer datagrams");
    others_.clear();
    return {};
}

/// The moving program sits where the steering one does, while there is something to move.
Result<void> Steering::keep_movers() {
    auto moved = moves();
    if (!moved) return moved.error();
    bool needed = !moved->empty();
    if (!needed && movers_are_gone_) return {};
    movers_are_gone_ = false;
    for (unsigned index : all_interfaces()) {
        Hook hook = mover_hook_on(index);
        bool wanted = needed && std::find(attached_.begin(), attached_.end(), index) != attached_.end();
        auto is_there = look_attached(pins_, hook, mover_.get());
        if (!is_there) return is_there.error().with("move datagrams");
        if (*is_there == wanted) continue;
        if (!wanted) {
            if (auto gone = detach(pins_, hook); !gone) return gone.error().with("stop moving datagrams");
            continue;
        }
        auto attached = attach(pins_, hook, mover_.get(), method_, others_);
        if (!attached && attached.error().code() != ENODEV) return attached.error().with("move datagrams");
    }
    movers_are_gone_ = !needed;
    return {};
}

bool Steering::is_in_place() const {
    return std::ranges::all_of(attached_, [&](unsigned index) {
        char name[IF_NAMESIZE];
        return ::if_indextoname(index, name) == nullptr ||
               (is_attached(pins_, hook_on(index), program_.get()) &&
                (movers_are_gone_ || is_attached(pins_, mover_hook_on(index), mover_.get())));
    });
}

Result<void> Steering::set_moves(const std::vector<PortMove>& moves) {
    tr_steer_config config{};
    std::uint32_t zero = 0;
    if (::bpf_map_lookup_elem(config_.get(), &zero, &config) != 0)
        return Error::from_errno(errno, "ask the programs whether ports are moved");
    config.moves = static_cast<std::uint16_t>(moves.size());
    auto before = this->moves();
    if (!before) return before.error();
    for (const PortMove& old : *before) {
        bool stays = std::ranges::any_of(moves, [&](const PortMove& move) { return move.remote == old.remote; });
        tr_move_key key = key_of(old.remote);
        if (!stays && ::bpf_map_delete_elem(moves_.get(), &key) != 0 && errno != ENOENT)
            return Error::from_errno(errno, "forget a moved port");
    }
    for (const PortMove& move : moves) {
        if (!move.remote.address.is_v4()) return Error::make("{}: only IPv4 has moved ports", move.remote.text());
        tr_move_key key = key_of(move.remote);
        tr_move value{};
        value.port = htons(move.port);
        if (::bpf_map_update_elem(moves_.get(), &key, &value, BPF_ANY) != 0)
            return Error::from_errno(errno, "tell the programs of a moved port");
    }
    if (::bpf_map_update_elem(config_.get(), &zero, &config, BPF_ANY) != 0)
        return Error::from_errno(errno, "tell the programs that ports are moved");
    return keep_movers();
}

Result<std::vector<PortMove>> Steering::moves() const {
    std::vector<PortMove> out;
    tr_move_key key{}, next{};
    for (bool first = true; ::bpf_map_get_next_key(moves_.get(), first ? nullptr : &key, &next) == 0; first = false) {
        key = next;
        tr_move value{};
        if (::bpf_map_lookup_elem(moves_.get(), &key, &value) == 0)
            out.push_back({{IpAddress::v4(ntohl(key.addr)), ntohs(key.port)}, ntohs(value.port)});
        else if (errno != ENOENT)
            break;
    }
    if (errno != ENOENT) return Error::from_errno(errno, "ask the programs for moved ports");
    return out;
}

Result<SteeringCounts> Steering::counts() const {
    std::vector<std::uint64_t> of_cpus(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
    std::uint64_t totals[TR_STEERED_COUNT] = {};
    for (std::uint32_t what = 0; what < TR_STEERED_COUNT; ++what) {
        if (::bpf_map_lookup_elem(steered_.get(), &what, of_cpus.data()) != 0)
            return Error::from_errno(errno, "read the steering counters");
        for (std::uint64_t count : of_cpus) totals[what] += count;
    }
    return SteeringCounts{totals[TR_STEERED_DISCO], totals[TR_STEERED_STUN], totals[TR_STEERED_GENEVE],
                          totals[TR_STEERED_NO_SOCKET]};
}

} // namespace tailrace
