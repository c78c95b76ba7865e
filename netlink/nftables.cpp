#include "netlink/nftables.hpp"

#include "netlink/attributes.hpp"
#include "netlink/nft_rules.hpp"

#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>

namespace tailrace {

using namespace nft;

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

std::string table_name_of(const std::string& device) {
    return "tailrace-" + device;
}

/// iifname "DEVICE" meta mark & BIT == 0 counter drop
Rule backstop_rule(const std::string& table, const std::string& device, std::uint32_t mark_bit) {
    Rule rule = empty_rule(NFPROTO_INET, table, kBackstopChain);
    append_interface(rule.get(), NFT_META_IIFNAME, device);
    const std::uint32_t zero = 0;
    append_meta(rule.get(), NFT_META_MARK);
    append_mask(rule.get(), &mark_bit, sizeof mark_bit);
    append_equal(rule.get(), &zero, sizeof zero);

    append(rule.get(), "counter");
    append_verdict(rule.get(), NF_DROP);
    return rule;
}

/// oifname "lo" ip saddr 127.64.0.0/10 notrack; or daddr
Rule relayed_rule(const std::string& table, std::uint32_t address_offset) {
    Rule rule = empty_rule(NFPROTO_INET, table, kRelayedChain);
    append_interface(rule.get(), NFT_META_OIFNAME, "lo");
    append_ipv4(rule.get());
    append_payload(rule.get(), NFT_PAYLOAD_NETWORK_HEADER, address_offset, sizeof kRelayedNetwork);
    append_mask(rule.get(), kRelayedMask, sizeof kRelayedMask);
    append_equal(rule.get(), kRelayedNetwork, sizeof kRelayedNetwork);
    append(rule.get(), "notrack");
    return rule;
}

PlannedChain backstop_chain(const std::string& table, const std::string& device, std::uint32_t mark_bit) {
    PlannedChain chain{kBackstopChain, Hook{"filter", NF_INET_PRE_ROUTING, kBackstopPriority}, {}};
    chain.rules.push_back(backstop_rule(table, device, mark_bit));
    return chain;
}

PlannedChain relayed_chain(const std::string& table) {
    PlannedChain chain{kRelayedChain, Hook{"filter", NF_INET_LOCAL_OUT, kRelayedPriority}, {}};
    chain.rules.push_back(relayed_rule(table, kSourceOffset));
    chain.rules.push_back(relayed_rule(table, kDestinationOffset));
    return chain;
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
    auto found = read_chain(socket_, NFPROTO_INET, table, chain);
    if (!found) return found.error();
    if (!*found) {
        is_wrong(fmt::format("table {} has no chain {}", table, chain));
        return {};
    }
    if (!is_right(found->get())) is_wrong(fmt::format("chain {} of table {} hangs in another place", chain, table));
    auto read = read_rules(socket_, NFPROTO_INET, table, chain);
    if (!read) return read.error();
    if (!std::ranges::equal(*read, rules, {}, &RuleSummary::meaning)) {
        is_wrong(fmt::format("the rules of table {} are not ours", table));
        return {};
    }
    for (const RuleSummary& rule : *read) {
        state.packets += rule.packets;
        state.bytes += rule.bytes;
    }
    return {};
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
            for (const Rule& rule : chain.rules) batch.push_back(rule_message(rule.get(), Place::Last));
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
            touched = others_ = rules_ = true; // we cannot know
            continue;
        }
        if (got < 0) return Error::from_errno(errno, "read nftables events");
        int left = static_cast<int>(got);
        const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
        while (mnl_nlmsg_ok(message, left)) {
            auto name = Attributes::of_message(*message, sizeof(nfgenmsg)).text(kTableNameAttribute);
            if (NFNL_SUBSYS_ID(message->nlmsg_type) == NFNL_SUBSYS_NFTABLES) {
                const int what = NFNL_MSG_TYPE(message->nlmsg_type);
                const bool chains = what == NFT_MSG_NEWCHAIN || what == NFT_MSG_DELCHAIN;
                const bool rules = what == NFT_MSG_NEWRULE || what == NFT_MSG_DELRULE;
                if (!name.starts_with(table_) && what != NFT_MSG_NEWGEN) rules_ = true;
                if (name.starts_with(table_))
                    touched = true;
                else if (chains || (rules && name == "filter"))
                    others_ = true;
            }
            message = mnl_nlmsg_next(message, &left);
        }
    }
}

} // namespace tailrace
