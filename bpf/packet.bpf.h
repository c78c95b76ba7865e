/* bpf/packet.bpf.h - reads an IP packet that starts l2_bytes into the buffer. What counts as which protocol is the
 * reference client's reading (tailscale net/packet/packet.go); it differs from ours only where it reads beyond the
 * packet's own length (we drop) and in IHL < 5 (we drop, as kernels do). */
#pragma once
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "shared/base.h"
#include "shared/reasons.h"

#define TR_INLINE static __attribute__((always_inline)) inline

/* Not in uapi under one name. */
enum { TR_IPPROTO_FRAGMENT = 44, TR_IPPROTO_ICMPV6 = 58, TR_IPPROTO_TSMP = 99, TR_IPPROTO_SCTP = 132 };

enum { TR_TCP_FIN = 0x01, TR_TCP_SYN = 0x02, TR_TCP_RST = 0x04, TR_TCP_ACK = 0x10 };

/* Later fragments that start before this many 8-byte blocks could rewrite a transport header. */
#define TR_MIN_FRAGMENT_BLOCKS 10

/* The longest headers that we read: IPv4 with options, or IPv6 and a fragment header, then TCP. */
#define TR_HEADER_BYTES 80

/* An address as two words that read in memory as struct tr_addr does. The programs keep packets in registers: bytes that
 * were stored apart and are then read as a word wait for each other. */
struct tr_words {
    __u64 word[2];
};

struct tr_packet {
    struct tr_words src;
    struct tr_words dst;
    __u16 dst_head;  /* the first two bytes of dst as a number */
    __u16 dst_next;  /* and the next two */
    __be16 src_port; /* TCP, UDP, SCTP; else 0 */
    __be16 dst_port;
    __u8 family; /* 4 or 6 */
    __u8 ip_proto;
    __u8 tcp_flags;
    __u8 icmp_type; /* with icmp_code only where has_icmp_header */
    __u8 icmp_code;
    bool has_icmp_header; /* eight bytes of it */
    bool first_fragment;  /* others will follow */
    bool later_fragment;  /* no transport header here */
    __u32 fragment_id;
};

#define TR_READ_OK -1

/* An Ethernet header. A function that is not static is verified once, for any argument, and not on every way that leads to
 * it; by this mask the length of a header is bounded and even there. */
#define TR_MOST_L2_BYTES 14

/* Packets are read in pieces of two bytes: where the architecture is strict about alignment (user-mode Linux says it
 * is), the verifier lets nothing larger through. */
TR_INLINE __u32 read_word(const void *from)
{
    const __u16 *halves = from;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return halves[0] | (__u32)halves[1] << 16;
#else
    return (__u32)halves[0] << 16 | halves[1];
#endif
}

/* Two words of four bytes as one of eight, as they stand in memory. */
TR_INLINE __u64 in_memory(__u32 first, __u32 second)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return first | (__u64)second << 32;
#else
    return (__u64)first << 32 | second;
#endif
}

TR_INLINE void read_addr4(struct tr_words *to, const void *from)
{
    to->word[0] = in_memory(read_word(from), 0);
    to->word[1] = 0;
}

TR_INLINE void read_addr6(struct tr_words *to, const void *from)
{
    to->word[0] = in_memory(read_word(from), read_word(from + 4));
    to->word[1] = in_memory(read_word(from + 8), read_word(from + 12));
}

TR_INLINE struct tr_addr to_addr(const struct tr_words *words)
{
    struct tr_addr addr;

    __builtin_memcpy(&addr, words, sizeof addr);
    return addr;
}

/* How many bytes of its own header a first fragment must hold for a verdict; 0 for protocols that we don't look into. */
TR_INLINE __u32 least_transport_bytes(const struct tr_packet *packet)
{
    switch (packet->ip_proto) {
    case IPPROTO_TCP:
        return 20;
    case IPPROTO_UDP:
        return 8;
    case TR_IPPROTO_SCTP:
        return 12;
    case IPPROTO_ICMP:
        return packet->family == 4 ? 4 : 0;
    case TR_IPPROTO_ICMPV6:
        return packet->family == 6 ? 4 : 0;
    case IPPROTO_IGMP:
        return packet->family == 4 ? 8 : 0;
    case TR_IPPROTO_TSMP:
        return 7;
    default:
        return 0;
    }
}

/* Takes what follows the IP headers: `transport` of `bytes` bytes by the packet's own account. */
TR_INLINE int read_transport(struct tr_packet *packet, const __u8 *transport, const void *data_end, __u32 bytes)
{
    __u8 proto = packet->ip_proto;

    if (proto == 0 || proto == 255)
        return TR_DROP_UNKNOWN_PROTO;
    if (bytes < least_transport_bytes(packet))
        return TR_DROP_TRUNCATED;

    if (proto == IPPROTO_TCP) {
        if ((void *)(transport + 14) > data_end)
            return TR_DROP_TRUNCATED;
        packet->src_port = *(const __be16 *)transport;
        packet->dst_port = *(const __be16 *)(transport + 2);
        packet->tcp_flags = transport[13];
    } else if (proto == IPPROTO_UDP || proto == TR_IPPROTO_SCTP) {
        if ((void *)(transport + 4) > data_end)
            return TR_DROP_TRUNCATED;
        packet->src_port = *(const __be16 *)transport;
        packet->dst_port = *(const __be16 *)(transport + 2);
    } else if (proto == (packet->family == 4 ? IPPROTO_ICMP : TR_IPPROTO_ICMPV6)) {
        if ((void *)(transport + 2) > data_end)
            return TR_DROP_TRUNCATED;
        packet->icmp_type = transport[0];
        packet->icmp_code = transport[1];
        packet->has_icmp_header = bytes >= 8;
    } else if (proto == TR_IPPROTO_TSMP && packet->family == 4 && packet->first_fragment) {
        return TR_DROP_BAD_FRAGMENT;
    }
    return TR_READ_OK;
}

TR_INLINE int read_ipv4(struct tr_packet *packet, const __u8 *ip, const void *data_end, __u32 buffer_bytes)
{
    __u32 header_bytes, total_bytes;
    __u16 fragment;

    if ((void *)(ip + 20) > data_end)
        return TR_DROP_TRUNCATED;
    header_bytes = (ip[0] & 0x0f) * 4;
    total_bytes = bpf_ntohs(*(const __be16 *)(ip + 2));
    fragment = bpf_ntohs(*(const __be16 *)(ip + 6));
    packet->family = 4;
    packet->ip_proto = ip[9];
    read_addr4(&packet->src, ip + 12);
    read_addr4(&packet->dst, ip + 16);
    packet->dst_head = bpf_ntohs(*(const __be16 *)(ip + 16));
    packet->dst_next = bpf_ntohs(*(const __be16 *)(ip + 18));
    if (total_bytes > buffer_bytes)
        return TR_DROP_TRUNCATED;
    if (header_bytes < 20 || header_bytes > total_bytes)
        return TR_DROP_BAD_HEADER;

    packet->fragment_id = *(const __be16 *)(ip + 4);
    if (fragment & 0x1fff) {
        packet->later_fragment = true;
        return (fragment & 0x1fff) < TR_MIN_FRAGMENT_BLOCKS ? TR_DROP_BAD_FRAGMENT : TR_READ_OK;
    }
    packet->first_fragment = fragment & 0x2000;
    return read_transport(packet, ip + header_bytes, data_end, total_bytes - header_bytes);
}

TR_INLINE int read_ipv6(struct tr_packet *packet, const __u8 *ip, const void *data_end, __u32 buffer_bytes)
{
    __u32 payload_bytes;
    __u16 fragment;

    if (buffer_bytes < 40 || (void *)(ip + 40) > data_end)
        return TR_DROP_TRUNCATED;
    packet->family = 6;
    packet->ip_proto = ip[6];
    read_addr6(&packet->src, ip + 8);
    read_addr6(&packet->dst, ip + 24);
    packet->dst_head = bpf_ntohs(*(const __be16 *)(ip + 24));
    payload_bytes = bpf_ntohs(*(const __be16 *)(ip + 4));
    if (payload_bytes + 40 > buffer_bytes)
        return TR_DROP_TRUNCATED;
    if (packet->ip_proto != TR_IPPROTO_FRAGMENT)
        return read_transport(packet, ip + 40, data_end, payload_bytes);

    /* Next header 1 | reserved 1 | offset 13 bits, reserved 2, more 1 | id 4. RFC 8200, 4.5 */
    if (payload_bytes < 8 || (void *)(ip + 48) > data_end)
        return TR_DROP_TRUNCATED;
    fragment = bpf_ntohs(*(const __be16 *)(ip + 42));
    packet->fragment_id = read_word(ip + 44);
    packet->ip_proto = ip[40];
    if (fragment >> 3) {
        packet->later_fragment = true;
        return (fragment >> 3) < TR_MIN_FRAGMENT_BLOCKS ? TR_DROP_BAD_FRAGMENT : TR_READ_OK;
    }
    packet->first_fragment = fragment & 1;
    return read_transport(packet, ip + 48, data_end, payload_bytes - 8);
}

/* Fills `packet` (zeroed by the caller). Returns TR_READ_OK or the reason to drop. The buffer is not empty. */
TR_INLINE int read_packet(struct __sk_buff *skb, __u32 l2_bytes, struct tr_packet *packet)
{
    __u32 wanted = l2_bytes + TR_HEADER_BYTES;
    __u32 buffer_bytes = skb->len - l2_bytes;
    void *data = (void *)(long)skb->data;
    void *data_end = (void *)(long)skb->data_end;
    const __u8 *ip;

    if (buffer_bytes < 20)
        return TR_DROP_TOO_SHORT;
    if (data + wanted > data_end && skb->len > (__u32)(data_end - data)) {
        if (bpf_skb_pull_data(skb, skb->len < wanted ? skb->len : wanted))
            return TR_DROP_TRUNCATED;
        data = (void *)(long)skb->data;
        data_end = (void *)(long)skb->data_end;
    }
    ip = data + l2_bytes;
    if ((void *)(ip + 1) > data_end)
        return TR_DROP_TOO_SHORT;
    if ((ip[0] >> 4) == 4)
        return read_ipv4(packet, ip, data_end, buffer_bytes);
    if ((ip[0] >> 4) == 6)
        return read_ipv6(packet, ip, data_end, buffer_bytes);
    return TR_DROP_BAD_VERSION;
}

TR_INLINE bool is_multicast(const struct tr_packet *packet)
{
    return packet->family == 4 ? packet->dst_head >> 12 == 0xe : packet->dst_head >> 8 == 0xff;
}

/* Link-local unicast, but for the one address where clouds keep their metadata (and their resolver): 169.254.169.254. */
TR_INLINE bool is_link_local(const struct tr_packet *packet)
{
    if (packet->family == 6)
        return (packet->dst_head & 0xffc0) == 0xfe80;
    return packet->dst_head == 0xa9fe && packet->dst_next != 0xa9fe;
}

TR_INLINE bool is_pure_syn(const struct tr_packet *packet)
{
    return (packet->tcp_flags & (TR_TCP_SYN | TR_TCP_ACK)) == TR_TCP_SYN;
}

TR_INLINE bool same_addr(const struct tr_addr *a, const struct tr_words *b)
{
    const __u64 *words = (const __u64 *)a->bytes;

    return words[0] == b->word[0] && words[1] == b->word[1];
}

#define TR_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* Of a packet that stands for several segments: how many in the upper half, their bytes in the lower. It holds once the
 * headers that each of them has on the wire (of a tunnel inside the tailnet these are the outer ones). Where the number
 * is not known (via6.bpf.c forgets it, a packet of a virtual machine never had it) it follows from the size. */
__attribute__((noinline)) __u64 measure_segments(struct __sk_buff *skb, __u32 l2_bytes)
{
    __u32 bytes = skb->len - l2_bytes, headers = 40, segments = skb->gso_segs, segment = skb->gso_size;
    __u8 ip[20], proto, offset = 5 << 4;

    l2_bytes &= TR_MOST_L2_BYTES;
    if (bpf_skb_load_bytes(skb, l2_bytes, ip, sizeof ip))
        return 1ull << 32 | bytes;
    proto = ip[6];
    if ((ip[0] >> 4) == 4) {
        headers = (ip[0] & 0x0f) * 4;
        proto = ip[9];
    }
    if (proto == IPPROTO_TCP) {
        bpf_skb_load_bytes(skb, l2_bytes + headers + 12, &offset, sizeof offset);
        headers += (offset >> 4) * 4;
    } else if (proto == IPPROTO_UDP) {
        headers += 8;
    } else if (proto == TR_IPPROTO_SCTP) {
        headers += 12;
    }
    if (!segments && segment && bytes > headers)
        segments = (bytes - headers + segment - 1) / segment;
    if (segments > 1)
        bytes += (segments - 1) * headers;
    return (__u64)(segments ? segments : 1) << 32 | bytes;
}

/* What a packet adds to a counter. */
TR_INLINE struct tr_counter measure(struct __sk_buff *skb, __u32 l2_bytes)
{
    struct tr_counter size = {.packets = 1, .bytes = skb->len - l2_bytes};

    if (TR_UNLIKELY(skb->gso_size)) {
        __u64 segments = measure_segments(skb, l2_bytes);

        size.packets = segments >> 32;
        size.bytes = (__u32)segments;
    }
    return size;
}

TR_INLINE void add(struct tr_counter *counter, const struct tr_counter *size)
{
    counter->packets += size->packets;
    counter->bytes += size->bytes;
}

TR_INLINE void count_in(void *map, __u32 index, const struct tr_counter *size)
{
    struct tr_counter *counter = bpf_map_lookup_elem(map, &index);

    if (counter)
        add(counter, size);
}
