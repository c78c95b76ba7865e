#include "netlink/nftables.hpp"

#include "netlink/attributes.hpp"

#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>

namespace tailrace {
namespace {

constexpr const char* kBackstopChain = "backstop";
constexpr int kBackstopPriority = -450; // NF_IP_PRI_RAW_BEFORE_DEFRAG
constexpr const char* kRelayedChain = "relayed";
constexpr int kRelayedPriority = -300;                      // NF_IP_PRI_RAW
constexpr std::uint8_t kRelayedNetwork[] = {127, 64, 0, 0}; // agent/relay/relay_addresses
constexpr std::uint8_t kRelayedMask[] = {255, 192, 0, 0};
constexpr std::uint32_t kSourceOffset = 12, kDestinationOffset = 16; // of an IPv4 header
constexpr std::uint32_t kOwnerFlag = 0x2;                            // NFT_TABLE_F_OWNER, Linux 5.12
constexpr std::uint32_t kPersistFlag = 0x4;                          // NFT_TABLE_F_PERSIST, Linux 6.9
constexpr std::uint16_t kTableNameAttribute = 1;                     // of tables, chains and rules alike

template <auto Free>
struct Deleter {
    template <typename T>
    void operator()(T* object) const {
        Free(object);
    }
};
using Table = std::unique_ptr<nftnl_table, Deleter<nftnl_table_free>>;
using Chain = std::unique_ptr<nftnl_chain, Deleter<nftnl_chain_free>>;
using Rule = std::unique_ptr<nftnl_rule, Deleter<nftnl_rule_free>>;

std::string table_name_of(const std::string& device) {
    return "tailrace-" + device;
}

/// Runs a builder of libnftnl on a buffer and takes the message away from it.
template <typename Build>
NetlinkMessage built(int message, int flags, Build&& build) {
    alignas(nlmsghdr) std::array<char, 4096> buffer{};
    nlmsghdr* header = nftnl_nlmsg_build_hdr(buffer.data(), static_cast<std::uint16_t>(message), NFPROTO_INET,
                                             static_cast<std::uint16_t>(flags), 0);
    build(header);
    return NetlinkMessage::copy_of(*header);
}

NetlinkMessage batch_edge(nlmsghdr* (*edge)(char*, std::uint32_t)) {
    alignas(nlmsghdr) std::array<char, 64> buffer{};
    return NetlinkMessage::copy_of(*edge(buffer.data(), 0));
}

NetlinkMessage table_message(int message, int flags, const std::string& name, std::uint32_t table_flags) {
    Table table{nftnl_table_alloc()};
    nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, name.c_str());
    if (message == NFT_MSG_NEWTABLE) nftnl_table_set_u32(table.get(), NFTNL_TABLE_FLAGS, table_flags);
    return built(message, flags, [&](nlmsghdr* header) { nftnl_table_nlmsg_build_payload(header, table.get()); });
}

nftnl_expr* append(nftnl_rule* rule, const char* kind) {
    nftnl_expr* expression = nftnl_expr_alloc(kind);
    if (expression != nullptr) nftnl_rule_add_expr(rule, expression);
    return expression;
}

void append_meta(nftnl_rule* rule, std::uint32_t key) {
    auto* meta = append(rule, "meta");
    nftnl_expr_set_u32(meta, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(meta, NFTNL_EXPR_META_DREG, NFT_REG_1);
}

void append_equal(nftnl_rule* rule, const void* data, std::size_t size_bytes) {
    auto* compare = append(rule, "cmp");
    nftnl_expr_set_u32(compare, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    nftnl_expr_set_u32(compare, NFTNL_EXPR_CMP_OP, NFT_CMP_EQ);
    nftnl_expr_set(compare, NFTNL_EXPR_CMP_DATA, data, static_cast<std::uint32_t>(size_bytes));
}

Rule empty_rule(const std::string& table, const char* chain) {
    Rule rule{nftnl_rule_alloc()};
    nftnl_rule_set_u32(rule.get(), NFTNL_RULE_FAMILY, NFPROTO_INET);
    nftnl_rule_set_str(rule.get(), NFTNL_RULE_TABLE, table.c_str());
    nftnl_rule_set_str(rule.get(), NFTNL_RULE_CHAIN, chain);
    return rule;
}

void append_interface(nftnl_rule* rule, std::uint32_t which, const std::string& device) {
    std::array<char, IFNAMSIZ> name{}; // with all its zeros: the whole name, not the beginning of one
    device.copy(name.data(), name.size() - 1);
    append_meta(rule, which);
    append_equal(rule, name.data(), name.size());
}

void append_mask(nftnl_rule* rule, const void* mask, std::uint32_t size_bytes) {
    const std::uint32_t zero = 0;
    auto* bitwise = append(rule, "bitwise");
    nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
    nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
    nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_LEN, size_bytes);
    nftnl_expr_set(bitwise, NFTNL_EXPR_BITWISE_MASK, mask, size_bytes);
    nftnl_expr_set(bitwise, NFTNL_EXPR_BITWISE_XOR, &zero, size_bytes);
}

/// iifname "DEVICE" meta mark & BIT == 0 counter drop
Rule backstop_rule(const std::string& table, const std::string& device, std::uint32_t mark_bit) {
    Rule rule = empty_rule(table, kBackstopChain);
    append_interface(rule.get(), NFT_META_IIFNAME, device);
    const std::uint32_t zero = 0;
    append_meta(rule.get(), NFT_META_MARK);
    append_mask(rule.get(), &mark_bit, sizeof mark_bit);
    append_equal(rule.get(), &zero, sizeof zero);

    append(rule.get(), "counter");
    auto* verdict = append(rule.get(), "immediate");
    nftnl_expr_set_u32(verdict, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(verdict, NFTNL_EXPR_IMM_VERDICT, NF_DROP);
    return rule;
}

/// oifname "lo" ip saddr 127.64.0.0/10 notrack; or daddr
Rule relayed_rule(const std::string& table, std::uint32_t address_offset) {
    Rule rule = empty_rule(table, kRelayedChain);
    append_interface(rule.get(), NFT_META_OIFNAME, "lo");
    const std::uint8_t ipv4 = NFPROTO_IPV4;
    append_meta(rule.get(), NFT_META_NFPROTO);
    append_equal(rule.get(), &ipv4, sizeof ipv4);
    auto* address = append(rule.get(), "payload");
    nftnl_expr_set_u32(address, NFTNL_EXPR_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
    nftnl_expr_set_u32(address, NFTNL_EXPR_PAYLOAD_OFFSET, address_offset);
    nftnl_expr_set_u32(address, NFTNL_EXPR_PAYLOAD_LEN, sizeof kRelayedNetwork);
    nftnl_expr_set_u32(address, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
    append_mask(rule.get(), kRelayedMask, sizeof kRelayedMask);
    append_equal(rule.get(), kRelayedNetwork, sizeof kRelayedNetwork);
    append(rule.get(), "notrack");
    return rule;
}

/// What a table consists of.
struct PlannedChain {
    const char* name;
    std::uint32_t hook;
    std::int32_t priority;
    std::vector<Rule> rules;
};

PlannedChain backstop_chain(const std::string& table, const std::string& device, std::uint32_t mark_bit) {
    PlannedChain chain{kBackstopChain, NF_INET_PRE_ROUTING, kBackstopPriority, {}};
    chain.rules.push_back(backstop_rule(table, device, mark_bit));
    return chain;
}

PlannedChain relayed_chain(const std::string& table) {
    PlannedChain chain{kRelayedChain, NF_INET_LOCAL_OUT, kRelayedPriority, {}};
    chain.rules.push_back(relayed_rule(table, kSourceOffset));
    chain.rules.push_back(relayed_rule(table, kDestinationOffset));
    return chain;
}

NetlinkMessage chain_message(const std::string& table, const PlannedChain& planned) {
    Chain chain{nftnl_chain_alloc()};
    nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_TABLE, table.c_str());
    nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_NAME, planned.name);
    nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_TYPE, "filter");
    nftnl_chain_set_u32(chain.get(), NFTNL_CHAIN_HOOKNUM, planned.hook);
    nftnl_chain_set_s32(chain.get(), NFTNL_CHAIN_PRIO, planned.priority);
    nftnl_chain_set_u32(chain.get(), NFTNL_CHAIN_POLICY, NF_ACCEPT);
    return built(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK,
                 [&](nlmsghdr* header) { nftnl_chain_nlmsg_build_payload(header, chain.get()); });
}

NetlinkMessage rule_message(const nftnl_rule* rule) {
    return built(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK,
                 [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, const_cast<nftnl_rule*>(rule)); });
}

struct RuleSummary {
    std::string meaning; ///< every expression but the counter's numbers
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
};

RuleSummary summary_of(const nftnl_rule* rule) {
    RuleSummary summary;
    nftnl_expr_foreach(
        const_cast<nftnl_rule*>(rule),
        [](nftnl_expr* expression, void* data) {
            auto& into = *static_cast<RuleSummary*>(data);
            const std::string_view name = nftnl_expr_get_str(expression, NFTNL_EXPR_NAME);
            into.meaning += name;
            if (name == "counter") {
                into.packets = nftnl_expr_get_u64(expression, NFTNL_EXPR_CTR_PACKETS);
                into.bytes = nftnl_expr_get_u64(expression, NFTNL_EXPR_CTR_BYTES);
            } else {
                std::array<char, 512> words{};
                nftnl_expr_snprintf(words.data(), words.size() - 1, expression, NFTNL_OUTPUT_DEFAULT, 0);
                into.meaning += words.data();
            }
            into.meaning += "\n";
            return 0;
        },
        &summary);
    return summary;
}

bool hangs_as_planned(const nftnl_chain* chain, const PlannedChain& planned) {
    const char* type = nftnl_chain_get_str(chain, NFTNL_CHAIN_TYPE);
    return nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM) && type != nullptr && std::string_view{type} == "filter" &&
           nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM) == planned.hook &&
           nftnl_chain_get_s32(chain, NFTNL_CHAIN_PRIO) == planned.priority;
}

bool not_supported(const Error& error) {
    return error.code() == EOPNOTSUPP || error.code() == EINVAL;
}

} // namespace

std::string_view text(BackstopHold hold) {
    switch (hold) {
    case BackstopHold::Missing:
        return "missing";
    case BackstopHold::Plain:
        return "plain";
    case BackstopHold::Shadowed:
        return "shadowed";
    case BackstopHold::OwnedAndPersistent:
        return "owned and persistent";
    }
    return "unknown";
}

Backstop::Backstop(const std::string& device, std::uint32_t mark_bit, NetlinkSocket socket)
    : device_(device), table_(table_name_of(device)), guard_(table_ + "-guard"), mark_bit_(mark_bit),
      socket_(std::move(socket)) {}

Result<Backstop> Backstop::create(const std::string& device, std::uint32_t mark_bit) {
    if (device.empty() || device.size() >= IFNAMSIZ) return Error::make("backstop: \"{}\" names no device", device);
    if (mark_bit == 0) return Error::make("backstop for {}: a mark bit of 0 would drop everything", device);
    auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
    if (!socket) return socket.error().with("backstop for {}", device);
    return Backstop{device, mark_bit, std::move(*socket)};
}

Result<Backstop::TableState> Backstop::look_at(const std::string& name) {
    TableState state;
    auto ask = table_message(NFT_MSG_GETTABLE, 0, name, 0);
    auto asked = socket_.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        auto attributes = Attributes::of_message(message, sizeof(nfgenmsg));
        state.exists = true;
        state.flags = be32toh(attributes.u32(NFTA_TABLE_FLAGS));
        state.owner = be32toh(attributes.u32(NFTA_TABLE_OWNER));
        return {};
    });
    if (!asked && asked.error().code() == ENOENT) {
        state.wrong = "there is no table " + name;
        return state;
    }
    if (!asked) return asked.error().with("read nftables table {}", name);
    if (state.flags & NFT_TABLE_F_DORMANT) state.wrong = "table " + name + " is dormant";

    std::vector<PlannedChain> planned;
    planned.push_back(backstop_chain(name, device_, mark_bit_));
    if (can_notrack_) planned.push_back(relayed_chain(name));
    for (const PlannedChain& chain : planned) {
        std::vector<std::string> meanings;
        for (const Rule& rule : chain.rules) meanings.push_back(summary_of(rule.get()).meaning);
        auto looked = look_at_chain(name, chain.name, state, meanings,
                                    [&](const nftnl_chain* found) { return hangs_as_planned(found, chain); });
        if (!looked) return looked.error().with("read nftables table {}", name);
    }
    return state;
}

Result<void> Backstop::look_at_chain(const std::string& table, const std::string& chain, TableState& state,
                                     const std::vector<std::string>& rules,
                                     const std::function<bool(const nftnl_chain*)>& is_right) {
    auto is_wrong = [&](std::string text) {
        if (state.wrong.empty()) state.wrong = std::move(text);
    };
    Chain asked_chain{nftnl_chain_alloc()};
    nftnl_chain_set_str(asked_chain.get(), NFTNL_CHAIN_TABLE, table.c_str());
    nftnl_chain_set_str(asked_chain.get(), NFTNL_CHAIN_NAME, chain.c_str());
    auto ask = built(NFT_MSG_GETCHAIN, 0,
                     [&](nlmsghdr* header) { nftnl_chain_nlmsg_build_payload(header, asked_chain.get()); });
    auto asked = socket_.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        Chain found{nftnl_chain_alloc()};
        if (nftnl_chain_nlmsg_parse(&message, found.get()) < 0 || !is_right(found.get()))
            is_wrong(fmt::format("chain {} of table {} hangs in another place", chain, table));
        return {};
    });
    if (!asked && asked.error().code() == ENOENT) {
        is_wrong(fmt::format("table {} has no chain {}", table, chain));
        return {};
    }
    if (!asked) return asked;
    for (int attempt = 0;; ++attempt) {
        Rule filter{nftnl_rule_alloc()};
        nftnl_rule_set_str(filter.get(), NFTNL_RULE_TABLE, table.c_str());
        nftnl_rule_set_str(filter.get(), NFTNL_RULE_CHAIN, chain.c_str());
        auto ask_rules = built(NFT_MSG_GETRULE, NLM_F_DUMP,
                               [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, filter.get()); });
        std::vector<RuleSummary> found;
        asked = socket_.query(ask_rules, [&](const nlmsghdr& message) -> Result<void> {
            Rule rule{nftnl_rule_alloc()};
            if (nftnl_rule_nlmsg_parse(&message, rule.get()) < 0) return {};
            const char* in_table = nftnl_rule_get_str(rule.get(), NFTNL_RULE_TABLE); // old kernels don't filter
            const char* in_chain = nftnl_rule_get_str(rule.get(), NFTNL_RULE_CHAIN);
            if (in_table != nullptr && table == in_table && in_chain != nullptr && chain == in_chain)
                found.push_back(summary_of(rule.get()));
            return {};
        });
        if (!asked && asked.error().code() == EINTR && attempt < 10) continue;
        if (!asked) return asked;
        bool same = std::ranges::equal(found, rules, {}, &RuleSummary::meaning);
        if (!same) is_wrong(fmt::format("the rules of table {} are not ours", table));
        for (const RuleSummary& rule : found) {
            if (!same) break;
            state.packets += rule.packets;
            state.bytes += rule.bytes;
        }
        return {};
    }
}

BackstopHold Backstop::hold_of(const TableState& table, const TableState& guard) const {
    if (!table.exists) return BackstopHold::Missing;
    const bool owned = (table.flags & kOwnerFlag) && table.owner == socket_.port_id();
    if (owned && (table.flags & kPersistFlag)) return BackstopHold::OwnedAndPersistent;
    const bool guarded = guard.exists && (guard.flags & kOwnerFlag) && guard.owner == socket_.port_id();
    return guarded && guard.wrong.empty() ? BackstopHold::Shadowed : BackstopHold::Plain;
}

Result<BackstopState> Backstop::check() {
    auto table = look_at(table_);
    if (!table) return table.error();
    auto guard = look_at(guard_);
    if (!guard) return guard.error();
    BackstopState state;
    state.intact = table->wrong.empty();
    state.reason = table->wrong;
    state.hold = hold_of(*table, *guard);
    // A packet is dropped, and counted, by the first of the two only.
    state.dropped_packets = table->packets + guard->packets;
    state.dropped_bytes = table->bytes + guard->bytes;
    return state;
}

Result<void> Backstop::make(BackstopHold hold, const TableState& table, const TableState& guard) {
    std::vector<NetlinkMessage> batch;
    auto fill = [&](const std::string& name, const TableState& state, std::uint32_t flags) {
        const bool mine = (state.flags & kOwnerFlag) && state.owner == socket_.port_id();
        const bool adoptable = state.exists && state.wrong.empty() &&
                               (state.flags & kPersistFlag) == (flags & kPersistFlag) &&
                               (mine || (flags & kOwnerFlag) == 0 || (state.flags & kPersistFlag) != 0);
        const bool held = (state.flags & (kOwnerFlag | kPersistFlag)) == flags && (mine || (flags & kOwnerFlag) == 0);
        if (adoptable && held) return;
        if (state.exists && !adoptable) batch.push_back(table_message(NFT_MSG_DELTABLE, NLM_F_ACK, name, 0));
        batch.push_back(table_message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, name, flags));
        if (adoptable) return; // it has a chain and the rule: only the owner changes
        auto add = [&](const PlannedChain& chain) {
            batch.push_back(chain_message(name, chain));
            for (const Rule& rule : chain.rules) batch.push_back(rule_message(rule.get()));
        };
        add(backstop_chain(name, device_, mark_bit_));
        if (can_notrack_) add(relayed_chain(name));
    };

    batch.push_back(batch_edge(nftnl_batch_begin));
    fill(table_, table, hold == BackstopHold::OwnedAndPersistent ? kOwnerFlag | kPersistFlag : 0);
    if (hold == BackstopHold::Shadowed) fill(guard_, guard, kOwnerFlag);
    batch.push_back(batch_edge(nftnl_batch_end));
    if (batch.size() == 2) return {};
    return socket_.transaction(batch);
}

Result<BackstopState> Backstop::ensure() {
    auto table = look_at(table_);
    if (!table) return table.error();
    auto guard = look_at(guard_);
    if (!guard) return guard.error();

    Result<void> made = Error::from_errno(EOPNOTSUPP, "nftables");
    for (auto hold : {BackstopHold::OwnedAndPersistent, BackstopHold::Shadowed, BackstopHold::Plain}) {
        if (table->wrong.empty() && hold_of(*table, *guard) == hold) {
            made = {};
            break;
        }
        made = make(hold, *table, *guard);
        if (!made && made.error().code() == ENOENT && can_notrack_) {
            can_notrack_ = false; // a kernel that can't track connections has nothing to be kept from it
            return ensure();
        }
        if (made || !not_supported(made.error())) break;
    }
    if (!made && made.error().code() == EPERM && (table->flags & kOwnerFlag))
        return made.error().with("nftables table {} belongs to another running process", table_);
    if (!made) return made.error().with("make nftables table {}", table_);
    auto state = check();
    if (!state) return state.error();
    if (!state->intact) return Error::make("nftables table {} did not stay: {}", table_, state->reason);
    return state;
}

Result<void> Backstop::remove() {
    for (const auto& name : {guard_, table_}) {
        std::vector<NetlinkMessage> batch;
        batch.push_back(batch_edge(nftnl_batch_begin));
        batch.push_back(table_message(NFT_MSG_DELTABLE, NLM_F_ACK, name, 0));
        batch.push_back(batch_edge(nftnl_batch_end));
        auto removed = socket_.transaction(batch);
        if (!removed && removed.error().code() != ENOENT) return removed.error().with("remove nftables table {}", name);
    }
    return {};
}

Result<NftablesWatch> NftablesWatch::open(const std::string& device) {
    Fd fd{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER)};
    if (!fd) return Error::from_errno(errno, "open nftables watch");
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        return Error::from_errno(errno, "bind nftables watch");
    int group = NFNLGRP_NFTABLES;
    if (::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
        return Error::from_errno(errno, "join nftables events");
    return NftablesWatch{std::move(fd), table_name_of(device)};
}

Result<bool> NftablesWatch::take_changes() {
    bool touched = false;
    std::vector<std::byte> buffer(32768);
    for (;;) {
        const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return touched;
        if (got < 0 && errno == ENOBUFS) {
            touched = true; // we cannot know
            continue;
        }
        if (got < 0) return Error::from_errno(errno, "read nftables events");
        int left = static_cast<int>(got);
        const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
        while (mnl_nlmsg_ok(message, left)) {
            auto name = Attributes::of_message(*message, sizeof(nfgenmsg)).text(kTableNameAttribute);
            if (NFNL_SUBSYS_ID(message->nlmsg_type) == NFNL_SUBSYS_NFTABLES && name.starts_with(table_)) touched = true;
            message = mnl_nlmsg_next(message, &left);
        }
    }
}

} // namespace tailrace
