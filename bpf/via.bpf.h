/* bpf/via.bpf.h - headers of both families as they stand in packets, and what they have in common: for via6.bpf.c. They
 * are copied out of packets and into them, so nothing here depends on how a packet lies in memory. */
#pragma once
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "packet.bpf.h"
#include "shared/via_map.h"

struct ip6 {
    __be32 start; /* version 4 bits | traffic class 8 | flow label 20 */
    __be16 payload_bytes;
    __u8 next;
    __u8 hop_limit;
    struct tr_addr src;
    struct tr_addr dst;
};
TR_ASSERT_SIZE(struct ip6, 40);

struct fragment6 {
    __u8 next;
    __u8 reserved;
    __be16 offset; /* 13 bits | reserved 2 | more 1 */
    __be32 id;
};
TR_ASSERT_SIZE(struct fragment6, 8);

struct ip4 {
    __u8 start; /* version 4 bits | words of header 4 */
    __u8 tos;
    __be16 total_bytes;
    __be16 id;
    __be16 offset; /* reserved 1 bit | don't fragment 1 | more 1 | offset 13 */
    __u8 ttl;
    __u8 ip_proto;
    __be16 check;
    __be32 src;
    __be32 dst;
};
TR_ASSERT_SIZE(struct ip4, 20);

enum { IP4_DONT_FRAGMENT = 0x4000, IP4_MORE = 0x2000, IP4_OFFSET = 0x1fff };

/* The first eight bytes of whatever comes behind an IP header. */
union transport {
    struct {
        __be16 src_port;
        __be16 dst_port;
        __be16 bytes;
        __be16 check; /* UDP */
    };
    struct {
        __u8 type;
        __u8 code;
        __be16 icmp_check;
        __be16 id; /* of an echo; else what the type says */
        __be16 rest;
    };
};
TR_ASSERT_SIZE(union transport, 8);

struct tcp {
    __be16 src_port;
    __be16 dst_port;
    __be32 seq;
    __be32 ack;
    __u8 words; /* of header, upper 4 bits */
    __u8 flags;
    __be16 window;
    __be16 check;
    __be16 urgent;
};
TR_ASSERT_SIZE(struct tcp, 20);

/* ICMP errors with as much of the packet they are about as RFC 792 asks for. */
struct error4 {
    struct ip4 ip;
    union transport icmp;
    struct ip4 about;
    union transport start;
};
TR_ASSERT_SIZE(struct error4, 56);
struct error6 {
    struct ip6 ip;
    union transport icmp;
    struct ip6 about;
    union transport start;
};
TR_ASSERT_SIZE(struct error6, 96);

/* What ICMPv6 sums up beside itself. */
struct pseudo6 {
    struct tr_addr src;
    struct tr_addr dst;
    __be32 bytes;
    __be32 next;
};
TR_ASSERT_SIZE(struct pseudo6, 40);

enum { ICMP4_ECHO_REPLY = 0, ICMP4_UNREACHABLE = 3, ICMP4_ECHO = 8, ICMP4_TIME_EXCEEDED = 11 };
enum {
    ICMP6_UNREACHABLE = 1,
    ICMP6_TOO_BIG = 2,
    ICMP6_TIME_EXCEEDED = 3,
    ICMP6_PARAMETER = 4,
    ICMP6_ECHO = 128,
    ICMP6_ECHO_REPLY = 129
};
enum { ICMP6_MIN_MTU = 1280, MTU_DIFFERENCE = 20 };

TR_INLINE bool same_addr6(const struct tr_addr *a, const struct tr_addr *b)
{
    const __u32 *left = (const __u32 *)a->bytes, *right = (const __u32 *)b->bytes;

    return left[0] == right[0] && left[1] == right[1] && left[2] == right[2] && left[3] == right[3];
}

TR_INLINE __be32 inner_address(const struct tr_addr *via)
{
    return ((const __u32 *)via->bytes)[3];
}

TR_INLINE void set_inner_address(struct tr_addr *via, __be32 addr)
{
    ((__u32 *)via->bytes)[3] = addr;
}

/* Of what a sum stands for. Sums are in the order of memory. */
TR_INLINE __u16 check_of(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

/* The checksum after a part of what it sums up was exchanged. */
TR_INLINE __u16 changed_check(__u16 check, __u32 difference)
{
    __u32 sum = (__u16)~check;

    sum += difference & 0xffff;
    sum += difference >> 16;
    return check_of(sum);
}

TR_INLINE struct pseudo6 pseudo_of(const struct tr_addr *src, const struct tr_addr *dst, __u32 bytes, __u8 next)
{
    struct pseudo6 pseudo = {.src = *src, .dst = *dst, .bytes = bpf_htonl(bytes), .next = bpf_htonl(next)};

    return pseudo;
}

/* From a header of one family to one of the other. Lengths are those without the header. */
TR_INLINE void to_ip4(struct ip4 *to, const struct ip6 *from, __be32 src, __be32 dst, __u8 ip_proto, __u32 bytes)
{
    to->start = 0x45;
    to->tos = bpf_ntohl(from->start) >> 20;
    to->total_bytes = bpf_htons(bytes + sizeof *to);
    to->id = 0;
    to->offset = 0;
    to->ttl = from->hop_limit;
    to->ip_proto = ip_proto;
    to->check = 0;
    to->src = src;
    to->dst = dst;
}

TR_INLINE void to_ip6(struct ip6 *to, const struct ip4 *from, const struct tr_addr *src, const struct tr_addr *dst,
                      __u8 next, __u32 bytes)
{
    to->start = bpf_htonl(0x60000000u | (__u32)from->tos << 20);
    to->payload_bytes = bpf_htons(bytes);
    to->next = next;
    to->hop_limit = from->ttl;
    to->src = *src;
    to->dst = *dst;
}

TR_INLINE void finish_ip4(struct ip4 *ip)
{
    ip->check = check_of(bpf_csum_diff(0, 0, (__be32 *)ip, sizeof *ip, 0));
}

/* The other family's number of an error, RFC 7915 4.2 and 5.2; false: it has none. `bytes` is the MTU told. */
TR_INLINE bool to_error4(union transport *to, const union transport *from)
{
    __u32 mtu = bpf_ntohs(from->rest); /* 32 bits, but nobody tells one of more than 16 */

    to->id = to->rest = 0;
    to->code = 0;
    switch (from->type) {
    case ICMP6_UNREACHABLE:
        to->type = ICMP4_UNREACHABLE;
        if (from->code > 4)
            return false;
        to->code = from->code == 1 ? 10 : from->code == 4 ? 3 : 1;
        return true;
    case ICMP6_TOO_BIG:
        to->type = ICMP4_UNREACHABLE;
        to->code = 4;
        if (from->id || mtu < ICMP6_MIN_MTU)
            mtu = ICMP6_MIN_MTU;
        to->rest = bpf_htons(mtu - MTU_DIFFERENCE);
        return true;
    case ICMP6_TIME_EXCEEDED:
        to->type = ICMP4_TIME_EXCEEDED;
        to->code = from->code;
        return from->code <= 1;
    case ICMP6_PARAMETER:
        to->type = ICMP4_UNREACHABLE;
        to->code = 2;
        return from->code == 1;
    default:
        return false;
    }
}

TR_INLINE bool to_error6(union transport *to, const union transport *from)
{
    __u32 mtu = bpf_ntohs(from->rest) + MTU_DIFFERENCE;

    to->id = to->rest = 0;
    to->code = 0;
    if (from->type == ICMP4_TIME_EXCEEDED) {
        to->type = ICMP6_TIME_EXCEEDED;
        to->code = from->code;
        return from->code <= 1;
    }
    if (from->type != ICMP4_UNREACHABLE)
        return false;
    to->type = ICMP6_UNREACHABLE;
    switch (from->code) {
    case 2: /* the protocol: a parameter problem about the next header, byte 6 */
        to->type = ICMP6_PARAMETER;
        to->code = 1;
        to->rest = bpf_htons(6);
        return true;
    case 3:
        to->code = 4;
        return true;
    case 4:
        to->type = ICMP6_TOO_BIG;
        to->rest = bpf_htons(mtu < ICMP6_MIN_MTU ? ICMP6_MIN_MTU : mtu);
        return true;
    case 9:
    case 10:
    case 13:
    case 15:
        to->code = 1;
        return true;
    default:
        return from->code <= 12;
    }
}
