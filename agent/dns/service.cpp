#include "agent/dns/service.hpp"

#include "agent/peerapi/dns_proxy.hpp"
#include "base/log.hpp"

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

std::vector<DnsUpstream> plain(const std::vector<Endpoint>& resolvers) {
    std::vector<DnsUpstream> out;
    for (const Endpoint& at : resolvers) out.push_back({at, {}});
    return out;
}

bool is_outside(const IpAddress& address, const std::vector<IpPrefix>& outside) {
    return std::ranges::any_of(outside, [&](const IpPrefix& network) { return network.contains(address); });
}

} // namespace

DnsService::DnsService(Reactor& reactor, ResolvConf file, MakeNames names, DnsServer::IsOurs is_ours)
    : reactor_(reactor), file_(std::move(file)), make_names_(std::move(names)),
      server_(
          reactor, [this](Bytes query, DnsTransport transport) { return answer(std::move(query), transport); },
          std::move(is_ours)) {}

void DnsService::set(EffectiveDns dns, const std::vector<IpAddress>& listen_at) {
    if (dns != dns_) resolver_.reset();
    dns_ = std::move(dns);
    listen_at_ = listen_at;
    in_force_ = true;
    server_.set_addresses(listen_at);
    apply();
}

bool DnsService::would_leak(const std::vector<IpPrefix>& outside) const {
    return std::ranges::any_of(host_resolvers(),
                               [&](const DnsUpstream& upstream) { return is_outside(upstream.at.address, outside); });
}

Result<void> DnsService::clear(const std::vector<IpPrefix>& outside) {
    in_force_ = false;
    dns_ = {};
    resolver_.reset();
    server_.set_addresses({});
    os_trouble_.clear();
    fight_trouble_.clear();
    failing_since_.reset();
    text_.clear();
    written_ = {};
    if (!would_leak(outside)) return file_.restore();
    log::info("the resolvers of this machine stay away while an exit node is used: questions would leave past it",
              {{"file", file_.path()}});
    return {};
}

OsDns DnsService::wanted_os() const {
    OsDns out;
    if (!dns_.install) return out;
    out.search = dns_.search;
    const bool only_defaults = dns_.routes.empty() && dns_.extra_records.empty() && !dns_.defaults.empty() &&
                               std::ranges::all_of(dns_.defaults, [](const DnsUpstream& upstream) {
                                   return upstream.path.empty() && upstream.at.port == kDnsPort;
                               });
    if (only_defaults)
        for (const DnsUpstream& upstream : dns_.defaults) out.servers.push_back(upstream.at.address);
    else
        out.servers = listen_at_;
    return out;
}

/// Nobody is sent to us while we do not listen.
void DnsService::apply() {
    OsDns wanted = wanted_os();
    if (wanted.servers == listen_at_ && !server_.is_listening()) wanted = {};
    text_.clear();
    written_ = {};
    auto original = file_.original();
    if (!original) {
        os_trouble_ = cannot(original.error());
        return;
    }
    if (wanted.servers.empty()) {
        auto restored = file_.restore();
        os_trouble_ = restored ? "" : cannot(restored.error());
        return;
    }
    if (file_.is_managed() || resolv_conf_owner(*original) == ResolvConfOwner::Resolved) {
        os_trouble_ =
            fmt::format("Names of the tailnet are not known to this machine: {} belongs to systemd-resolved. "
                        "\"resolvectl dns\" and \"resolvectl domain\" with the device of the tunnel make it ask "
                        "{}; \"tailrace set --accept-dns=false\" ends this message.",
                        file_.path(), wanted.servers.front().text());
        return;
    }
    OsDns whole = wanted;
    for (const std::string& domain : search_domains_in(*original))
        if (std::ranges::find(whole.search, domain) == whole.search.end()) whole.search.push_back(domain);
    std::string text = resolv_conf_text(whole.servers, whole.search, *original);
    auto written = file_.write(text);
    if (!written) {
        os_trouble_ = cannot(written.error());
        return;
    }
    if (*written) {
        log::info("names are asked of tailraced", {{"file", file_.path()}});
        resolver_.reset(); // what was there before may be another
    }
    os_trouble_.clear();
    text_ = std::move(text);
    stamp_ = file_.stamp();
    written_ = std::move(whole);
}

std::string DnsService::cannot(const Error& error) const {
    const bool sandbox = error.code() == EROFS || error.code() == EACCES || error.code() == EPERM;
    return fmt::format("Names of the tailnet are not known to this machine: {}. {}", error.message(),
                       sandbox
                           ? "Where the file was replaced while tailraced ran, \"systemctl restart tailraced\" makes "
                             "it writable again; \"tailrace set --accept-dns=false\" leaves it alone."
                           : "\"tailrace set --accept-dns=false\" leaves the file alone.");
}

std::string DnsService::fight(std::string_view other) const {
    std::string who = "Another program", cure = "keep the other from it";
    if (resolv_conf_owner(other) == ResolvConfOwner::NetworkManager) {
        who = "NetworkManager";
        cure = "\"dns=none\" in NetworkManager.conf";
    } else if (resolv_conf_owner(other) == ResolvConfOwner::Resolvconf) {
        who = "resolvconf";
    }
    return fmt::format(
        "{} writes {}, and so does tailraced, which has written it again. Let one of them do it: \"tailrace "
        "set --accept-dns=false\", or {}.",
        who, file_.path(), cure);
}

void DnsService::look() {
    if (!in_force_) return;
    if (!server_.is_listening()) {
        server_.set_addresses(listen_at_);
        if (server_.is_listening()) apply();
    }
    TimePoint now = reactor_.now();
    if (fight_began_ && now - *fight_began_ > kFight) {
        fight_began_.reset();
        repairs_ = 0;
        fight_trouble_.clear();
    }
    if (text_.empty() || file_.stamp() == stamp_) return;
    stamp_ = file_.stamp();
    auto there = file_.read();
    if (there && *there == text_) return;
    if (!fight_began_) fight_began_ = now;
    fight_trouble_ = fight(there ? *there : std::string{});
    if (++repairs_ > kMostRepairs) return;
    log::warn("somebody else wrote the file that says who is asked for names", {{"file", file_.path()}});
    apply();
}

DnsResolver& DnsService::resolver() {
    if (!resolver_) {
        std::vector<DnsUpstream> defaults = dns_.defaults;
        // Also with --accept-dns=false: whoever asks us then has chosen to.
        if (defaults.empty() && dns_.install) {
            defaults = host_resolvers();
            std::erase_if(defaults, [&](const DnsUpstream& one) { return is_outside(one.at.address, dns_.outside); });
        }
        resolver_.emplace(dns_, make_names_(), std::move(defaults));
    }
    return *resolver_;
}

std::vector<DnsUpstream> DnsService::host_resolvers() const {
    auto original = file_.original();
    return original ? plain(resolvers_in(*original)) : std::vector<DnsUpstream>{};
}

std::vector<DnsUpstream> DnsService::upstreams_for(std::string_view name) {
    return resolver().upstreams_for(plain_dns_name(name));
}

Task<Result<Bytes>> DnsService::answer(Bytes query, DnsTransport transport) {
    auto alive = alive_;
    if (!in_force_) co_return Error::make("the tunnel is not up");
    auto verdict = resolver().resolve(query, WallTime::now());
    if (auto* answer = std::get_if<Bytes>(&verdict)) co_return std::move(*answer);
    auto& upstreams = std::get<DnsResolver::Forward>(verdict).upstreams;
    DnsReply failure;
    failure.result = DnsResult::ServFail;
    if (upstreams.empty()) co_return write_dns_reply(query, failure);
    TimePoint begin = reactor_.now();
    auto answer = co_await ask_upstreams(reactor_, std::move(upstreams), query, transport, kForwardFor);
    if (!*alive) co_return Error::make("stopping");
    if (answer) {
        failing_since_.reset();
        co_return std::move(*answer);
    }
    log::debug("a question about a name is not answered", {{"error", answer.error()}});
    if (!failing_since_) failing_since_ = begin;
    if (reactor_.now() - begin >= kForwardFor) co_return answer.error(); // who asked has given up, or asks another
    co_return write_dns_reply(query, failure);
}

std::vector<std::string> DnsService::troubles() const {
    std::vector<std::string> out = dns_.notes;
    if (!server_.trouble().empty())
        out.push_back(fmt::format("Names of the tailnet are not answered: {}.", server_.trouble()));
    if (!os_trouble_.empty()) out.push_back(os_trouble_);
    if (!fight_trouble_.empty()) out.push_back(fight_trouble_);
    if (failing_since_ && dns_.install && reactor_.now() - *failing_since_ >= kFailsFor)
        out.push_back("DNS unavailable: the resolvers of this machine, or of the exit node, do not answer.");
    return out;
}

} // namespace tailrace
