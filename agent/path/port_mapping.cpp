#include "agent/path/port_mapping.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::size_t kMaxBoots = 64;
constexpr std::uint8_t kUdp = 17;

bool is_usable(const Endpoint& external) {
    const IpAddress& address = external.address;
    return external.port != 0 && address.is_v4() && !address.is_unspecified() && !address.is_loopback() &&
           !address.is_multicast();
}

} // namespace

PortMapping::PortMapping(std::uint16_t port, const pcp::Nonce& nonce, std::function<std::uint16_t()> any_port)
    : port_(port), nonce_(nonce), any_port_(std::move(any_port)) {}

void PortMapping::set_settings(TimePoint now, const Settings& settings) {
    if (settings == settings_) return;
    bool upnp_goes = settings_.upnp && !settings.upnp;
    settings_ = settings;
    search_at_ = now;
    if (!settings_.enabled) {
        give_back();
        forget_network();
        trouble_ = "port mapping is switched off";
    } else if (upnp_goes) {
        if (mapping_ && mapping_->protocol == Protocol::Upnp) give_back();
        gateways_.clear();
        seen_.erase(Protocol::Upnp);
        if (stage_ == Stage::Upnp) fail(now, "UPnP is switched off");
    }
}

void PortMapping::set_network(TimePoint now, const std::optional<Network>& network) {
    if (network == network_) return;
    network_ = network;
    forget_network();
    search_at_ = now;
    trouble_ = network ? "" : "no gateway with a private IPv4 address";
}

void PortMapping::forget_network() {
    stage_ = Stage::Idle;
    dialogue_.reset();
    granted_.reset();
    mapping_.reset();
    lost_ = false;
    services_ = {};
    seen_.clear();
    epoch_.reset();
    outside_ = {};
    gateways_.clear();
    boots_.clear();
    gap_ = kFirstGap;
    late_until_ = {};
}

void PortMapping::give_back() {
    if (!network_) return;
    auto protocol = mapping_                  ? std::optional{mapping_->protocol}
                    : stage_ == Stage::Asking ? std::optional{asking_} // its answer is perhaps on the way
                                              : std::nullopt;
    if (protocol == Protocol::NatPmp) send(nat_pmp::kPort, nat_pmp::write_delete_request(port_));
    if (protocol == Protocol::Pcp) send(nat_pmp::kPort, pcp::write_map_request(pcp_request(std::chrono::seconds{0})));
    auto forwarded = mapping_ && mapping_->upnp ? mapping_->upnp : dialogue_ ? dialogue_->begun() : std::nullopt;
    if (forwarded) actions_.push_back(AskHttp{0, network_->gateway, UpnpDialogue::deletion(*forwarded)});
    mapping_.reset();
    lost_ = false;
}

bool PortMapping::is_seen(TimePoint now, Protocol protocol) const {
    auto found = seen_.find(protocol);
    return found != seen_.end() && now - found->second < kTrust;
}

pcp::MapRequest PortMapping::pcp_request(std::chrono::seconds lifetime) const {
    pcp::MapRequest request{network_->self, nonce_, port_, 0, {}, lifetime};
    if (mapping_) {
        request.wished_port = mapping_->external.port;
        request.wished_address = mapping_->external.address;
    }
    return request;
}

void PortMapping::send(std::uint16_t port, BytesView datagram) {
    actions_.push_back(SendUdp{{network_->gateway, port}, to_bytes(datagram)});
}

// -- looking for services

void PortMapping::run(TimePoint now, Effort effort) {
    if (!settings_.enabled || !network_ || stage_ != Stage::Idle) return;
    if (effort == Effort::Fresh || now >= search_at_) probe(now, effort);
}

void PortMapping::probe(TimePoint now, Effort effort) {
    auto unknown = [&](Protocol protocol) { return effort == Effort::Fresh || !is_seen(now, protocol); };
    stage_ = Stage::Probing;
    stage_end_ = now + kWindow;
    probed_ = true;
    if (unknown(Protocol::NatPmp)) {
        seen_.erase(Protocol::NatPmp);
        send(nat_pmp::kPort, nat_pmp::write_address_request());
    }
    if (unknown(Protocol::Pcp)) {
        seen_.erase(Protocol::Pcp);
        send(nat_pmp::kPort, pcp::write_announce_request(network_->self));
    }
    if (settings_.upnp && unknown(Protocol::Upnp)) {
        // The gateway first, by name: a firewall of ours then expects its answer to the group's question too.
        seen_.erase(Protocol::Upnp);
        gateways_.clear();
        late_until_ = now + kLateSearch;
        const Endpoint group{*IpAddress::parse(ssdp::kGroup), ssdp::kPort};
        send(ssdp::kPort, as_bytes(ssdp::write_search(ssdp::kEverything)));
        actions_.push_back(SendUdp{group, to_bytes(as_bytes(ssdp::write_search(ssdp::kEverything)))});
        actions_.push_back(SendUdp{group, to_bytes(as_bytes(ssdp::write_search(ssdp::kGateway)))});
    }
}

void PortMapping::end_probe(TimePoint now) {
    stage_ = Stage::Idle;
    services_ = {is_seen(now, Protocol::Upnp), is_seen(now, Protocol::NatPmp), is_seen(now, Protocol::Pcp)};
    search_at_ = now + kTrust;
    if (mapping_ && !lost_ && now < mapping_->renew_at) return;
    if (is_seen(now, Protocol::NatPmp))
        ask(now, Protocol::NatPmp);
    else if (is_seen(now, Protocol::Pcp))
        ask(now, Protocol::Pcp);
    else
        ask_upnp(now);
}

// -- asking for a mapping

void PortMapping::ask(TimePoint now, Protocol protocol) {
    last_attempt_ = now;
    if (protocol == Protocol::Upnp) {
        ask_upnp(now);
        return;
    }
    stage_ = Stage::Asking;
    stage_end_ = now + kWindow;
    asking_ = protocol;
    granted_.reset();
    if (protocol == Protocol::Pcp) {
        send(nat_pmp::kPort, pcp::write_map_request(pcp_request(kLease)));
        return;
    }
    if (!is_seen(now, Protocol::NatPmp)) {
        outside_ = {};
        send(nat_pmp::kPort, nat_pmp::write_address_request());
    }
    std::uint16_t wished = mapping_ ? mapping_->external.port : std::uint16_t{0};
    send(nat_pmp::kPort, nat_pmp::write_map_request({port_, wished, kLease}));
}

void PortMapping::ask_upnp(TimePoint now) {
    last_attempt_ = now;
    late_until_ = gateways_.empty() ? late_until_ : TimePoint{};
    if (gateways_.empty()) {
        fail(now, "the gateway speaks neither NAT-PMP nor PCP nor UPnP");
        return;
    }
    ssdp::sort_answers(gateways_);
    std::vector<std::string> locations;
    for (const ssdp::Answer& answer : gateways_) locations.push_back(answer.location);
    std::uint16_t wished = mapping_ ? mapping_->external.port : port_;
    stage_ = Stage::Upnp;
    stage_end_ = now + kAttempt;
    dialogue_.emplace(UpnpDialogue::Wish{network_->gateway, network_->self, port_, wished, kLease},
                      std::move(locations), any_port_);
    take_dialogue(now);
}

void PortMapping::take_dialogue(TimePoint now) {
    if (dialogue_->question()) {
        actions_.push_back(AskHttp{++dialogue_number_, network_->gateway, *dialogue_->question()});
    } else if (auto made = dialogue_->mapping()) {
        succeed(now, Protocol::Upnp, made->external, kLease);
        if (mapping_ && mapping_->protocol == Protocol::Upnp) mapping_->upnp = made;
    } else {
        on_silence(now);
    }
}

/// Whoever was asked gave nothing. An attempt that has not looked around yet does so now.
void PortMapping::on_silence(TimePoint now) {
    bool was_upnp = stage_ == Stage::Upnp;
    std::string why = was_upnp && !dialogue_->trouble().empty() ? "UPnP: " + dialogue_->trouble()
                                                                : "the gateway does not answer any more";
    dialogue_.reset();
    if (!was_upnp) seen_.erase(asking_);
    if (!probed_)
        probe(now, Effort::Fresh);
    else if (!was_upnp && !gateways_.empty())
        ask_upnp(now);
    else
        fail(now, std::move(why));
}

void PortMapping::succeed(TimePoint now, Protocol protocol, const Endpoint& external, std::chrono::seconds lifetime) {
    if (lifetime.count() == 0 || !is_usable(external)) {
        fail(now, fmt::format("the gateway's answer is of no use: {} for {} s", external.text(), lifetime.count()));
        return;
    }
    Duration lease = std::min<Duration>(lifetime, kLongestLease);
    stage_ = Stage::Idle;
    dialogue_.reset();
    granted_.reset();
    mapping_ = Mapping{protocol, external, now + std::max<Duration>(lease / 2, kShortestRenewal), now + lease, {}};
    lost_ = false;
    gap_ = kFirstGap;
    trouble_.clear();
}

void PortMapping::fail(TimePoint now, std::string why) {
    stage_ = Stage::Idle;
    dialogue_.reset();
    granted_.reset();
    trouble_ = std::move(why);
    if (mapping_ && !lost_ && now < mapping_->good_until) {
        Duration wait = std::max<Duration>((mapping_->good_until - now) / 2, kShortestRenewal);
        mapping_->renew_at = now + wait;
        return;
    }
    mapping_.reset();
    lost_ = false;
    search_at_ = now + gap_;
    gap_ = std::min<Duration>(2 * gap_, kTrust);
}

// -- what arrives

void PortMapping::on_datagram(TimePoint now, const Endpoint& from, BytesView datagram) {
    if (!settings_.enabled || !network_ || from.address != network_->gateway || datagram.empty()) return;
    if (from.port != nat_pmp::kPort)
        on_ssdp(now, datagram); // gateways answer a search from whichever port they like
    else if (std::to_integer<std::uint8_t>(datagram[0]) == nat_pmp::kVersion)
        on_pmp(now, datagram);
    else
        on_pcp(now, datagram);
}

void PortMapping::on_pmp(TimePoint now, BytesView datagram) {
    auto response = nat_pmp::parse_response(datagram);
    if (!response) return;
    if (const auto* address = std::get_if<nat_pmp::AddressResponse>(&*response)) {
        if (address->result != nat_pmp::kOk || !address->address.valid()) return;
        note_epoch(now, address->epoch);
        seen_[Protocol::NatPmp] = now;
        outside_ = address->address;
        if (mapping_ && mapping_->protocol == Protocol::NatPmp) mapping_->external.address = outside_;
        finish_pmp(now);
        return;
    }
    const auto& map = std::get<nat_pmp::MapResponse>(*response);
    if (stage_ != Stage::Asking || asking_ != Protocol::NatPmp) return;
    if (map.result != nat_pmp::kOk) {
        fail(now, fmt::format("NAT-PMP: {}", nat_pmp::result_text(map.result)));
        return;
    }
    if (map.internal_port != port_) return; // somebody else's
    epoch_ = Epoch{now, map.epoch};
    granted_ = map;
    finish_pmp(now);
}

/// A mapping needs both answers: the port's and the address's.
void PortMapping::finish_pmp(TimePoint now) {
    if (granted_ && outside_.valid() && stage_ == Stage::Asking)
        succeed(now, Protocol::NatPmp, {outside_, granted_->external_port}, granted_->lifetime);
}

void PortMapping::on_pcp(TimePoint now, BytesView datagram) {
    auto response = pcp::parse_response(datagram);
    if (!response) return;
    if (response->kind == pcp::Response::Kind::Announce) {
        if (response->result != pcp::kOk) return; // there, but of no use to us
        note_epoch(now, response->epoch);
        seen_[Protocol::Pcp] = now;
        return;
    }
    const pcp::Mapping& mapping = *response->mapping;
    if (stage_ != Stage::Asking || asking_ != Protocol::Pcp) return;
    if (mapping.nonce != nonce_ || mapping.internal_port != port_ || mapping.protocol != kUdp) return;
    if (response->result != pcp::kOk) {
        fail(now, fmt::format("PCP: {}", pcp::result_text(response->result)));
        return;
    }
    epoch_ = Epoch{now, response->epoch};
    succeed(now, Protocol::Pcp, {mapping.external_address, mapping.external_port}, response->lifetime);
}

void PortMapping::on_ssdp(TimePoint now, BytesView datagram) {
    if (!settings_.upnp) return;
    bool is_late = stage_ == Stage::Idle && now < late_until_;
    if (stage_ != Stage::Probing && !is_late) return; // nobody asked
    auto answer = ssdp::parse_answer(datagram);
    if (!answer || gateways_.size() >= kMaxGateways) return;
    seen_[Protocol::Upnp] = now;
    services_.upnp = true;
    bool restarted = false;
    if (answer->boot_id && (boots_.contains(answer->location) || boots_.size() < kMaxBoots)) {
        auto [known, fresh] = boots_.emplace(answer->location, *answer->boot_id);
        restarted = !fresh && known->second != *answer->boot_id;
        known->second = *answer->boot_id;
    }
    gateways_.push_back(std::move(*answer));
    if (restarted && mapping_ && mapping_->protocol == Protocol::Upnp) begin_again(now);
    if (is_late && !mapping_) ask_upnp(now);
}

/// A gateway's clock that fell behind ours has started over, and its mappings are gone. Source: RFC 6886 3.6.
/// NAT-PMP and PCP have one clock (RFC 6887, appendix A): some gateways announce only by the one what the other lost.
void PortMapping::note_epoch(TimePoint now, std::uint32_t value) {
    auto known = std::exchange(epoch_, Epoch{now, value});
    if (!known || !mapping_) return;
    auto passed = std::chrono::duration_cast<std::chrono::seconds>(now - known->at).count();
    if (std::int64_t{value} + 2 < std::int64_t{known->value} + passed * 7 / 8) begin_again(now);
}

/// At most once a second: what makes us do it is not proven to come from the gateway.
void PortMapping::begin_again(TimePoint now) {
    lost_ = true;
    mapping_->renew_at = std::max(now, last_attempt_ + std::chrono::seconds{1});
    if (stage_ == Stage::Idle && now >= mapping_->renew_at) on_timer(now);
}

void PortMapping::on_http(TimePoint now, std::uint64_t number, const Result<UpnpDialogue::Answer>& answer) {
    if (stage_ != Stage::Upnp || number != dialogue_number_) return;
    dialogue_->on_answer(answer);
    take_dialogue(now);
}

// -- time

void PortMapping::on_timer(TimePoint now) {
    if (stage_ != Stage::Idle) {
        if (now < stage_end_) return;
        if (stage_ == Stage::Probing)
            end_probe(now);
        else
            on_silence(now);
        return;
    }
    if (!mapping_) return;
    if (now >= mapping_->good_until) {
        mapping_.reset();
        lost_ = false;
        search_at_ = now;
    } else if (now >= mapping_->renew_at) {
        probed_ = false;
        ask(now, mapping_->protocol);
    }
}

std::optional<TimePoint> PortMapping::next_timer() const {
    if (stage_ != Stage::Idle) return stage_end_;
    if (mapping_) return std::min(mapping_->renew_at, mapping_->good_until);
    return std::nullopt;
}

std::vector<PortMapping::Action> PortMapping::take_actions() {
    return std::exchange(actions_, {});
}

std::optional<Endpoint> PortMapping::external(TimePoint now) const {
    if (!mapping_ || now >= mapping_->good_until) return std::nullopt;
    return mapping_->external;
}

std::optional<PortMapping::Protocol> PortMapping::protocol() const {
    return mapping_ ? std::optional{mapping_->protocol} : std::nullopt;
}

} // namespace tailrace
