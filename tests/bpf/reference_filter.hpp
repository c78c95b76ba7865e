// tests/bpf/reference_filter.hpp - the packet filter once more, slow and obvious: what the packet programs are compared
// with.
#pragma once
#include "base/bytes.hpp"
#include "policy/tables.hpp" // FilterInput, the question; nothing of the answer

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace tailrace::test {

struct ReferenceVerdict {
    bool passes = false;
    std::string_view reason;         ///< as in bpf/shared/reasons.h; "malformed" stands for all that cannot be read
    std::optional<std::size_t> rule; ///< index of the rule that lets it in

    friend bool operator==(const ReferenceVerdict&, const ReferenceVerdict&) = default;
};

/// Goes through the list of rules for every packet, top to bottom, as the reference client does (tailscale
/// wgengine/filter/filter.go, match.go, tailcfg.go; net/packet/packet.go), and adds the strict settings (DESIGN 3).
/// Stricter than the client in what packet.bpf.h names: headers end where the packet says it ends, and IHL < 5 is
/// refused. Shares no code with policy/ and bpf/. One policy a filter: a change of policy is another test's business.
class ReferenceFilter {
public:
    struct Ip {
        int family = 0; ///< 4 or 6; 0: none
        std::array<std::uint8_t, 16> bytes{};
        auto operator<=>(const Ip&) const = default;
    };
    /// Both ends included, of one family.
    struct Range {
        Ip first, last;
        bool holds(const Ip& ip) const { return ip.family == first.family && first <= ip && ip <= last; }
    };
    /// What is read of a packet.
    struct Parsed {
        Ip src, dst;
        int proto = 0;
        std::uint16_t src_port = 0, dst_port = 0;
        bool syn = false, ack = false, rst = false;
        int icmp_type = -1, icmp_code = -1; ///< -1: no eight bytes of ICMP there
        bool first_fragment = false, later_fragment = false;
        std::uint32_t fragment_id = 0;
    };

    explicit ReferenceFilter(const FilterInput& input);

    /// A packet (without link header) comes in from a peer.
    ReferenceVerdict in(BytesView packet);
    /// A packet leaves towards a peer. `from_agent`: it carries the mark of the agent's own packets.
    ReferenceVerdict out(BytesView packet, bool from_agent);

    /// No value: not to be read.
    static std::optional<Parsed> parse(BytesView packet);
    bool is_local(const Ip& ip) const;
    /// The first rule that lets a packet with this header in, whatever it may answer.
    std::optional<std::size_t> rule_for(const Parsed& packet) const;

    /// Addresses where some rule, net or peer begins or ends: where mistakes would be.
    const std::vector<Ip>& edges() const { return edges_; }

private:
    struct Destination {
        std::vector<Range> ranges;
        int first_port = 0, last_port = 0;
    };
    struct Rule {
        std::vector<Range> sources;
        std::vector<std::string> caps;
        std::vector<Destination> destinations;
        std::vector<int> protos;
    };
    struct Peer {
        std::vector<Ip> addresses;
        std::vector<std::pair<Range, int>> allowed; ///< with the length of the prefix
        std::vector<std::string> caps;
        bool jailed = false;
    };
    using Flow = std::tuple<Ip, std::uint16_t, Ip, std::uint16_t, int, bool>;
    using Fragment = std::tuple<Ip, Ip, std::uint32_t, int>;

    bool has_cap(const Ip& ip, const std::vector<std::string>& caps) const;
    bool is_jailed(const Ip& ip) const;
    bool is_own(const Ip& ip) const;
    bool is_strict(const Ip& ours) const { return is_own(ours) ? strict_own_ : strict_forwarded_; }
    Flow flow_of(const Parsed& packet) const;
    ReferenceVerdict judge(const Parsed& packet) const;
    ReferenceVerdict by_rule(const Parsed& packet) const;

    std::vector<std::optional<Rule>> rules_; ///< by index; none: lets no packet in
    std::vector<Range> local_nets_;
    std::vector<Ip> own_;
    std::vector<Peer> peers_;
    std::vector<Ip> edges_;
    std::uint16_t peer_api4_ = 0, peer_api6_ = 0;
    bool shields_up_ = false, strict_forwarded_ = false, strict_own_ = false;
    std::set<Flow> flows_;         ///< what may come in as an answer
    std::set<Fragment> fragments_; ///< whose first one passed under a strict setting
};

} // namespace tailrace::test
