#include "netlink/nft_rules.hpp"

#include <libnftnl/udata.h>
#include <net/if.h>

#include <cerrno>
#include <string_view>

namespace tailrace::nft {
namespace {

constexpr int kAttempts = 10; // at a dump during which somebody changed something

void append_compare(nftnl_rule* rule, std::uint32_t operation, const void* data, std::size_t size_bytes) {
    auto* compare = append(rule, "cmp");
    nftnl_expr_set_u32(compare, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    nftnl_expr_set_u32(compare, NFTNL_EXPR_CMP_OP, operation);
    nftnl_expr_set(compare, NFTNL_EXPR_CMP_DATA, data, static_cast<std::uint32_t>(size_bytes));
}

std::array<char, IFNAMSIZ> padded(const std::string& device) {
    std::array<char, IFNAMSIZ> name{}; // with all its zeros: the whole name, not the beginning of one
    device.copy(name.data(), name.size() - 1);
    return name;
}

int find_comment(const nftnl_udata* data, void* into) {
    if (nftnl_udata_type(data) == NFTNL_UDATA_RULE_COMMENT) {
        std::string_view text{static_cast<const char*>(nftnl_udata_get(data)), nftnl_udata_len(data)};
        *static_cast<std::string*>(into) = text.substr(0, text.find('\0'));
    }
    return 0;
}

} // namespace

NetlinkMessage batch_edge(nlmsghdr* (*edge)(char*, std::uint32_t)) {
    alignas(nlmsghdr) std::array<char, 64> buffer{};
    return NetlinkMessage::copy_of(*edge(buffer.data(), 0));
}

NetlinkMessage table_message(int message, int flags, const std::string& name, std::uint32_t table_flags) {
    Table table{nftnl_table_alloc()};
    nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, name.c_str());
    if (message == NFT_MSG_NEWTABLE) nftnl_table_set_u32(table.get(), NFTNL_TABLE_FLAGS, table_flags);
    return built(NFPROTO_INET, message, flags,
                 [&](nlmsghdr* header) { nftnl_table_nlmsg_build_payload(header, table.get()); });
}

Result<void> remove_table(NetlinkSocket& socket, const std::string& name) {
    std::vector<NetlinkMessage> batch;
    batch.push_back(batch_edge(nftnl_batch_begin));
    batch.push_back(table_message(NFT_MSG_DELTABLE, NLM_F_ACK, name, 0));
    batch.push_back(batch_edge(nftnl_batch_end));
    auto removed = socket.transaction(batch);
    if (!removed && removed.error().code() != ENOENT) return removed.error().with("remove nftables table {}", name);
    return {};
}

NetlinkMessage chain_message(const std::string& table, const PlannedChain& planned) {
    Chain chain{nftnl_chain_alloc()};
    nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_TABLE, table.c_str());
    nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_NAME, planned.name);
    if (planned.hook) {
        nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_TYPE, planned.hook->type);
        nftnl_chain_set_u32(chain.get(), NFTNL_CHAIN_HOOKNUM, planned.hook->number);
        nftnl_chain_set_s32(chain.get(), NFTNL_CHAIN_PRIO, planned.hook->priority);
        nftnl_chain_set_u32(chain.get(), NFTNL_CHAIN_POLICY, NF_ACCEPT);
        if (!planned.hook->device.empty())
            nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_DEV, planned.hook->device.c_str());
    }
    return built(NFPROTO_INET, NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK,
                 [&](nlmsghdr* header) { nftnl_chain_nlmsg_build_payload(header, chain.get()); });
}

bool hangs_as_planned(const nftnl_chain* chain, const PlannedChain& planned) {
    const bool hooked = nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM);
    if (!planned.hook) return !hooked;
    const char* type = nftnl_chain_get_str(chain, NFTNL_CHAIN_TYPE);
    return hooked && type != nullptr && std::string_view{type} == planned.hook->type &&
           nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM) == planned.hook->number &&
           nftnl_chain_get_s32(chain, NFTNL_CHAIN_PRIO) == planned.hook->priority &&
           nftnl_chain_get_u32(chain, NFTNL_CHAIN_POLICY) == NF_ACCEPT;
}

Rule empty_rule(std::uint32_t family, const std::string& table, const char* chain) {
    Rule rule{nftnl_rule_alloc()};
    nftnl_rule_set_u32(rule.get(), NFTNL_RULE_FAMILY, family);
    nftnl_rule_set_str(rule.get(), NFTNL_RULE_TABLE, table.c_str());
    nftnl_rule_set_str(rule.get(), NFTNL_RULE_CHAIN, chain);
    return rule;
}

NetlinkMessage rule_message(const nftnl_rule* rule, Place place) {
    const int flags = NLM_F_CREATE | NLM_F_ACK | (place == Place::Last ? NLM_F_APPEND : 0);
    const auto family = static_cast<std::uint16_t>(nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY));
    return built(family, NFT_MSG_NEWRULE, flags,
                 [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, const_cast<nftnl_rule*>(rule)); });
}

NetlinkMessage remove_rule_message(std::uint32_t family, const std::string& table, const std::string& chain,
                                   std::uint64_t handle) {
    Rule rule = empty_rule(family, table, chain.c_str());
    nftnl_rule_set_u64(rule.get(), NFTNL_RULE_HANDLE, handle);
    return built(static_cast<std::uint16_t>(family), NFT_MSG_DELRULE, NLM_F_ACK,
                 [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, rule.get()); });
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

void append_set_meta(nftnl_rule* rule, std::uint32_t key) {
    auto* meta = append(rule, "meta");
    nftnl_expr_set_u32(meta, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(meta, NFTNL_EXPR_META_SREG, NFT_REG_1);
}

void append_ct(nftnl_rule* rule, std::uint32_t key) {
    auto* ct = append(rule, "ct");
    nftnl_expr_set_u32(ct, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(ct, NFTNL_EXPR_CT_DREG, NFT_REG_1);
}

void append_set_ct(nftnl_rule* rule, std::uint32_t key) {
    auto* ct = append(rule, "ct");
    nftnl_expr_set_u32(ct, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(ct, NFTNL_EXPR_CT_SREG, NFT_REG_1);
}

void append_payload(nftnl_rule* rule, std::uint32_t base, std::uint32_t offset_bytes, std::uint32_t size_bytes) {
    auto* payload = append(rule, "payload");
    nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_BASE, base);
    nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_OFFSET, offset_bytes);
    nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_LEN, size_bytes);
    nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
}

void append_mask(nftnl_rule* rule, const void* mask, std::uint32_t size_bytes, const void* flip) {
    const std::array<std::byte, 16> zero{};
    auto* bitwise = append(rule, "bitwise");
    nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
    nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
    nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_LEN, size_bytes);
    nftnl_expr_set(bitwise, NFTNL_EXPR_BITWISE_MASK, mask, size_bytes);
    nftnl_expr_set(bitwise, NFTNL_EXPR_BITWISE_XOR, flip == nullptr ? zero.data() : flip, size_bytes);
}

void append_equal(nftnl_rule* rule, const void* data, std::size_t size_bytes) {
    append_compare(rule, NFT_CMP_EQ, data, size_bytes);
}

void append_unequal(nftnl_rule* rule, const void* data, std::size_t size_bytes) {
    append_compare(rule, NFT_CMP_NEQ, data, size_bytes);
}

void append_verdict(nftnl_rule* rule, int verdict) {
    auto* immediate = append(rule, "immediate");
    nftnl_expr_set_u32(immediate, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(immediate, NFTNL_EXPR_IMM_VERDICT, static_cast<std::uint32_t>(verdict));
}

void append_interface(nftnl_rule* rule, std::uint32_t which, const std::string& device) {
    append_meta(rule, which);
    append_equal(rule, padded(device).data(), IFNAMSIZ);
}

void append_not_interface(nftnl_rule* rule, std::uint32_t which, const std::string& device) {
    append_meta(rule, which);
    append_unequal(rule, padded(device).data(), IFNAMSIZ);
}

void append_ipv4(nftnl_rule* rule) {
    const std::uint8_t family = NFPROTO_IPV4;
    append_meta(rule, NFT_META_NFPROTO);
    append_equal(rule, &family, sizeof family);
}

void append_ipv6(nftnl_rule* rule) {
    const std::uint8_t family = NFPROTO_IPV6;
    append_meta(rule, NFT_META_NFPROTO);
    append_equal(rule, &family, sizeof family);
}

void set_comment(nftnl_rule* rule, const std::string& text) {
    std::unique_ptr<nftnl_udata_buf, Deleter<nftnl_udata_buf_free>> buffer{nftnl_udata_buf_alloc(256)};
    if (!buffer || !nftnl_udata_put_strz(buffer.get(), NFTNL_UDATA_RULE_COMMENT, text.c_str())) return;
    nftnl_rule_set_data(rule, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(buffer.get()),
                        nftnl_udata_buf_len(buffer.get()));
}

RuleSummary summary_of(const nftnl_rule* rule) {
    RuleSummary summary;
    summary.handle = nftnl_rule_get_u64(rule, NFTNL_RULE_HANDLE);
    if (nftnl_rule_is_set(rule, NFTNL_RULE_USERDATA)) {
        std::uint32_t size_bytes = 0;
        const void* data = nftnl_rule_get_data(rule, NFTNL_RULE_USERDATA, &size_bytes);
        // Bytes of other people's programs that are no list of values end the parsing; then there is no comment.
        (void)nftnl_udata_parse(data, size_bytes, find_comment, &summary.comment);
    }
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

Result<std::vector<RuleSummary>> read_rules(NetlinkSocket& socket, std::uint16_t family, const std::string& table,
                                            const std::string& chain) {
    for (int attempt = 0;; ++attempt) {
        Rule filter{nftnl_rule_alloc()};
        nftnl_rule_set_str(filter.get(), NFTNL_RULE_TABLE, table.c_str());
        if (!chain.empty()) nftnl_rule_set_str(filter.get(), NFTNL_RULE_CHAIN, chain.c_str());
        auto ask = built(family, NFT_MSG_GETRULE, NLM_F_DUMP,
                         [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, filter.get()); });
        std::vector<RuleSummary> found;
        auto asked = socket.query(ask, [&](const nlmsghdr& message) -> Result<void> {
            Rule rule{nftnl_rule_alloc()};
            if (nftnl_rule_nlmsg_parse(&message, rule.get()) < 0) return {};
            const char* in_table = nftnl_rule_get_str(rule.get(), NFTNL_RULE_TABLE); // old kernels don't filter
            const char* in_chain = nftnl_rule_get_str(rule.get(), NFTNL_RULE_CHAIN);
            if (in_table == nullptr || table != in_table) return {};
            if (chain.empty() || (in_chain != nullptr && chain == in_chain)) found.push_back(summary_of(rule.get()));
            return {};
        });
        if (!asked && asked.error().code() == EINTR && attempt < kAttempts) continue;
        if (!asked) return asked.error();
        return found;
    }
}

Result<Chain> read_chain(NetlinkSocket& socket, std::uint16_t family, const std::string& table,
                         const std::string& chain) {
    Chain wanted{nftnl_chain_alloc()};
    nftnl_chain_set_str(wanted.get(), NFTNL_CHAIN_TABLE, table.c_str());
    nftnl_chain_set_str(wanted.get(), NFTNL_CHAIN_NAME, chain.c_str());
    auto ask = built(family, NFT_MSG_GETCHAIN, 0,
                     [&](nlmsghdr* header) { nftnl_chain_nlmsg_build_payload(header, wanted.get()); });
    Chain found;
    auto asked = socket.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        Chain one{nftnl_chain_alloc()};
        if (nftnl_chain_nlmsg_parse(&message, one.get()) >= 0) found = std::move(one);
        return {};
    });
    if (!asked && asked.error().code() == ENOENT) return Chain{};
    if (!asked) return asked.error();
    return found;
}

Result<std::vector<BaseChain>> read_base_chains(NetlinkSocket& socket) {
    for (int attempt = 0;; ++attempt) {
        auto ask = built(NFPROTO_UNSPEC, NFT_MSG_GETCHAIN, NLM_F_DUMP, [](nlmsghdr*) {});
        std::vector<BaseChain> found;
        auto asked = socket.query(ask, [&](const nlmsghdr& message) -> Result<void> {
            Chain chain{nftnl_chain_alloc()};
            if (nftnl_chain_nlmsg_parse(&message, chain.get()) < 0) return {};
            auto word = [&](std::uint16_t attribute) {
                const char* text = nftnl_chain_get_str(chain.get(), attribute);
                return std::string{text == nullptr ? "" : text};
            };
            if (!nftnl_chain_is_set(chain.get(), NFTNL_CHAIN_HOOKNUM)) return {};
            BaseChain one;
            one.family = static_cast<std::uint16_t>(nftnl_chain_get_u32(chain.get(), NFTNL_CHAIN_FAMILY));
            one.table = word(NFTNL_CHAIN_TABLE);
            one.name = word(NFTNL_CHAIN_NAME);
            one.type = word(NFTNL_CHAIN_TYPE);
            one.hook = nftnl_chain_get_u32(chain.get(), NFTNL_CHAIN_HOOKNUM);
            one.priority = nftnl_chain_get_s32(chain.get(), NFTNL_CHAIN_PRIO);
            one.drops_by_policy = nftnl_chain_is_set(chain.get(), NFTNL_CHAIN_POLICY) &&
                                  nftnl_chain_get_u32(chain.get(), NFTNL_CHAIN_POLICY) == NF_DROP;
            found.push_back(std::move(one));
            return {};
        });
        if (!asked && asked.error().code() == EINTR && attempt < kAttempts) continue;
        if (!asked) return asked.error();
        return found;
    }
}

} // namespace tailrace::nft
