#include "netlink/silent_rules.hpp"

#include "base/file.hpp"
#include "base/text.hpp"
#include "netlink/nft_rules.hpp"

#include <fmt/core.h>

#include <cerrno>
#include <string_view>

namespace tailrace {

using namespace nft;

namespace {

constexpr int kQuestions = 5;
constexpr std::size_t kMostNames = 4096;

/// What a word of a rule asks that is not in the packet and not in the rules; empty: nothing.
std::string_view what_it_asks(nftnl_expr* expression) {
    const char* kind = nftnl_expr_get_str(expression, NFTNL_EXPR_NAME);
    const std::string_view word = kind == nullptr ? "" : kind;
    if (word == "quota") return "how much has passed";
    if (word == "meta") {
        const auto key = nftnl_expr_get_u32(expression, NFTNL_EXPR_META_KEY);
        if (key == NFT_META_TIME_NS || key == NFT_META_TIME_DAY || key == NFT_META_TIME_HOUR) return "the time";
    }
    if (word == "ct") {
        const auto key = nftnl_expr_get_u32(expression, NFTNL_EXPR_CT_KEY);
        if (key == NFT_CT_BYTES || key == NFT_CT_PKTS || key == NFT_CT_AVGPKT) return "how much has passed";
    }
    if (word == "match") { // of iptables-nft
        const char* text = nftnl_expr_get_str(expression, NFTNL_EXPR_MT_NAME);
        const std::string_view name = text == nullptr ? "" : text;
        if (name == "set") return "an ipset";
        if (name == "recent") return "a list of recent addresses";
        if (name == "time") return "the time";
        if (name == "quota" || name == "connbytes") return "how much has passed";
    }
    return {};
}

std::string family_of(const nftnl_rule* rule) {
    switch (nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY)) {
    case NFPROTO_IPV4:
        return "ip";
    case NFPROTO_IPV6:
        return "ip6";
    case NFPROTO_INET:
        return "inet";
    case NFPROTO_BRIDGE:
        return "bridge";
    case NFPROTO_NETDEV:
        return "netdev";
    default:
        return "arp";
    }
}

std::string silence_of(const nftnl_rule* rule) {
    auto word = [&](std::uint16_t attribute) {
        const char* text = nftnl_rule_get_str(rule, attribute);
        return std::string{text == nullptr ? "" : text};
    };
    const std::string table = word(NFTNL_RULE_TABLE);
    if (table.starts_with("tailrace")) return {};
    std::unique_ptr<nftnl_expr_iter, Deleter<nftnl_expr_iter_destroy>> words{nftnl_expr_iter_create(rule)};
    while (words) {
        nftnl_expr* expression = nftnl_expr_iter_next(words.get());
        if (expression == nullptr) break;
        if (auto asks = what_it_asks(expression); !asks.empty())
            return fmt::format("a rule in chain {} of table {} {} that asks {}", word(NFTNL_RULE_CHAIN),
                               family_of(rule), table, asks);
    }
    return {};
}

} // namespace

std::string find_legacy_tables() {
    for (const char* file : {"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"})
        if (auto names = read_file(file, kMostNames))
            for (std::string_view name : split(*names, '\n'))
                if (!name.empty() && name != "nat") // it is asked once a connection
                    return fmt::format("rules of iptables-legacy in the table {}", name);
    return {};
}

Result<std::string> find_silent_rules() {
    if (auto legacy = find_legacy_tables(); !legacy.empty()) return legacy;
    auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
    if (!socket) return socket.error().with("read nftables rules");
    for (int attempt = 0;; ++attempt) {
        auto ask = built(NFPROTO_UNSPEC, NFT_MSG_GETRULE, NLM_F_DUMP, [](nlmsghdr*) {});
        std::string found;
        auto asked = socket->query(ask, [&](const nlmsghdr& message) -> Result<void> {
            Rule rule{nftnl_rule_alloc()};
            if (found.empty() && nftnl_rule_nlmsg_parse(&message, rule.get()) >= 0) found = silence_of(rule.get());
            return {};
        });
        if (!asked && asked.error().code() == EINTR && attempt < kQuestions) continue;
        if (!asked) return asked.error().with("read nftables rules");
        return found;
    }
}

} // namespace tailrace
