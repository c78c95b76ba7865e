/* bpf/guard.bpf.c - keeps from WireGuard's port what cannot be meant for it, and floods of handshakes. XDP, in the driver
 * of underlay interfaces. What is not a datagram to an address of this host and to that port is not looked at: a packet
 * that would be forwarded, and ports that were moved (move.bpf.c) pass. (But for packets to us with so many extension
 * headers that we would not find the datagram.)
 *
 * A forged initiation with a right mac1 (who has our public key can make one) costs WireGuard a key agreement before it
 * finds that it knows no such peer, and all handshake messages wait in one queue. So those from endpoints that peers
 * have now pass, and all other sources share one budget: a budget for each source would be none for who forges them.
 * Responses and cookie replies wait in the same queue and have a budget of their own, so that a flood of initiations
 * does not take away answers to ours. Data always passes: a peer that roams is recognised by it, and the kernel rejects
 * what is forged by one look at a table. Cookies stay the kernel's affair, who alone has the secrets for them. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "kinds.bpf.h"
#include "shared/guard_map.h"
#include "shared/reasons.h"
#include "shared/steer_map.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct tr_guard_config);
} tr_guard_cfg SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, struct tr_local_key);
    __type(value, __u32);
} tr_guard_local SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, TR_GUARD_PEERS);
    __type(key, struct tr_guard_key);
    __type(value, __u32);
} tr_guard_peers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, TR_BUDGET_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} tr_guard_budget SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TR_GUARD_VERDICT_COUNT);
    __type(key, __u32);
    __type(value, struct tr_counter);
} tr_guard_count SEC(".maps");

#define UDP_HEADER_BYTES 8
#define KIND_BYTES 8 /* of a datagram, to know what it is */
#define VLAN_TAGS 2
/* Cheap to add, so a few more must not be a way around us: hosts may refuse more than eight. RFC 8504, 5.3 */
#define EXTENSION_HEADERS 8
#define FURTHEST_UDP_HEADER 2048
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_DESTINATION_OPTIONS 60

/* Source: linux drivers/net/wireguard/messages.h. Little endian: a byte and three zeros. */
enum { INITIATION = 1, RESPONSE, COOKIE_REPLY, DATA };
#define INITIATION_BYTES 148
#define RESPONSE_BYTES 92
#define COOKIE_REPLY_BYTES 64
#define LEAST_DATA_BYTES 32

/* A packet as far as it was read. */
struct read {
    const __u8 *start, *end; /* of what is in one piece */
    __u32 at;                /* from the start, bounded */
    __u32 left;              /* bytes of the packet from there on, by its own account */
    __u32 bytes;             /* of the IP packet */
    struct tr_local_key to;
    struct tr_guard_key from;
    bool first_fragment; /* others will follow */
    bool too_many_headers;
};

/* Where the architecture is strict about alignment (user-mode Linux says it is), the verifier lets nothing larger
 * through. */
UNDERLAY_INLINE __be16 read16(const __u8 *from)
{
    return *(const __be16 *)from;
}

UNDERLAY_INLINE void copy_address(struct tr_addr *to, const __u8 *from, int bytes)
{
    __u16 *halves = (__u16 *)to->bytes;

#pragma unroll
    for (int i = 0; i < bytes / 2; ++i)
        halves[i] = read16(from + 2 * i);
}

/* `bytes` from where we are; null when they are not there in one piece. */
UNDERLAY_INLINE const __u8 *peek(const struct read *read, __u32 bytes)
{
    const __u8 *here;

    if (read->at > FURTHEST_UDP_HEADER)
        return 0;
    here = read->start + read->at;
    return here + bytes <= read->end ? here : 0;
}

UNDERLAY_INLINE bool take_ipv4(struct read *read, __u32 buffer_bytes)
{
    const __u8 *ip = peek(read, 20);
    __u32 header_bytes;
    __u16 fragment;

    if (!ip || ip[0] >> 4 != 4 || ip[9] != IPPROTO_UDP)
        return false;
    header_bytes = (ip[0] & 0x0f) * 4;
    fragment = bpf_ntohs(read16(ip + 6));
    read->bytes = bpf_ntohs(read16(ip + 2));
    if (header_bytes < 20 || read->bytes < header_bytes || read->bytes > buffer_bytes || (fragment & 0x1fff))
        return false;
    read->first_fragment = fragment & 0x2000;
    read->left = read->bytes - header_bytes;
    read->to.family = 4;
    read->from.family = 4;
    copy_address(&read->from.addr, ip + 12, 4);
    copy_address(&read->to.addr, ip + 16, 4);
    read->at += header_bytes;
    return true;
}

UNDERLAY_INLINE bool is_extension(__u32 next)
{
    return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT || next == NEXT_DESTINATION_OPTIONS;
}

/* One that leads to another header of a packet that ends here; of fragments only the first one's does. */
UNDERLAY_INLINE bool leads_on(__u32 next, const __u8 *header)
{
    if (next == NEXT_FRAGMENT)
        return !header[2] && !(header[3] & 0xf8);
    return is_extension(next) && (next != NEXT_ROUTING || !header[3]);
}

/* What stands at the end of a packet's extension headers, in one word: where that is 16 bits, bytes left 16, next header
 * 8, first fragment 1; 0 when they lead nowhere. Not static: the verifier walks through it once, and not through all that
 * follows for each way out of the loop. */
__attribute__((noinline)) __u64 skip_extensions(struct xdp_md *ctx, __u32 at, __u32 left, __u32 next)
{
    struct read read = {.start = (const __u8 *)(long)ctx->data, .end = (const __u8 *)(long)ctx->data_end, .at = at};
    __u32 first_fragment = 0, header_bytes;
    const __u8 *header;
    bool is_fragment;

    for (int i = 0; i < EXTENSION_HEADERS && next != IPPROTO_UDP; ++i) {
        header = peek(&read, 8);
        if (!header || !leads_on(next, header))
            return 0;
        /* A fragment header may belong to a packet of one piece, too: RFC 6946. Without branches, which the verifier
         * would follow in all their combinations. */
        is_fragment = next == NEXT_FRAGMENT;
        first_fragment |= is_fragment & header[3];
        header_bytes = is_fragment ? 8 : (header[1] + 1) * 8;
        if (header_bytes > left)
            return 0;
        left -= header_bytes;
        read.at += header_bytes;
        next = header[0];
    }
    return read.at | (__u64)left << 16 | (__u64)next << 32 | (__u64)first_fragment << 40;
}

UNDERLAY_INLINE bool take_ipv6(struct xdp_md *ctx, struct read *read, __u32 buffer_bytes)
{
    const __u8 *ip = peek(read, 40);
    __u32 next;

    if (!ip || ip[0] >> 4 != 6)
        return false;
    next = ip[6];
    read->left = bpf_ntohs(read16(ip + 4));
    read->bytes = read->left + 40;
    if (read->bytes > buffer_bytes)
        return false;
    read->to.family = 6;
    read->from.family = 6;
    copy_address(&read->from.addr, ip + 8, 16);
    copy_address(&read->to.addr, ip + 24, 16);
    read->at += 40;
    if (is_extension(next)) {
        __u64 after = skip_extensions(ctx, read->at, read->left, next);

        if (!after)
            return false;
        read->at = after & 0xffff;
        read->left = after >> 16 & 0xffff;
        next = after >> 32 & 0xff;
        read->first_fragment = after >> 40;
        read->too_many_headers = next != IPPROTO_UDP;
        return true;
    }
    return next == IPPROTO_UDP;
}

/* To the UDP header of a packet that has one. */
UNDERLAY_INLINE bool find_udp(struct xdp_md *ctx, struct read *read)
{
    __u32 buffer_bytes = bpf_xdp_get_buff_len(ctx);
    const __u8 *header = peek(read, ETH_HLEN);
    __be16 protocol;

    if (!header)
        return false;
    protocol = read16(header + 12);
    read->at = ETH_HLEN;
#pragma unroll
    for (int i = 0; i < VLAN_TAGS; ++i) {
        if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
            break;
        header = peek(read, 4);
        if (!header)
            return false;
        protocol = read16(header + 2);
        read->at += 4;
    }
    if (buffer_bytes < read->at)
        return false;
    if (protocol == bpf_htons(ETH_P_IP))
        return take_ipv4(read, buffer_bytes - read->at);
    if (protocol == bpf_htons(ETH_P_IPV6))
        return take_ipv6(ctx, read, buffer_bytes - read->at);
    return false;
}

/* One message more? A budget is the moment at which all of it will be there again, which every message puts off by an
 * interval; while that is too far away none passes, and a flood only reads. */
UNDERLAY_INLINE bool take_from_budget(const struct tr_guard_config *config, __u32 which)
{
    __u64 *whole = bpf_map_lookup_elem(&tr_guard_budget, &which);
    __u64 now = bpf_ktime_get_ns(), seen, from;

    if (!whole)
        return true;
#pragma unroll
    for (int tries = 0; tries < 4; ++tries) { /* others take from it, too, but not many a second */
        seen = *(volatile __u64 *)whole;
        if (seen > now + config->tolerance_ns)
            return false;
        from = seen > now ? seen : now;
        if (__sync_val_compare_and_swap(whole, seen, from + config->interval_ns) == seen)
            return true;
    }
    return false;
}

UNDERLAY_INLINE __u32 judge_handshake(const struct tr_guard_config *config, const struct read *read, __u32 type)
{
    if (bpf_map_lookup_elem(&tr_guard_peers, &read->from))
        return TR_GUARD_PEER;
    if (type == INITIATION)
        return take_from_budget(config, TR_BUDGET_INITIATIONS) ? TR_GUARD_NEW : TR_GUARD_INITIATION;
    return take_from_budget(config, TR_BUDGET_ANSWERS) ? TR_GUARD_NEW : TR_GUARD_ANSWER;
}

/* What a datagram may be by its length alone: of a first fragment there need be no more than the UDP header. Nobody cuts
 * something so short, but who wants to get around us. */
UNDERLAY_INLINE __u32 type_by_length(__u32 bytes)
{
    return bytes == INITIATION_BYTES     ? INITIATION
           : bytes == RESPONSE_BYTES     ? RESPONSE
           : bytes == COOKIE_REPLY_BYTES ? COOKIE_REPLY
                                         : 0;
}

UNDERLAY_INLINE __u32 judge_first_fragment(const struct tr_guard_config *config, const struct read *read, __u32 bytes)
{
    __u32 type = type_by_length(bytes);

    return type ? judge_handshake(config, read, type) : TR_GUARD_FRAGMENT;
}

UNDERLAY_INLINE __u32 judge(const struct tr_guard_config *config, const struct read *read, const __u8 *payload,
                            __u32 bytes)
{
    __u32 type;

    if (is_disco(payload, bytes))
        return TR_GUARD_DISCO;
    if (is_stun(payload, bytes))
        return TR_GUARD_STUN;
    if (is_geneve(payload, bytes))
        return TR_GUARD_GENEVE;
    type = payload[0];
    if (type < INITIATION || type > DATA || payload[1] || payload[2] || payload[3])
        return TR_GUARD_FOREIGN;
    if (type == DATA)
        return bytes >= LEAST_DATA_BYTES ? TR_GUARD_DATA : TR_GUARD_LENGTH;
    return type == type_by_length(bytes) ? judge_handshake(config, read, type) : TR_GUARD_LENGTH;
}

UNDERLAY_INLINE int count(const struct read *read, __u32 verdict)
{
    struct tr_counter *counter = bpf_map_lookup_elem(&tr_guard_count, &verdict);

    if (counter) {
        counter->packets += 1;
        counter->bytes += read->bytes;
    }
    return verdict >= TR_GUARD_FOREIGN ? XDP_DROP : XDP_PASS;
}

SEC("xdp.frags")
int tr_guard(struct xdp_md *ctx)
{
    struct read read = {.start = (const __u8 *)(long)ctx->data, .end = (const __u8 *)(long)ctx->data_end};
    const struct tr_guard_config *config;
    const __u8 *udp, *payload;
    __u32 zero = 0, bytes;

    if (!find_udp(ctx, &read))
        return XDP_PASS;
    if (read.too_many_headers)
        return bpf_map_lookup_elem(&tr_guard_local, &read.to) ? count(&read, TR_GUARD_HEADERS) : XDP_PASS;
    udp = peek(&read, UDP_HEADER_BYTES);
    config = bpf_map_lookup_elem(&tr_guard_cfg, &zero);
    if (!udp || !config || !config->wireguard_port || read16(udp + 2) != config->wireguard_port)
        return XDP_PASS;
    bytes = bpf_ntohs(read16(udp + 4));
    if (bytes < UDP_HEADER_BYTES || (!read.first_fragment && bytes > read.left)) /* the kernel drops it */
        return XDP_PASS;
    bytes -= UDP_HEADER_BYTES;
    if (!bpf_map_lookup_elem(&tr_guard_local, &read.to))
        return XDP_PASS;
    read.from.port = read16(udp);
    if (read.first_fragment)
        return count(&read, judge_first_fragment(config, &read, bytes));
    if (bytes < KIND_BYTES)
        return count(&read, TR_GUARD_FOREIGN);
    payload = udp + UDP_HEADER_BYTES;
    if (payload + KIND_BYTES > read.end) /* not in one piece */
        return XDP_PASS;
    return count(&read, judge(config, &read, payload, bytes));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
