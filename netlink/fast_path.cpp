#include "netlink/fast_path.hpp"

#include "netlink/nft_rules.hpp"

#include <libnftnl/flowtable.h>
#include <libnftnl/set.h>
#include <linux/in.h>
#include <net/if.h>

#include <cerrno>

namespace tailrace {

using namespace nft;

namespace {

constexpr const char* kFlows = "flows";
constexpr const char* kAccepted = "accepted";
constexpr std::uint32_t kOwner = 0x2;          // NFT_TABLE_F_OWNER
constexpr std::int32_t kFlowsPriority = 0;     // at ingress
constexpr std::int32_t kGuardPriority = -10;   // before them
constexpr std::int32_t kAfterFilter = 300;     // in forward: after everybody's rules
constexpr std::uint32_t kEstablished = 0x2;    // NF_CT_STATE_BIT(IP_CT_ESTABLISHED)
constexpr std::uint8_t kOriginalDirection = 0; // IP_CT_DIR_ORIGINAL
constexpr std::uint8_t kReplyDirection = 1;    // IP_CT_DIR_REPLY
constexpr std::uint32_t kMostAccepted = 65536; // connections that wait for a reply at once
constexpr std::uint64_t kAcceptedForMs = 60'000;
constexpr std::uint32_t kIntegerType = 4; // for `nft list` only

using FlowTable = std::unique_ptr<nftnl_flowtable, Deleter<nftnl_flowtable_free>>;

NetlinkMessage flow_table_message(const std::string& table, const std::vector<std::string>& devices) {
    FlowTable flows{nftnl_flowtable_alloc()};
    nftnl_flowtable_set_str(flows.get(), NFTNL_FLOWTABLE_TABLE, table.c_str());
    nftnl_flowtable_set_str(flows.get(), NFTNL_FLOWTABLE_NAME, kFlows);
    nftnl_flowtable_set_u32(flows.get(), NFTNL_FLOWTABLE_HOOKNUM, NF_NETDEV_INGRESS);
    nftnl_flowtable_set_u32(flows.get(), NFTNL_FLOWTABLE_PRIO, static_cast<std::uint32_t>(kFlowsPriority));
    std::vector<const char*> names;
    for (const std::string& device : devices) names.push_back(device.c_str());
    names.push_back(nullptr);
    nftnl_flowtable_set_array(flows.get(), NFTNL_FLOWTABLE_DEVICES, names.data());
    return built(NFPROTO_INET, NFT_MSG_NEWFLOWTABLE, NLM_F_CREATE | NLM_F_ACK,
                 [&](nlmsghdr* header) { nftnl_flowtable_nlmsg_build_payload(header, flows.get()); });
}

/// Of connections, by their ids.
NetlinkMessage accepted_message(const std::string& table) {
    std::unique_ptr<nftnl_set, Deleter<nftnl_set_free>> set{nftnl_set_alloc()};
    nftnl_set_set_str(set.get(), NFTNL_SET_TABLE, table.c_str());
    nftnl_set_set_str(set.get(), NFTNL_SET_NAME, kAccepted);
    nftnl_set_set_u32(set.get(), NFTNL_SET_ID, 1);
    nftnl_set_set_u32(set.get(), NFTNL_SET_FLAGS, NFT_SET_TIMEOUT | NFT_SET_EVAL);
    nftnl_set_set_u32(set.get(), NFTNL_SET_KEY_TYPE, kIntegerType);
    nftnl_set_set_u32(set.get(), NFTNL_SET_KEY_LEN, sizeof(std::uint32_t));
    nftnl_set_set_u32(set.get(), NFTNL_SET_DESC_SIZE, kMostAccepted);
    nftnl_set_set_u64(set.get(), NFTNL_SET_TIMEOUT, kAcceptedForMs);
    return built(NFPROTO_INET, NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_ACK,
                 [&](nlmsghdr* header) { nftnl_set_nlmsg_build_payload(header, set.get()); });
}

/// The id of the packet's connection goes into the set, or stays there for longer.
void append_remember(nftnl_rule* rule) {
    append_ct(rule, NFT_CT_ID);
    nftnl_expr* update = append(rule, "dynset");
    nftnl_expr_set_u32(update, NFTNL_EXPR_DYNSET_SREG_KEY, NFT_REG_1);
    nftnl_expr_set_u32(update, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
    nftnl_expr_set_str(update, NFTNL_EXPR_DYNSET_SET_NAME, kAccepted);
    nftnl_expr_set_u32(update, NFTNL_EXPR_DYNSET_SET_ID, 1);
}

/// Goes on only with what append_remember() has seen.
void append_is_remembered(nftnl_rule* rule) {
    append_ct(rule, NFT_CT_ID);
    nftnl_expr* look = append(rule, "lookup");
    nftnl_expr_set_u32(look, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
    nftnl_expr_set_str(look, NFTNL_EXPR_LOOKUP_SET, kAccepted);
    nftnl_expr_set_u32(look, NFTNL_EXPR_LOOKUP_SET_ID, 1);
}

void append_flow_add(nftnl_rule* rule) {
    nftnl_expr_set_str(append(rule, "flow_offload"), NFTNL_EXPR_FLOW_TABLE_NAME, kFlows);
}

PlannedChain guard(const std::string& table, const std::string& device, std::uint32_t mark_bit) {
    const std::uint32_t zero = 0;
    PlannedChain chain{"guard", Hook{"filter", NF_INET_INGRESS, kGuardPriority, device}, {}};
    chain.rules.push_back(empty_rule(NFPROTO_INET, table, chain.name));
    nftnl_rule* rule = chain.rules.back().get();
    append_meta(rule, NFT_META_MARK);
    append_mask(rule, &mark_bit, sizeof mark_bit);
    append_equal(rule, &zero, sizeof zero);
    append(rule, "counter");
    append_verdict(rule, NF_DROP);
    return chain;
}

/// Packets of one protocol that leave or enter by the device.
nftnl_rule* add_rule(PlannedChain& chain, const std::string& table, std::uint32_t which, const std::string& device,
                     std::uint8_t protocol, std::uint8_t direction) {
    chain.rules.push_back(empty_rule(NFPROTO_INET, table, chain.name));
    nftnl_rule* rule = chain.rules.back().get();
    append_interface(rule, which, device);
    append_meta(rule, NFT_META_L4PROTO);
    append_equal(rule, &protocol, sizeof protocol);
    append_ct(rule, NFT_CT_DIRECTION);
    append_equal(rule, &direction, sizeof direction);
    return rule;
}

PlannedChain offload(const std::string& table, const std::string& device) {
    const std::uint32_t zero = 0;
    PlannedChain chain{"offload", Hook{"filter", NF_INET_FORWARD, kAfterFilter}, {}};
    for (std::uint32_t which : {NFT_META_IIFNAME, NFT_META_OIFNAME})
        for (std::uint8_t protocol : {std::uint8_t{IPPROTO_TCP}, std::uint8_t{IPPROTO_UDP}}) {
            append_remember(add_rule(chain, table, which, device, protocol, kOriginalDirection));
            nftnl_rule* rule = add_rule(chain, table, which, device, protocol, kReplyDirection);
            append_ct(rule, NFT_CT_STATE);
            append_mask(rule, &kEstablished, sizeof kEstablished);
            append_unequal(rule, &zero, sizeof zero);
            append_is_remembered(rule);
            append_flow_add(rule);
        }
    return chain;
}

} // namespace

FastPath::FastPath(const std::string& device, std::uint32_t mark_bit, NetlinkSocket socket)
    : device_(device), table_("tailrace-" + device + "-fast"), mark_bit_(mark_bit), socket_(std::move(socket)) {}

Result<FastPath> FastPath::create(const std::string& device, std::uint32_t mark_bit) {
    if (device.empty() || device.size() >= IFNAMSIZ) return Error::make("fast path: \"{}\" names no device", device);
    auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
    if (!socket) return socket.error().with("fast path for {}", device);
    return FastPath{device, mark_bit, std::move(*socket)};
}

Result<void> FastPath::make() {
    std::vector<std::string> devices = interfaces_;
    devices.push_back(device_);
    std::vector<NetlinkMessage> batch;
    batch.push_back(batch_edge(nftnl_batch_begin));
    if (may_be_there_) { // so that there is one to delete
        batch.push_back(table_message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, table_, kOwner));
        batch.push_back(table_message(NFT_MSG_DELTABLE, NLM_F_ACK, table_, 0));
    }
    batch.push_back(table_message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, table_, kOwner));
    batch.push_back(flow_table_message(table_, devices));
    batch.push_back(accepted_message(table_));
    const PlannedChain chains[] = {guard(table_, device_, mark_bit_), offload(table_, device_)};
    for (const PlannedChain& chain : chains) {
        batch.push_back(chain_message(table_, chain));
        for (const Rule& rule : chain.rules) batch.push_back(rule_message(rule.get(), Place::Last));
    }
    batch.push_back(batch_edge(nftnl_batch_end));
    may_be_there_ = true;
    in_force_ = false;
    auto made = socket_.transaction(batch);
    if (!made) return made.error().with("make nftables table {}", table_);
    in_force_ = true;
    return {};
}

Result<void> FastPath::use(const std::vector<std::string>& interfaces, int device_index) {
    if (in_force_ && interfaces == interfaces_ && device_index == device_index_) return {};
    interfaces_ = interfaces;
    device_index_ = device_index;
    auto made = make();
    if (made) return made;
    if (auto removed = remove(); !removed) return removed; // rather none than one of other interfaces
    return made;
}

Result<void> FastPath::end_flows() {
    if (!may_be_there_) return {};
    if (!in_force_) return remove();
    auto made = make();
    if (made) return made;
    if (auto removed = remove(); !removed) return removed;
    return made;
}

Result<void> FastPath::remove() {
    interfaces_.clear();
    device_index_ = 0;
    in_force_ = false;
    if (!may_be_there_) return {};
    auto removed = nft::remove_table(socket_, table_);
    if (removed) may_be_there_ = false;
    return removed;
}

bool FastPath::is_not_supported(const Error& error) {
    return error.code() == ENOENT || error.code() == EOPNOTSUPP;
}

} // namespace tailrace
