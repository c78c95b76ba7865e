// agent/dns/service.hpp - MagicDNS on this host: answers and forwards questions, and sees to it that the host asks us.
#pragma once
#include "agent/dns/ask.hpp"
#include "agent/dns/resolv_conf.hpp"
#include "agent/dns/resolver.hpp"
#include "agent/dns/server.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

/// How the host's programs are made to ask us.
struct OsDns {
    std::vector<IpAddress> servers; ///< none: the host is as it was
    std::vector<std::string> search;
    bool operator==(const OsDns&) const = default;
};

/// In force between set() and clear(); the file of the host is ours only while we listen.
class DnsService {
public:
    static constexpr auto kForwardFor = std::chrono::seconds{10}; ///< Source: dns.md 1
    static constexpr auto kFailsFor = std::chrono::seconds{15};   ///< before health says so. Source: dns.md 4.3
    /// Of each fight over the file; then it is left to the other for as long again. Source: dns.md 7.4
    static constexpr int kMostRepairs = 9;
    static constexpr auto kFight = std::chrono::seconds{60};

    using MakeNames = std::function<DnsResolver::Names()>;
    DnsService(Reactor& reactor, ResolvConf file, MakeNames names, DnsServer::IsOurs is_ours);

    /// What is in force from now on. `listen_at`: on addresses that the device has.
    void set(EffectiveDns dns, const std::vector<IpAddress>& listen_at);
    /// Other names, the rest as before.
    void names_changed() { resolver_.reset(); }
    /// Nobody is asked, nothing answered, and the host is as it was; but for its file, where names would leak.
    Result<void> clear(const std::vector<IpPrefix>& outside);
    /// Whether one of the host's own resolvers is in one of these networks.
    bool would_leak(const std::vector<IpPrefix>& outside) const;
    /// What others did to the file: call this every second or so.
    void look();

    Task<Result<Bytes>> answer(Bytes query, DnsTransport transport);
    /// Whom a question about a name goes to; none: it is answered here, or not at all.
    std::vector<DnsUpstream> upstreams_for(std::string_view name);
    /// The resolvers of this host itself, for peers whose exit node we are.
    std::vector<DnsUpstream> host_resolvers() const;

    bool in_force() const { return in_force_; }
    const EffectiveDns& effective() const { return dns_; }
    OsDns os() const { return written_; }
    std::vector<std::string> troubles() const;

private:
    DnsResolver& resolver();
    OsDns wanted_os() const;
    void apply();
    std::string cannot(const Error& error) const;
    std::string fight(std::string_view other) const; ///< who wrote this instead of ours

    Reactor& reactor_;
    ResolvConf file_;
    MakeNames make_names_;
    DnsServer server_;
    EffectiveDns dns_;
    std::vector<IpAddress> listen_at_;
    std::optional<DnsResolver> resolver_;
    bool in_force_ = false;
    OsDns written_;
    std::string text_, stamp_; ///< of the file, as we left it
    std::string os_trouble_, fight_trouble_;
    int repairs_ = 0;
    std::optional<TimePoint> fight_began_, failing_since_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

public:
    ~DnsService() { *alive_ = false; }
};

} // namespace tailrace
