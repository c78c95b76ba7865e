#include "agent/doctor/gather.hpp"

#include "agent/cli/run_program.hpp"
#include "agent/config/config.hpp"
#include "agent/doctor/ethtool.hpp"
#include "agent/doctor/ruleset.hpp"
#include "agent/peerapi/dns_proxy.hpp"
#include "base/file.hpp"
#include "base/text.hpp"
#include "netlink/link.hpp"
#include "netlink/nftables.hpp"
#include "netlink/route_lookup.hpp"
#include "netlink/router.hpp"
#include "netlink/silent_rules.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

namespace tailrace {
namespace {

Answer answer(bool yes) {
    return yes ? Answer::Yes : Answer::No;
}

std::optional<int> number_in(const std::string& path) {
    auto text = read_file(path, 64);
    if (!text) return std::nullopt;
    auto number = parse_number<int>(trim(*text));
    return number ? std::optional<int>{*number} : std::nullopt;
}

/// libbpf's probes: 1, 0, or below zero when it could not be tried.
Answer probed(std::initializer_list<int> results) {
    for (int result : results)
        if (result < 0) return Answer::Unknown;
    return answer(std::ranges::all_of(results, [](int result) { return result == 1; }));
}

void ask_for_bpf(DoctorFacts& facts) {
    struct statfs about {};
    facts.bpffs =
        answer(::statfs("/sys/fs/bpf", &about) == 0 && static_cast<unsigned long>(about.f_type) == BPF_FS_MAGIC);
    facts.btf = answer(::access("/sys/kernel/btf/vmlinux", F_OK) == 0);
    if (!facts.is_root) return;
    libbpf_set_print(nullptr);
    facts.bpf_programs = probed({::libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SCHED_CLS, nullptr)});
    facts.bpf_maps = probed({::libbpf_probe_bpf_map_type(BPF_MAP_TYPE_LRU_HASH, nullptr),
                             ::libbpf_probe_bpf_map_type(BPF_MAP_TYPE_LPM_TRIE, nullptr),
                             ::libbpf_probe_bpf_map_type(BPF_MAP_TYPE_ARRAY_OF_MAPS, nullptr)});
    constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46); // newer than the headers of libbpf 1.1
    std::uint32_t count = 0;
    int asked = ::bpf_prog_query(static_cast<int>(::if_nametoindex("lo")), kTcxIngress, 0, nullptr, nullptr, &count);
    facts.tcx = answer(asked == 0);
}

/// Runs `look` in a network namespace that ends with it, so that this machine's is not touched, and gives what it gives
/// (0 to 99); nothing when that cannot be had.
template <typename Look>
std::optional<int> in_an_empty_network(Look look) {
    constexpr int kNoNamespace = 100;
    pid_t child = ::fork();
    if (child < 0) return std::nullopt;
    if (child == 0) ::_exit(::unshare(CLONE_NEWNET) == 0 ? look() : kNoNamespace);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (!WIFEXITED(status) || WEXITSTATUS(status) >= kNoNamespace) return std::nullopt;
    return WEXITSTATUS(status);
}

/// Made for real where we may. Otherwise it is known only when it is loaded.
Answer has_wireguard(bool is_root) {
    if (::access("/sys/module/wireguard", F_OK) == 0) return Answer::Yes;
    if (!is_root) return Answer::Unknown;
    auto made = in_an_empty_network([] {
        auto links = Links::open();
        return links && links->create("probe0", "wireguard") ? 1 : 0;
    });
    return made ? answer(*made == 1) : Answer::Unknown;
}

void ask_for_nftables(DoctorFacts& facts) {
    constexpr int kNone = 99;
    if (!facts.is_root) return;
    auto hold = in_an_empty_network([] {
        auto made = Backstop::create("probe0", 1);
        if (!made) return kNone;
        auto held = made->ensure();
        return held ? static_cast<int>(held->hold) : kNone;
    });
    if (!hold) return;
    facts.nftables = answer(*hold != kNone);
    if (*hold != kNone) facts.backstop_hold = std::string{text(static_cast<BackstopHold>(*hold))};
}

void ask_for_interfaces(DoctorFacts& facts) {
    auto links = Links::open();
    if (!links) return;
    auto all = links->list();
    if (!all) return;
    int uplink = 0;
    if (auto lookup = RouteLookup::open())
        if (auto route = lookup->find(*IpAddress::parse("192.0.2.1"), kBypassMark)) uplink = route->device_index;
    for (const Link& link : *all) {
        if (link.loopback) continue;
        if (link.name == "tailscale0") facts.other_tailnet = true;
        DoctorFacts::Interface one;
        one.name = link.name;
        one.mtu = link.mtu;
        one.is_uplink = link.index == uplink;
        if (auto threaded = number_in("/sys/class/net/" + link.name + "/threaded"))
            one.threaded_napi = answer(*threaded != 0);
        one.rp_filter = number_in("/proc/sys/net/ipv4/conf/" + link.name + "/rp_filter");
        one.src_valid_mark = number_in("/proc/sys/net/ipv4/conf/" + link.name + "/src_valid_mark");
        for (const auto& [name, on] : interface_features(link.name)) {
            if (name == "rx-udp-gro-forwarding") one.udp_gro_forwarding = answer(on);
            if (name == "rx-gro-list") one.gro_list = answer(on);
        }
        facts.interfaces.push_back(std::move(one));
    }
}

void ask_for_names(DoctorFacts& facts) {
    auto text = read_file(kResolvConf, 64 << 10);
    if (!text) return;
    facts.nameservers = nameservers_in(*text);
}

} // namespace

DoctorFacts gather_facts(const std::string& device, std::uint16_t port, const std::string& config_file) {
    DoctorFacts facts;
    facts.device = device;
    facts.port = port;
    facts.is_root = ::geteuid() == 0;
    facts.now = WallTime::now();
    utsname system{};
    if (::uname(&system) == 0) facts.kernel = system.release;
    ask_for_bpf(facts);
    facts.wireguard_module = has_wireguard(facts.is_root);
    facts.wireguard_go = answer(!cli::find_program("wireguard-go").empty());
    ask_for_nftables(facts);
    facts.policy_routing = answer(::access("/proc/sys/net/ipv4/ip_forward", F_OK) != 0 || Router::create(device));
    facts.ip_forward = number_in("/proc/sys/net/ipv4/ip_forward");
    facts.ipv6_forward = number_in("/proc/sys/net/ipv6/conf/all/forwarding");
    facts.rp_filter = number_in("/proc/sys/net/ipv4/conf/all/rp_filter");
    facts.src_valid_mark = number_in("/proc/sys/net/ipv4/conf/all/src_valid_mark");
    if (facts.is_root) {
        auto rules =
            cli::run_program({"nft", "-j", "list", "ruleset"}, cli::Stderr::Drop, 16 << 20, std::chrono::seconds{5});
        facts.firewall_read = answer(rules && rules->status == 0 && read_ruleset(rules->text, facts));
        if (auto silent = find_silent_rules()) facts.silent_rules = *silent;
    }
    ask_for_interfaces(facts);
    timex clock{};
    int state = ::adjtimex(&clock);
    if (state >= 0) facts.clock_is_synchronised = answer(state != TIME_ERROR && (clock.status & STA_UNSYNC) == 0);
    ask_for_names(facts);
    if (::access(config_file.c_str(), F_OK) == 0)
        if (auto config = load_agent_config(config_file); !config) facts.config_trouble = config.error().message();
    return facts;
}

} // namespace tailrace
