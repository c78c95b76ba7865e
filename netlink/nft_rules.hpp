// The words that our nftables rules are made of, as libnftnl objects, and reading them back. Only for .cpp files of
// this folder.
#pragma once
#include "netlink/socket.hpp"

#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <netinet/in.h> // before linux/netfilter.h, which else has an in_addr of its own

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tailrace::nft {

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

/// Runs a builder of libnftnl on a buffer and takes the message away from it.
template <typename Build>
NetlinkMessage built(std::uint16_t family, int message, int flags, Build&& build) {
    alignas(nlmsghdr) std::array<char, 4096> buffer{};
    nlmsghdr* header = nftnl_nlmsg_build_hdr(buffer.data(), static_cast<std::uint16_t>(message), family,
                                             static_cast<std::uint16_t>(flags), 0);
    build(header);
    return NetlinkMessage::copy_of(*header);
}
NetlinkMessage batch_edge(nlmsghdr* (*edge)(char*, std::uint32_t));

/// NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE or NFT_MSG_GETTABLE of family inet.
NetlinkMessage table_message(int message, int flags, const std::string& name, std::uint32_t table_flags);

/// Of family inet. None there is success.
Result<void> remove_table(NetlinkSocket& socket, const std::string& name);

/// Where a base chain hangs.
struct Hook {
    const char* type = "filter";
    std::uint32_t number = 0; ///< NF_INET_...
    std::int32_t priority = 0;
    std::string device = {}; ///< only at NF_INET_INGRESS
};
/// A chain of a table of ours, family inet. Without a hook nothing comes by.
struct PlannedChain {
    const char* name;
    std::optional<Hook> hook;
    std::vector<Rule> rules;
};
NetlinkMessage chain_message(const std::string& table, const PlannedChain& planned);
bool hangs_as_planned(const nftnl_chain* chain, const PlannedChain& planned);

Rule empty_rule(std::uint32_t family, const std::string& table, const char* chain);
enum class Place { First, Last };
NetlinkMessage rule_message(const nftnl_rule* rule, Place place);
NetlinkMessage remove_rule_message(std::uint32_t family, const std::string& table, const std::string& chain,
                                   std::uint64_t handle);

// Words; each is appended. All of them pass on register 1.
nftnl_expr* append(nftnl_rule* rule, const char* kind);
void append_meta(nftnl_rule* rule, std::uint32_t key); ///< NFT_META_...
void append_ct(nftnl_rule* rule, std::uint32_t key);   ///< NFT_CT_...
void append_payload(nftnl_rule* rule, std::uint32_t base, std::uint32_t offset_bytes, std::uint32_t size_bytes);
void append_mask(nftnl_rule* rule, const void* mask, std::uint32_t size_bytes, const void* flip = nullptr);
void append_equal(nftnl_rule* rule, const void* data, std::size_t size_bytes);
void append_unequal(nftnl_rule* rule, const void* data, std::size_t size_bytes);
void append_set_meta(nftnl_rule* rule, std::uint32_t key);
void append_set_ct(nftnl_rule* rule, std::uint32_t key);
void append_verdict(nftnl_rule* rule, int verdict); ///< NF_DROP, NF_ACCEPT, NFT_RETURN

/// The whole name, not the beginning of one. `which`: NFT_META_IIFNAME or NFT_META_OIFNAME.
void append_interface(nftnl_rule* rule, std::uint32_t which, const std::string& device);
void append_not_interface(nftnl_rule* rule, std::uint32_t which, const std::string& device);
void append_ipv4(nftnl_rule* rule); ///< meta nfproto ipv4
void append_ipv6(nftnl_rule* rule);

/// As `nft` and `iptables` show it.
void set_comment(nftnl_rule* rule, const std::string& text);

struct RuleSummary {
    std::string meaning; ///< every expression but the counter's numbers
    std::string comment;
    std::uint64_t handle = 0;
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
};
RuleSummary summary_of(const nftnl_rule* rule);

/// Rules of one chain, or of the whole table when `chain` is empty.
Result<std::vector<RuleSummary>> read_rules(NetlinkSocket& socket, std::uint16_t family, const std::string& table,
                                            const std::string& chain);
/// No such chain: empty.
Result<Chain> read_chain(NetlinkSocket& socket, std::uint16_t family, const std::string& table,
                         const std::string& chain);

/// A base chain of anybody.
struct BaseChain {
    std::uint16_t family = 0;
    std::string table, name, type;
    std::uint32_t hook = 0;
    std::int32_t priority = 0;
    bool drops_by_policy = false;
};
Result<std::vector<BaseChain>> read_base_chains(NetlinkSocket& socket);

} // namespace tailrace::nft
