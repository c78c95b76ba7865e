#include "agent/engine/guard_keeper.hpp"

#include "base/log.hpp"

#include <algorithm>

namespace tailrace {
namespace {

bool has_own_address(const Link& link) {
    return std::ranges::any_of(link.addresses, [](const InterfaceAddress& address) {
        return !address.prefix.address().is_link_local() && !address.prefix.address().is_loopback();
    });
}

} // namespace

std::vector<std::string> interfaces_to_guard(const std::vector<Link>& links, std::string_view device) {
    std::vector<std::string> out;
    for (const Link& link : links) {
        if (!link.up || link.loopback || link.point_to_point || link.name == device) continue;
        if (link.kind.empty() || (link.kind == "veth" && has_own_address(link))) out.push_back(link.name);
    }
    return out;
}

Result<std::vector<Guard::Refusal>> GuardKeeper::put_in_place(std::uint16_t port, const std::vector<Link>& links) {
    if (!guard_) {
        GuardOptions options;
        options.schema = schema_;
        auto opened = Guard::open(device_, options);
        if (!opened) return opened.error();
        guard_.emplace(std::move(*opened));
    }
    std::vector<IpAddress> addresses;
    for (const Link& link : links)
        for (const InterfaceAddress& address : link.addresses) addresses.push_back(address.prefix.address());
    if (auto set = guard_->set_port(port, *budget_); !set) return set.error();
    if (auto set = guard_->set_local_addresses(addresses); !set) return set.error();
    return guard_->set_interfaces(interfaces_);
}

void GuardKeeper::keep(TimePoint now, std::uint16_t port, const std::vector<Link>& links) {
    constexpr auto kTryAgainAfter = std::chrono::minutes{1};
    if (!budget_) {
        if (!std::exchange(looked_for_leftovers_, true))
            if (auto removed = remove(); !removed)
                log::warn("the guard of an earlier start is still there", {{"error", removed.error()}});
        return;
    }
    auto interfaces = interfaces_to_guard(links, device_);
    if (again_ && now < *again_ && interfaces == interfaces_) return;
    interfaces_ = std::move(interfaces);
    auto refused = put_in_place(port, links);
    std::string trouble = refused ? "" : refused.error().message();
    if (trouble != trouble_ && !trouble.empty()) log::warn("there is no guard", {{"error", trouble}});
    trouble_ = std::move(trouble);
    if (refused) {
        for (const Guard::Refusal& refusal : *refused)
            if (std::ranges::find(refusals_, refusal) == refusals_.end())
                log::warn("the guard is not on an interface",
                          {{"interface", refusal.interface}, {"error", refusal.why}});
        refusals_ = std::move(*refused);
    }
    again_.reset();
    if (!refused || !refusals_.empty()) again_ = now + kTryAgainAfter;
}

Result<void> GuardKeeper::remove() {
    guard_.reset();
    again_.reset();
    interfaces_.clear();
    trouble_.clear();
    refusals_.clear();
    GuardOptions options;
    options.schema = schema_;
    return Guard::remove(device_, options);
}

Result<void> GuardKeeper::check() const {
    if (guard_ && !guard_->is_in_place()) return Error::make("the guard was detached from an interface");
    return {};
}

void GuardKeeper::forget_old(TimePoint now) {
    std::erase_if(heard_, [&](const auto& entry) { return now - entry.second > kHeardFor; });
}

void GuardKeeper::set_endpoints(TimePoint now, std::vector<Endpoint> in_force) {
    if (!guard_) return;
    forget_old(now);
    for (const auto& [endpoint, when] : heard_) in_force.push_back(endpoint);
    std::erase_if(in_force, [](const Endpoint& endpoint) { return endpoint.address.is_loopback(); }); // relayed
    auto left_out = guard_->set_endpoints(in_force);
    if (!left_out) return log::warn("the guard does not know every peer's endpoint", {{"error", left_out.error()}});
    if (*left_out && !left_out_)
        log::warn("the guard has no room for the endpoints of all peers; handshakes of the others share the budget of "
                  "unknown sources",
                  {{"left_out", *left_out}});
    left_out_ = *left_out;
}

void GuardKeeper::heard(TimePoint now, const Endpoint& from) {
    if (!guard_ || from.address.is_loopback()) return;
    if (heard_.size() >= kMostHeard && !heard_.contains(from)) {
        forget_old(now);
        if (heard_.size() >= kMostHeard) return;
    }
    heard_[from] = now;
    if (auto added = guard_->add_endpoint(from); !added && added.error().code() != E2BIG)
        log::warn("the guard does not know every peer's endpoint", {{"error", added.error()}});
}

std::vector<std::string> GuardKeeper::warnings() const {
    if (!trouble_.empty())
        return {fmt::format("There is no guard against floods of handshakes ({}): they reach WireGuard.", trouble_)};
    if (refusals_.empty()) return {};
    std::string where;
    for (const Guard::Refusal& refusal : refusals_)
        where += fmt::format("{}{} ({})", where.empty() ? "" : ", ", refusal.interface, refusal.why);
    return {fmt::format("The guard is not on {}: floods of handshakes that come in there reach WireGuard.", where)};
}

std::string GuardKeeper::counters_json() const {
    if (!guard_) return "";
    auto counts = guard_->counts();
    if (!counts) return "";
    std::string out;
    for (const GuardCount& count : *counts)
        out += fmt::format("{}{{\"Reason\":\"{}\",\"Passes\":{},\"Packets\":{},\"Bytes\":{}}}", out.empty() ? "" : ",",
                           count.name, count.passes, count.counter.packets, count.counter.bytes);
    return "[" + out + "]";
}

} // namespace tailrace
