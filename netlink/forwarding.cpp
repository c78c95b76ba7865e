#include "netlink/forwarding.hpp"

#include "base/net.hpp"
#include "netlink/nft_rules.hpp"
#include "netlink/router.hpp"

#include <endian.h>
#include <linux/in.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {

using namespace nft;

namespace {

constexpr std::uint32_t kSubnetMark = 0x40000; // bpf/shared/marks.h, TR_MARK_SUBNET_ROUTE
constexpr std::int32_t kManglePriority = -150;
constexpr std::int32_t kBeforeFilter = -5; // before everybody's filter rules, which may accept for good
constexpr std::int32_t kSourceNatPriority = 100;
constexpr std::uint32_t kEstablishedOrRelated = 0x2 | 0x4; // NF_CT_STATE_BIT of the two
constexpr std::uint32_t kNew = 0x8;
constexpr std::uint32_t kUntracked = 0x40;

/// An address in the IP header.
struct AddressField {
    std::uint32_t offset4, offset6;
};
constexpr AddressField kSource{12, 8}, kDestination{16, 24};

void append_state(nftnl_rule* rule, std::uint32_t bits) {
    const std::uint32_t zero = 0;
    append_ct(rule, NFT_CT_STATE);
    append_mask(rule, &bits, sizeof bits);
    append_unequal(rule, &zero, sizeof zero);
}

void append_no_state(nftnl_rule* rule, std::uint32_t bits) {
    const std::uint32_t zero = 0;
    append_ct(rule, NFT_CT_STATE);
    append_mask(rule, &bits, sizeof bits);
    append_equal(rule, &zero, sizeof zero);
}

/// The byte of the mark in register 1 that is ours, is this.
void append_is_mark(nftnl_rule* rule, std::uint32_t mark) {
    append_mask(rule, &kFwmarkMask, sizeof kFwmarkMask);
    append_equal(rule, &mark, sizeof mark);
}

/// Puts the mark into that byte of register 1.
void append_change_mark(nftnl_rule* rule, std::uint32_t mark) {
    const std::uint32_t keep = ~kFwmarkMask;
    append_mask(rule, &keep, sizeof keep, &mark);
}

void append_address(nftnl_rule* rule, AddressField field, const IpPrefix& prefix) {
    const bool v4 = prefix.address().is_v4();
    (v4 ? append_ipv4 : append_ipv6)(rule);
    const BytesView address = prefix.address().bytes();
    const auto size_bytes = static_cast<std::uint32_t>(address.size());
    append_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, v4 ? field.offset4 : field.offset6, size_bytes);
    std::array<std::uint8_t, 16> mask{};
    for (int bit = 0; bit < prefix.bits(); ++bit) mask[bit / 8] |= static_cast<std::uint8_t>(0x80 >> (bit % 8));
    append_mask(rule, mask.data(), size_bytes);
    append_equal(rule, address.data(), size_bytes);
}

const IpPrefix& chrome_os_prefix() { // its virtual machines live in the middle of the tailnet's range
    static const IpPrefix prefix = *IpPrefix::parse("100.115.92.0/23");
    return prefix;
}

class Plan {
public:
    Plan(std::string table, std::string device, bool hooked)
        : table_(std::move(table)), device_(std::move(device)), hooked_(hooked) {}

    void marks() {
        open("restore", {"filter", NF_INET_PRE_ROUTING, kManglePriority});
        nftnl_rule* rule = add();
        append_state(rule, kEstablishedOrRelated);
        append_ct(rule, NFT_CT_MARK);
        append_is_mark(rule, kBypassMark);
        append_meta(rule, NFT_META_MARK);
        append_change_mark(rule, kBypassMark);
        append_set_meta(rule, NFT_META_MARK);
        open("save", {"filter", NF_INET_LOCAL_OUT, kManglePriority});
        rule = add();
        append_state(rule, kNew);
        append_meta(rule, NFT_META_MARK);
        append_is_mark(rule, kBypassMark);
        append_ct(rule, NFT_CT_MARK);
        append_change_mark(rule, kBypassMark);
        append_set_ct(rule, NFT_CT_MARK);
    }
    void answers() {
        open("arrived", {"filter", NF_INET_LOCAL_IN, kManglePriority});
        for (const IpPrefix& own : {cgnat_prefix(), tailscale_ula_prefix()}) {
            nftnl_rule* rule = add();
            append_address(rule, kDestination, own);
            append_verdict(rule, NFT_RETURN);
        }
        nftnl_rule* rule = add();
        append_not_interface(rule, NFT_META_IIFNAME, device_);
        append_not_interface(rule, NFT_META_IIFNAME, "lo");
        append_ct(rule, NFT_CT_MARK);
        append_is_mark(rule, 0);
        append_ct(rule, NFT_CT_MARK);
        append_change_mark(rule, kBypassMark);
        append_set_ct(rule, NFT_CT_MARK);
        open("answer", {"route", NF_INET_LOCAL_OUT, kManglePriority});
        rule = add();
        append_ct(rule, NFT_CT_MARK);
        append_is_mark(rule, kBypassMark);
        append_meta(rule, NFT_META_MARK);
        append_is_mark(rule, 0);
        append_meta(rule, NFT_META_MARK);
        append_change_mark(rule, kBypassMark);
        append_set_meta(rule, NFT_META_MARK);
    }
    void input() {
        open("input", {"filter", NF_INET_LOCAL_IN, kBeforeFilter});
        for (const IpPrefix& source : {chrome_os_prefix(), cgnat_prefix(), tailscale_ula_prefix()}) {
            nftnl_rule* rule = add();
            append_not_interface(rule, NFT_META_IIFNAME, device_);
            append_not_interface(rule, NFT_META_IIFNAME, "lo");
            append_address(rule, kSource, source);
            append(rule, "counter");
            append_verdict(rule, source == chrome_os_prefix() ? NFT_RETURN : NF_DROP);
        }
    }
    void forward(bool stateful) {
        open("forward", {"filter", NF_INET_FORWARD, kBeforeFilter});
        nftnl_rule* rule = add();
        append_interface(rule, NFT_META_IIFNAME, device_);
        append_meta(rule, NFT_META_MARK);
        append_change_mark(rule, kSubnetMark);
        append_set_meta(rule, NFT_META_MARK);
        append_verdict(rule, NFT_RETURN);
        for (const IpPrefix& source : {cgnat_prefix(), tailscale_ula_prefix()}) {
            rule = add();
            append_interface(rule, NFT_META_OIFNAME, device_);
            append_address(rule, kSource, source);
            append(rule, "counter");
            append_verdict(rule, NF_DROP);
        }
        if (!stateful) return;
        rule = add();
        append_interface(rule, NFT_META_OIFNAME, device_);
        append_no_state(rule, kEstablishedOrRelated | kUntracked);
        append(rule, "counter");
        append_verdict(rule, NF_DROP);
    }
    void refuse() {
        open("forward", {"filter", NF_INET_FORWARD, kBeforeFilter});
        for (std::uint32_t which : {NFT_META_IIFNAME, NFT_META_OIFNAME}) {
            nftnl_rule* rule = add();
            append_interface(rule, which, device_);
            append(rule, "counter");
            append_verdict(rule, NF_DROP);
        }
    }
    void masquerade() {
        open("masquerade", {"nat", NF_INET_POST_ROUTING, kSourceNatPriority});
        nftnl_rule* rule = add();
        append_meta(rule, NFT_META_MARK);
        append_is_mark(rule, kSubnetMark);
        append_not_interface(rule, NFT_META_OIFNAME, device_);
        append(rule, "counter");
        append(rule, "masq");
    }
    std::vector<PlannedChain> take() { return std::move(chains_); }

private:
    void open(const char* name, Hook hook) {
        chains_.push_back({name, hooked_ ? std::optional{hook} : std::nullopt, {}});
    }
    nftnl_rule* add() {
        chains_.back().rules.push_back(empty_rule(NFPROTO_INET, table_, chains_.back().name));
        return chains_.back().rules.back().get();
    }
    std::string table_, device_;
    bool hooked_;
    std::vector<PlannedChain> chains_;
};

std::vector<PlannedChain> planned(const std::string& table, const std::string& device, const ForwardingConfig& wanted) {
    Plan plan{table, device, wanted.mode == ForwardingMode::On};
    if (wanted.keep_marks) plan.marks();
    if (wanted.keep_marks && wanted.answer_as_asked) plan.answers();
    if (wanted.drop_spoofed) plan.input();
    plan.forward(wanted.stateful);
    if (wanted.masquerade) plan.masquerade();
    return plan.take();
}

/// Rules of ours in a chain of somebody else, the first one first.
std::vector<Rule> planned_in_filter(const BaseChain& chain, const std::string& device, const std::string& comment,
                                    const ForwardingConfig& wanted) {
    std::vector<Rule> rules;
    if (wanted.mode != ForwardingMode::On) return rules;
    auto add = [&]() {
        rules.push_back(empty_rule(chain.family, chain.table, chain.name.c_str()));
        set_comment(rules.back().get(), comment);
        return rules.back().get();
    };
    auto accept = [](nftnl_rule* rule) {
        append(rule, "counter");
        append_verdict(rule, NF_ACCEPT);
    };
    nftnl_rule* rule = add();
    append_interface(rule, NFT_META_IIFNAME, device);
    accept(rule);
    if (chain.hook == NF_INET_FORWARD) {
        rule = add();
        append_interface(rule, NFT_META_OIFNAME, device);
        accept(rule);
    } else if (wanted.port != 0) {
        const std::uint8_t udp = IPPROTO_UDP;
        const std::uint16_t port = htobe16(wanted.port);
        rule = add();
        append_meta(rule, NFT_META_L4PROTO);
        append_equal(rule, &udp, sizeof udp);
        append_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, sizeof port);
        append_equal(rule, &port, sizeof port);
        accept(rule);
    }
    return rules;
}

bool is_conventional(const BaseChain& chain) {
    if (chain.table != "filter" || chain.type != "filter") return false;
    if (chain.family != NFPROTO_IPV4 && chain.family != NFPROTO_IPV6) return false;
    return (chain.name == "FORWARD" && chain.hook == NF_INET_FORWARD) ||
           (chain.name == "INPUT" && chain.hook == NF_INET_LOCAL_IN);
}

std::string_view family_text(std::uint16_t family) {
    return family == NFPROTO_IPV4 ? "ip" : family == NFPROTO_IPV6 ? "ip6" : "inet";
}

} // namespace

Forwarding::Forwarding(const std::string& device, NetlinkSocket socket)
    : device_(device), table_("tailrace-" + device + "-forward"), comment_("tailrace " + device),
      socket_(std::move(socket)) {}

Result<Forwarding> Forwarding::create(const std::string& device) {
    if (device.empty() || device.size() >= IFNAMSIZ) return Error::make("forwarding: \"{}\" names no device", device);
    auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
    if (!socket) return socket.error().with("forwarding for {}", device);
    return Forwarding{device, std::move(*socket)};
}

Result<std::string> Forwarding::what_is_wrong(const std::vector<PlannedChain>& chains) {
    std::size_t rules = 0;
    for (const PlannedChain& chain : chains) {
        auto found = read_chain(socket_, NFPROTO_INET, table_, chain.name);
        if (!found) return found.error();
        if (!*found) return fmt::format("there is no chain {}", chain.name);
        if (!hangs_as_planned(found->get(), chain)) return fmt::format("chain {} hangs in another place", chain.name);
        auto read = read_rules(socket_, NFPROTO_INET, table_, chain.name);
        if (!read) return read.error();
        auto same = [](const RuleSummary& is, const Rule& shall) {
            return is.meaning == summary_of(shall.get()).meaning;
        };
        if (!std::ranges::equal(*read, chain.rules, same))
            return fmt::format("the rules of {} are not ours", chain.name);
        rules += chain.rules.size();
    }
    auto all = read_rules(socket_, NFPROTO_INET, table_, "");
    if (!all) return all.error();
    if (all->size() != rules) return std::string{"there are rules that are not wanted"};
    return std::string{};
}

Result<void> Forwarding::make_table(const std::vector<PlannedChain>& chains) {
    std::vector<NetlinkMessage> batch;
    batch.push_back(batch_edge(nftnl_batch_begin));
    batch.push_back(table_message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, table_, 0)); // so that there is one
    batch.push_back(table_message(NFT_MSG_DELTABLE, NLM_F_ACK, table_, 0));
    batch.push_back(table_message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, table_, 0));
    for (const PlannedChain& chain : chains) {
        batch.push_back(chain_message(table_, chain));
        for (const Rule& rule : chain.rules) batch.push_back(rule_message(rule.get(), Place::Last));
    }
    batch.push_back(batch_edge(nftnl_batch_end));
    return socket_.transaction(batch);
}

Result<void> Forwarding::refuse() {
    Plan plan{table_, device_, true};
    plan.refuse();
    const auto chains = plan.take();
    if (auto wrong = what_is_wrong(chains); wrong && wrong->empty()) return {}; // whoever watches need not look again
    auto made = make_table(chains);
    return made ? made : made.error().with("make nftables table {}", table_);
}

Result<void> Forwarding::remove_table() {
    return nft::remove_table(socket_, table_);
}

Result<void> Forwarding::open_filters(const ForwardingConfig& wanted) {
    auto chains = read_base_chains(socket_);
    if (!chains) return chains.error().with("read nftables chains");
    for (const BaseChain& chain : *chains) {
        if (!is_conventional(chain)) continue;
        const auto rules = planned_in_filter(chain, device_, comment_, wanted);
        auto found = read_rules(socket_, chain.family, chain.table, chain.name);
        if (!found) return found.error().with("read chain {} of table {}", chain.name, chain.table);
        std::erase_if(*found, [&](const RuleSummary& rule) { return rule.comment != comment_; });
        auto same = [](const RuleSummary& is, const Rule& shall) {
            return is.meaning == summary_of(shall.get()).meaning;
        };
        if (std::ranges::equal(*found, rules, same)) continue;
        std::vector<NetlinkMessage> batch;
        batch.push_back(batch_edge(nftnl_batch_begin));
        for (const RuleSummary& rule : *found)
            batch.push_back(remove_rule_message(chain.family, chain.table, chain.name, rule.handle));
        for (auto rule = rules.rbegin(); rule != rules.rend(); ++rule)
            batch.push_back(rule_message(rule->get(), Place::First));
        batch.push_back(batch_edge(nftnl_batch_end));
        auto changed = socket_.transaction(batch);
        if (!changed)
            return changed.error().with("change chain {} of table {} {}", chain.name, family_text(chain.family),
                                        chain.table);
    }
    return {};
}

Result<std::vector<std::string>> Forwarding::obstacles() {
    std::vector<std::string> out;
    auto chains = read_base_chains(socket_);
    if (!chains) return chains.error().with("read nftables chains");
    bool firewalld = false;
    for (const BaseChain& chain : *chains) {
        if (chain.hook != NF_INET_FORWARD || chain.type != "filter" || is_conventional(chain)) continue;
        if (chain.family != NFPROTO_IPV4 && chain.family != NFPROTO_IPV6 && chain.family != NFPROTO_INET) continue;
        const bool is_firewalld = chain.table == "firewalld"; // ends with a reject, not with a policy
        if (!is_firewalld && !chain.drops_by_policy) continue;
        auto rules = read_rules(socket_, chain.family, chain.table, "");
        if (!rules) return rules.error().with("read table {}", chain.table);
        Rule example = empty_rule(chain.family, chain.table, "");
        append_interface(example.get(), NFT_META_IIFNAME, device_);
        const std::string exact = summary_of(example.get()).meaning;
        auto names_us = [&](const RuleSummary& rule) { return rule.meaning.find(exact) != std::string::npos; };
        if (std::ranges::any_of(*rules, names_us)) continue;
        if (is_firewalld) {
            if (!std::exchange(firewalld, true))
                out.push_back(fmt::format(
                    "firewalld refuses to forward packets of {0}: run \"firewall-cmd --permanent --zone=trusted "
                    "--add-interface={0}\" and \"firewall-cmd --reload\".",
                    device_));
            continue;
        }
        out.push_back(fmt::format(
            "The nftables chain \"{0} {1} {2}\" drops what no rule of it accepts, and none is about {3}: forwarded "
            "packets do not pass. Run \"nft insert rule {0} {1} {2} iifname {3} accept\" and \"nft insert rule {0} {1} "
            "{2} oifname {3} accept\", and put the same into the file that the chain comes from.",
            family_text(chain.family), chain.table, chain.name, device_));
    }
    return out;
}

Result<std::vector<std::string>> Forwarding::reconcile(const ForwardingConfig& wanted) {
    stands_ = false;
    if (wanted.mode == ForwardingMode::Off) {
        if (auto removed = remove(); !removed) return removed.error();
        return std::vector<std::string>{};
    }
    auto settle = [&](const ForwardingConfig& config) -> Result<void> {
        const auto chains = planned(table_, device_, config);
        auto wrong = what_is_wrong(chains);
        if (!wrong) return wrong.error().with("read nftables table {}", table_);
        if (wrong->empty()) return {};
        if (auto made = make_table(chains); !made) return made.error().with("make nftables table {}", table_);
        wrong = what_is_wrong(chains);
        if (!wrong) return wrong.error().with("read nftables table {}", table_);
        if (!wrong->empty()) return Error::make("nftables table {} did not stay: {}", table_, *wrong);
        return {};
    };
    std::vector<std::string> warnings;
    auto settled = settle(wanted);
    if (!settled && settled.error().code() == EOPNOTSUPP && wanted.keep_marks) {
        ForwardingConfig reduced = wanted;
        reduced.keep_marks = false;
        settled = settle(reduced);
        warnings.emplace_back(
            "This kernel cannot mark connections (CONFIG_NF_CONNTRACK_MARK): where rp_filter is 1, peers "
            "are not reached directly while an exit node is in use.");
    }
    if (!settled) return settled.error();
    stands_ = true;
    if (auto opened = open_filters(wanted); !opened) return opened.error();
    if (!wanted.routes || wanted.mode != ForwardingMode::On) return warnings;
    auto others = obstacles();
    if (!others) return others.error();
    warnings.insert(warnings.end(), others->begin(), others->end());
    return warnings;
}

Result<void> Forwarding::remove() {
    ForwardingConfig nothing;
    nothing.mode = ForwardingMode::Off;
    auto closed = open_filters(nothing);
    auto removed = remove_table();
    return closed ? removed : closed;
}

} // namespace tailrace
