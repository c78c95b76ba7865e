// agent/doctor/facts.hpp - what `tailrace doctor` has seen of a machine. Gathered by gather.cpp, judged by examine.cpp.
#pragma once
#include "base/time.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

/// Unknown: it could not be asked, mostly for want of root.
enum class Answer { Unknown, No, Yes };

/// By what the kernel forwards: 4via6 is IPv4 behind the filter.
struct AdvertisedFamilies {
    bool v4 = false, v6 = false;
    bool any() const { return v4 || v6; }
};

struct DoctorFacts {
    std::string device = "tailrace0";
    bool is_root = false;

    std::string kernel; ///< uname -r
    Answer bpf_programs = Answer::Unknown;
    Answer bpf_maps = Answer::Unknown; ///< LRU hashes, prefixes, maps of maps
    Answer bpffs = Answer::Unknown;
    Answer btf = Answer::Unknown;
    Answer tcx = Answer::Unknown; ///< else the clsact qdisc
    Answer wireguard_module = Answer::Unknown;
    Answer wireguard_go = Answer::Unknown;
    Answer nftables = Answer::Unknown;
    std::string backstop_hold; ///< how well nftables protects our table; empty: not known
    Answer policy_routing = Answer::Unknown;

    std::optional<int> ip_forward, ipv6_forward, rp_filter, src_valid_mark;
    std::optional<AdvertisedFamilies> advertises; ///< what the agent has been told; empty: the agent does not answer
    std::uint16_t port = 41641;                   ///< of WireGuard

    struct Chain {
        std::string family, table, name, hook;
        bool drops = false;        ///< its policy
        bool takes_device = false; ///< a rule accepts whatever comes from the tunnel
        bool takes_port = false;   ///< and one our UDP port
        bool refuses_rest = false; ///< a rule without a condition drops: what stands behind it counts for nothing
    };
    std::vector<Chain> base_chains;           ///< of other people
    std::vector<std::string> masquerades_all; ///< chains that masquerade whatever leaves
    Answer firewall_read = Answer::Unknown;   ///< all of the above
    std::string silent_rules;                 ///< netlink/silent_rules.hpp
    bool other_tailnet = false;               ///< tailscaled runs here: it wants the same table, marks and rules

    struct Interface {
        std::string name;
        std::uint32_t mtu = 0;
        bool is_uplink = false;
        Answer threaded_napi = Answer::Unknown;
        Answer udp_gro_forwarding = Answer::Unknown;
        Answer gro_list = Answer::Unknown;
        std::optional<int> rp_filter{}, src_valid_mark{}; ///< of its own; those of "all" count as well
    };
    std::vector<Interface> interfaces; ///< no loopback

    Answer clock_is_synchronised = Answer::Unknown;
    WallTime now;
    std::optional<std::vector<std::string>> nameservers; ///< of /etc/resolv.conf; empty: no such file

    Answer agent_answers = Answer::Unknown;
    std::string agent_state; ///< "Running", ...
    std::vector<std::string> health;
    std::string config_trouble; ///< of /etc/tailrace/tailraced.yaml
};

} // namespace tailrace
