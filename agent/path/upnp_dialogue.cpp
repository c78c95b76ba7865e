#include "agent/path/upnp_dialogue.hpp"

#include "base/io/http.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {
namespace {

struct Place {
    std::uint16_t port = 0;
    std::string target;
};

/// Where a URL of the gateway leads, on the gateway. `base` is where the document came from that names it.
Result<Place> resolve_url(const IpAddress& gateway, const Place& base, std::string_view url) {
    bool plain = std::ranges::all_of(url, [](char c) { return c > ' ' && c < '\x7f'; });
    if (!plain) return Error::make("the gateway names a URL with characters that do not belong there");
    if (url.find("://") != std::string_view::npos) {
        auto parsed = Url::parse(url);
        if (!parsed) return parsed.error();
        auto host = IpAddress::parse(parsed->host);
        if (parsed->scheme != "http" || !host || *host != gateway)
            return Error::make("{} does not lead to the gateway {} itself", url, gateway.text());
        return Place{parsed->port, parsed->target};
    }
    if (url.starts_with("//")) return Error::make("{} does not lead to the gateway {} itself", url, gateway.text());
    if (url.starts_with("/")) return Place{base.port, std::string{url}};
    std::string_view path = std::string_view{base.target}.substr(0, base.target.find('?'));
    return Place{base.port, std::string{path.substr(0, path.rfind('/') + 1)} + std::string{url}};
}

/// An address at which somebody outside could reach us.
std::optional<IpAddress> outside_address(std::string_view text) {
    auto address = IpAddress::parse(text);
    if (!address || !address->is_v4() || address->is_unspecified() || address->is_loopback()) return std::nullopt;
    return *address;
}

bool is_private(const IpAddress& address) {
    static const std::vector<IpPrefix> ranges{*IpPrefix::parse("10.0.0.0/8"), *IpPrefix::parse("172.16.0.0/12"),
                                              *IpPrefix::parse("192.168.0.0/16")};
    return std::ranges::any_of(ranges, [&](const IpPrefix& range) { return range.contains(address); });
}

} // namespace

UpnpDialogue::UpnpDialogue(Wish wish, std::vector<std::string> locations, std::function<std::uint16_t()> any_port)
    : wish_(std::move(wish)), locations_(locations.rbegin(), locations.rend()), any_port_(std::move(any_port)) {
    next_location();
}

UpnpDialogue::Request UpnpDialogue::deletion(const Mapping& mapping) {
    igd::Call call = igd::write_delete(mapping.service, mapping.external.port);
    return {mapping.control_port, mapping.control_target, std::move(call.action), std::move(call.body)};
}

std::optional<UpnpDialogue::Mapping> UpnpDialogue::begun() const {
    if (!question_ || (step_ != Step::Add && step_ != Step::External)) return std::nullopt;
    const Control& control = controls_[at_];
    return Mapping{{{}, port_}, control.port, control.target, control.service};
}

void UpnpDialogue::next_location() {
    question_.reset();
    while (!locations_.empty() && !question_) {
        location_ = std::move(locations_.back());
        locations_.pop_back();
        auto place = resolve_url(wish_.gateway, {}, location_);
        if (!place || place->port == 0) {
            trouble_ = place ? fmt::format("\"{}\" is not a URL", location_) : place.error().message();
            continue;
        }
        step_ = Step::Describe;
        question_ = Request{place->port, place->target, {}, {}};
    }
}

void UpnpDialogue::give_up(std::string why) {
    trouble_ = std::move(why);
    next_location();
}

void UpnpDialogue::ask(Step step, igd::Call call) {
    step_ = step;
    question_ = Request{controls_[at_].port, controls_[at_].target, std::move(call.action), std::move(call.body)};
}

void UpnpDialogue::ask_status(std::size_t index) {
    at_ = index;
    if (at_ == controls_.size())
        choose();
    else
        ask(Step::Status, igd::write_get_status(controls_[at_].service));
}

void UpnpDialogue::choose() {
    auto best = std::ranges::max_element(controls_, {}, &Control::rank); // the first of the best
    at_ = static_cast<std::size_t>(best - controls_.begin());
    port_ = wish_.external_port;
    lease_ = wish_.lease;
    tries_ = 1;
    ask_add();
}

void UpnpDialogue::ask_add() {
    ask(Step::Add, igd::write_add(controls_[at_].service, {port_, wish_.internal_port, wish_.self, lease_}));
}

void UpnpDialogue::on_answer(const Result<Answer>& answer) {
    if (!question_) return;
    if (!answer) {
        give_up(answer.error().message());
        return;
    }
    if (step_ == Step::Describe) {
        if (answer->status == 200)
            on_description(*answer);
        else
            give_up(fmt::format("{}: HTTP status {}", location_, answer->status));
        return;
    }
    if (answer->status != 200 && answer->status != 500) { // 500 is how a fault comes
        if (step_ == Step::Status || step_ == Step::Address)
            ask_status(at_ + 1);
        else
            give_up(fmt::format("{}: HTTP status {} to a call", location_, answer->status));
        return;
    }
    auto soap = igd::parse_answer(answer->body);
    if (!soap) {
        give_up(soap.error().with("{}", location_).message());
        return;
    }
    on_soap(*soap);
}

void UpnpDialogue::on_description(const Answer& answer) {
    auto description = igd::parse_description(answer.body);
    if (!description) {
        give_up(description.error().with("{}", location_).message());
        return;
    }
    Place base{question_->port, question_->target};
    if (!description->url_base.empty()) {
        auto named = resolve_url(wish_.gateway, base, description->url_base);
        if (!named) {
            give_up(named.error().with("{}", location_).message());
            return;
        }
        base = *named;
    }
    controls_.clear();
    std::string refused = "no service that forwards ports";
    for (const igd::Service& service : description->services) {
        auto place = resolve_url(wish_.gateway, base, service.control_url);
        if (place)
            controls_.push_back({service.type, place->port, place->target, 0});
        else
            refused = place.error().message();
    }
    if (controls_.empty())
        give_up(fmt::format("{}: {}", location_, refused));
    else if (controls_.size() == 1)
        choose();
    else
        ask_status(0);
}

void UpnpDialogue::on_soap(const igd::Answer& answer) {
    Control& control = controls_[at_];
    switch (step_) {
    case Step::Describe:
        break; // not SOAP
    case Step::Status: {
        auto status = answer.value("NewConnectionStatus");
        if (status != "Connected" && status != "Up") {
            ask_status(at_ + 1);
            break;
        }
        control.rank = 1;
        ask(Step::Address, igd::write_get_external_address(control.service));
        break;
    }
    case Step::Address: {
        auto address = outside_address(answer.value("NewExternalIPAddress"));
        if (address) control.rank = is_private(*address) ? 2 : 3;
        if (control.rank == 3)
            choose();
        else
            ask_status(at_ + 1);
        break;
    }
    case Step::Add: {
        if (answer.fault) {
            on_refusal(*answer.fault);
            break;
        }
        if (control.service == igd::kIp2) {
            auto given = parse_number<std::uint16_t>(answer.value("NewReservedPort"));
            if (!given || *given == 0) {
                give_up(fmt::format("{}: it does not say which port it forwards", location_));
                break;
            }
            port_ = *given;
        }
        ask(Step::External, igd::write_get_external_address(control.service));
        break;
    }
    case Step::External: {
        auto address = outside_address(answer.value("NewExternalIPAddress"));
        if (!address) {
            give_up(fmt::format("{}: it has no address outside", location_));
            break;
        }
        question_.reset();
        mapping_ = Mapping{{*address, port_}, control.port, control.target, control.service};
        break;
    }
    }
}

void UpnpDialogue::on_refusal(int code) {
    bool wants_no_lease = code == igd::kOnlyPermanentLeases || code == igd::kInvalidArgs;
    if (wants_no_lease && lease_.count() != 0) {
        lease_ = {};
        ask_add();
    } else if (code == igd::kConflict && tries_ < kPortTries) {
        ++tries_;
        port_ = any_port_();
        ask_add();
    } else {
        give_up(fmt::format("{}: refused with UPnP error {}", location_, code));
    }
}

} // namespace tailrace
