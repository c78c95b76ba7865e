#include "agent/doctor/examine.hpp"

#include "agent/dataplane/quirks.hpp"
#include "agent/doctor/health_advice.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {
namespace {

class Examination {
public:
    explicit Examination(const DoctorFacts& facts) : facts_(facts) {}

    std::vector<Finding> run() {
        agent();
        kernel();
        quirks();
        wireguard();
        nftables();
        routing();
        reverse_paths();
        firewall();
        mtu();
        offloads();
        clock();
        dns();
        return std::move(out_);
    }

private:
    void ok(const char* subject, std::string what) { out_.push_back({Severity::Ok, subject, std::move(what), "", ""}); }
    void warn(const char* subject, std::string what, std::string why, std::string cure) {
        out_.push_back({Severity::Warning, subject, std::move(what), std::move(why), std::move(cure)});
    }
    void error(const char* subject, std::string what, std::string why, std::string cure) {
        out_.push_back({Severity::Error, subject, std::move(what), std::move(why), std::move(cure)});
    }

    void agent() {
        if (!facts_.config_trouble.empty())
            error("configuration", facts_.config_trouble, "the agent does not start with it",
                  "correct the file; \"tailrace config check\" looks at it again");
        if (facts_.agent_answers == Answer::Yes)
            ok("agent", fmt::format("the agent answers; its state is {}", facts_.agent_state));
        if (facts_.agent_answers == Answer::No)
            warn("agent", "the agent does not answer", "traffic stays as it was, and nothing new is learned",
                 "sudo systemctl start tailraced");
        for (const std::string& message : facts_.health) {
            HealthAdvice advice = advice_on(message);
            warn("agent", std::move(advice.what), std::move(advice.why), std::move(advice.cure));
        }
        if (facts_.other_tailnet)
            warn("agent", "tailscaled runs on this machine too",
                 "both want routing table 52, the same rules and the same marks, and each takes away what the other "
                 "made",
                 "stop one of them: sudo systemctl disable --now tailscaled");
        if (!facts_.is_root)
            warn("doctor", "not run as root", "some questions to the kernel are for root only", "sudo tailrace doctor");
    }

    void kernel() {
        if (facts_.bpf_programs == Answer::No || facts_.bpf_maps == Answer::No)
            error("kernel", "this kernel cannot load our packet programs",
                  "without them there is no packet filter, and nothing passes",
                  "use a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_ACT, as Debian's; in a container, give it "
                  "CAP_BPF");
        else if (facts_.bpf_programs == Answer::Yes)
            ok("kernel", fmt::format("{} takes packet programs, attached by {}", facts_.kernel,
                                     facts_.tcx == Answer::Yes ? "TCX" : "the clsact qdisc"));
        if (facts_.bpffs == Answer::No)
            warn("kernel", "no BPF file system is mounted on /sys/fs/bpf",
                 "packet programs are pinned there, so that they outlive the agent",
                 "sudo mount -t bpf bpf /sys/fs/bpf");
        if (facts_.btf == Answer::No)
            error("kernel", "this kernel has no type information (/sys/kernel/btf/vmlinux)",
                  "its verifier refuses our packet programs without it (functions that are given the packet), and "
                  "nothing "
                  "from the tailnet passes",
                  "a kernel with CONFIG_DEBUG_INFO_BTF, as Debian's");
    }

    void quirks() {
        auto version = KernelVersion::parse(facts_.kernel);
        if (!version) return;
        for (const KernelQuirk* quirk : quirks_of(*version)) {
            bool userspace = facts_.wireguard_module == Answer::No;
            if (quirk->needs == QuirkNeeds::UserspaceWireGuard && !userspace) continue;
            if (quirk->needs == QuirkNeeds::ThreadedNapi && !has_threaded_napi()) continue;
            warn("kernel", fmt::format("{} may have the bug {}", facts_.kernel, quirk->name), quirk->what, quirk->cure);
        }
    }
    bool has_threaded_napi() const {
        return std::ranges::any_of(facts_.interfaces, [&](const auto& one) {
            return one.name == facts_.device && one.threaded_napi == Answer::Yes;
        });
    }

    void wireguard() {
        if (facts_.wireguard_module == Answer::Yes) return ok("wireguard", "the kernel has the WireGuard module");
        if (facts_.wireguard_module != Answer::No) return;
        if (facts_.wireguard_go == Answer::Yes)
            return warn("wireguard", "this kernel has no WireGuard module; wireguard-go stands in",
                        "every packet goes through userspace: slower, at a multiple of the CPU time",
                        "use a kernel with CONFIG_WIREGUARD, as Debian's");
        error("wireguard", "there is neither the kernel's WireGuard module nor wireguard-go",
              "nothing can be encrypted", "sudo apt install wireguard-go, or a kernel with CONFIG_WIREGUARD");
    }

    void nftables() {
        if (facts_.nftables == Answer::No)
            error("nftables", "this kernel has no nftables",
                  "the table that drops what no filter has judged cannot be made, so nothing is let through",
                  "use a kernel with CONFIG_NF_TABLES_INET, as Debian's");
        else if (!facts_.backstop_hold.empty())
            ok("nftables", fmt::format("our table is {}", facts_.backstop_hold));
    }

    void routing() {
        if (facts_.policy_routing == Answer::No)
            error("routing", "this kernel has no policy routing", "routes of the tailnet are kept in table 52",
                  "use a kernel with CONFIG_IP_MULTIPLE_TABLES, as Debian's");
        auto routes = facts_.advertises.value_or(AdvertisedFamilies{});
        bool forwards = true;
        auto forwarding = [&](bool matters, const std::optional<int>& value, const char* name) {
            if (!matters || value.value_or(0) != 0) return;
            forwards = false;
            if (!value) return; // no such family here
            error("routing", fmt::format("{} is 0", name),
                  "this node advertises routes, and the kernel drops what it should forward",
                  fmt::format("sudo sysctl -w {}=1, and the same in /etc/sysctl.d/", name));
        };
        forwarding(routes.v4, facts_.ip_forward, "net.ipv4.ip_forward");
        forwarding(routes.v6, facts_.ipv6_forward, "net.ipv6.conf.all.forwarding");
        if (facts_.advertises && forwards)
            ok("routing", routes.any() ? "the kernel forwards what this node advertises"
                                       : "no routes are advertised: nothing need be forwarded");
    }

    /// The kernel goes by the greater of an interface's and of "all"; of src_valid_mark one is enough. Source:
    /// Documentation/networking/ip-sysctl.rst.
    void reverse_paths() {
        std::vector<std::string> strict;
        if (facts_.src_valid_mark.value_or(1) != 0)
            return ok("routing", "replies of WireGuard pass the reverse path filter (src_valid_mark is 1)");
        if (facts_.rp_filter == 1) strict.emplace_back("all");
        for (const DoctorFacts::Interface& one : facts_.interfaces)
            if (one.is_uplink && one.rp_filter == 1 && one.src_valid_mark.value_or(0) == 0 &&
                facts_.rp_filter.value_or(0) == 0)
                strict.push_back(one.name);
        for (const std::string& where : strict)
            warn("routing", fmt::format("net.ipv4.conf.{}.rp_filter is 1 (strict) and src_valid_mark is 0", where),
                 "with an exit node the kernel drops replies of WireGuard, whose way back it looks up without our mark",
                 fmt::format("sudo sysctl -w net.ipv4.conf.all.src_valid_mark=1, or net.ipv4.conf.{}.rp_filter=2",
                             where));
        if (strict.empty()) ok("routing", "the reverse path filter (rp_filter) is not strict");
    }

    void firewall() {
        const std::size_t before = out_.size();
        bool routes = advertises();
        std::string manager;
        for (const DoctorFacts::Chain& chain : facts_.base_chains) {
            if (chain.table == "firewalld") manager = "firewalld";
            if (chain.drops && chain.hook == "forward" && routes && !chain.takes_device)
                warn("firewall",
                     fmt::format("chain {} of table {} {} drops what is forwarded and no rule allows", chain.name,
                                 chain.family, chain.table),
                     "this node advertises routes: the policy of the tailnet allows, and this drops afterwards",
                     fmt::format("allow what comes from {0}, such as: iptables -I FORWARD -i {0} -j ACCEPT; ufw: ufw "
                                 "route allow in on {0}; firewalld: firewall-cmd --permanent --zone=trusted "
                                 "--add-interface={0}",
                                 facts_.device));
            if (chain.drops && chain.hook == "input" && !(chain.takes_device && chain.takes_port))
                warn(
                    "firewall",
                    fmt::format("chain {} of table {} {} drops what comes in and no rule allows", chain.name,
                                chain.family, chain.table),
                    "where it has no rule for the UDP port of WireGuard, peers find only the way through a relay until "
                    "we send first; services on this host need a rule of their own as well",
                    fmt::format("allow UDP to port {}, and what shall come in from {}", facts_.port, facts_.device));
        }
        for (const std::string& where : facts_.masquerades_all)
            warn("firewall", fmt::format("{} masquerades whatever leaves, by any interface", where),
                 "it also changes the source of what goes into the tunnel: peers then see another address than the one "
                 "that the policy names",
                 fmt::format("name the interface in that rule, such as: oifname != \"{}\" masquerade", facts_.device));
        if (facts_.firewall_read == Answer::No)
            warn("firewall", "the rules of this host could not be read by the program nft",
                 "whether they keep out what the tailnet allows is not known", "sudo apt install nftables");
        if (!facts_.silent_rules.empty() && routes)
            warn("firewall", fmt::format("there are {}", facts_.silent_rules),
                 "nobody is told when what they forbid changes, so that every forwarded packet asks them: there is no "
                 "fast path",
                 "write them as rules and sets of nftables; for iptables: sudo update-alternatives --set iptables "
                 "/usr/sbin/iptables-nft, and the same for ip6tables");
        if (facts_.firewall_read == Answer::Yes && out_.size() == before)
            ok("firewall", facts_.base_chains.empty()
                               ? "this host has no rules but ours"
                               : fmt::format("none of {} chains of others is in the way", facts_.base_chains.size()));
        if (!manager.empty()) ok("firewall", manager + " is in use");
    }

    void mtu() {
        const std::size_t before = out_.size();
        std::string seen;
        for (const DoctorFacts::Interface& one : facts_.interfaces) {
            if (one.name == facts_.device && one.mtu < 1280)
                error("mtu", fmt::format("{} has MTU {}", one.name, one.mtu), "IPv6 needs 1280",
                      fmt::format("sudo ip link set {} mtu 1280", one.name));
            if (one.is_uplink && one.mtu < 1360)
                warn("mtu", fmt::format("{}, by which the internet is reached, has MTU {}", one.name, one.mtu),
                     "a full packet of the tunnel (1280 bytes and 80 around it) is sent in fragments, which many "
                     "networks drop",
                     fmt::format("sudo ip link set {} mtu 1360 or more, where the network carries it", one.name));
            if (one.is_uplink || one.name == facts_.device)
                seen += fmt::format("{}{} has {}", seen.empty() ? "" : ", ", one.name, one.mtu);
        }
        if (out_.size() == before && !seen.empty()) ok("mtu", seen);
    }

    void offloads() {
        const std::size_t before = out_.size();
        std::string seen;
        for (const DoctorFacts::Interface& one : facts_.interfaces) {
            if (!one.is_uplink) continue;
            if (one.udp_gro_forwarding == Answer::No && advertises())
                warn("offloads", fmt::format("UDP GRO forwarding is off on {}", one.name),
                     "this node forwards, and UDP is forwarded packet by packet",
                     fmt::format("sudo ethtool -K {} rx-udp-gro-forwarding on rx-gro-list off", one.name));
            if (one.gro_list == Answer::Yes)
                warn("offloads", fmt::format("rx-gro-list is on on {}", one.name),
                     "datagrams of path discovery arrive glued together",
                     fmt::format("sudo ethtool -K {} rx-gro-list off", one.name));
            if (one.gro_list == Answer::No) seen += (seen.empty() ? "" : ", ") + one.name;
        }
        if (out_.size() == before && !seen.empty()) ok("offloads", "those of " + seen + " suit path discovery");
    }

    void clock() {
        constexpr std::int64_t kBuiltAfter = 1'764'547'200; // December 2025
        if (facts_.now.seconds < kBuiltAfter)
            error("clock", fmt::format("the clock says {}", facts_.now.text()),
                  "certificates and keys are judged by the time", "set it: sudo timedatectl set-ntp true");
        else if (facts_.clock_is_synchronised == Answer::No)
            warn("clock", "nobody keeps the clock right",
                 "WireGuard refuses handshakes from before the last one: a clock that jumps back cuts a peer off",
                 "sudo apt install systemd-timesyncd, or chrony");
        else if (facts_.clock_is_synchronised == Answer::Yes)
            ok("clock", "the clock is synchronised");
    }

    void dns() {
        if (!facts_.nameservers || facts_.nameservers->empty())
            error("dns", "/etc/resolv.conf names no server", "the coordination server and the relays are found by name",
                  "name one, such as your router's address");
        else
            ok("dns", "names are asked of " + join(*facts_.nameservers, ", "));
    }

    bool advertises() const { return facts_.advertises && facts_.advertises->any(); }

    const DoctorFacts& facts_;
    std::vector<Finding> out_;
};

const char* word(Severity severity) {
    return severity == Severity::Ok ? "ok" : severity == Severity::Warning ? "warning" : "error";
}

} // namespace

std::vector<Finding> examine(const DoctorFacts& facts) {
    return Examination{facts}.run();
}

int exit_status(const std::vector<Finding>& findings) {
    int worst = 0;
    for (const Finding& finding : findings) worst = std::max(worst, static_cast<int>(finding.severity));
    return worst;
}

std::string findings_text(const std::vector<Finding>& findings) {
    std::string out;
    int warnings = 0, errors = 0;
    for (const Finding& finding : findings) {
        out += fmt::format("{:<8} {}: {}\n", word(finding.severity), finding.subject, finding.what);
        if (!finding.why.empty()) out += fmt::format("         why:  {}\n", finding.why);
        if (!finding.cure.empty()) out += fmt::format("         cure: {}\n", finding.cure);
        warnings += finding.severity == Severity::Warning;
        errors += finding.severity == Severity::Error;
    }
    return out + fmt::format("\n{} errors, {} warnings\n", errors, warnings);
}

std::string findings_json(const std::vector<Finding>& findings) {
    std::string out = "{\"Findings\":[";
    for (const Finding& finding : findings) {
        if (out.back() != '[') out += ',';
        const std::pair<const char*, std::string_view> members[] = {{"Severity", word(finding.severity)},
                                                                    {"Subject", finding.subject},
                                                                    {"What", finding.what},
                                                                    {"Why", finding.why},
                                                                    {"Cure", finding.cure}};
        out += '{';
        for (const auto& [name, value] : members) {
            if (out.back() != '{') out += ',';
            json::append_string(out, name);
            out += ':';
            json::append_string(out, value);
        }
        out += '}';
    }
    return out + fmt::format("],\"ExitStatus\":{}}}", exit_status(findings));
}

} // namespace tailrace
