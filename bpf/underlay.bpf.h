/* bpf/underlay.bpf.h - what the programs of the underlay interfaces share: their maps, and how they find and change the
 * UDP header. Each object declares all maps; they are pinned, so that the second finds the first one's. */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "kinds.bpf.h"
#include "shared/steer_map.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct tr_steer_config);
} tr_steer_cfg SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096); /* allocated at once: elements that come as needed run out until the next tick where
                                * irq_work waits for it */
    __type(key, struct tr_local_key);
    __type(value, __u32);
} tr_local SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, TR_MOVES);
    __type(key, struct tr_move_key);
    __type(value, struct tr_move);
} tr_moves SEC(".maps");

#define UDP_HEADER_BYTES 8
#define UDP_SRC_PORT 0
#define UDP_DST_PORT 2
#define UDP_CHECKSUM 6

/* The start of an UDP header and of what it carries. */
struct datagram {
    __be16 src_port;
    __be16 dst_port;
    __be16 bytes;
    __be16 checksum;
    __u8 payload[8];
};
TR_ASSERT_SIZE(struct datagram, 16);

/* Where things are in a packet. */
struct place {
    __u32 udp;        /* from the network header */
    bool is_fragment; /* the first one: others have no UDP header */
    union {
        __u8 bytes[20];
        __u32 words[5];
    } ip; /* the start of the IPv4 header; nothing for IPv6 */
};

UNDERLAY_INLINE bool load(struct __sk_buff *skb, __u32 offset, void *to, __u32 bytes)
{
    return bpf_skb_load_bytes_relative(skb, offset, to, bytes, BPF_HDR_START_NET) == 0;
}

/* Where the UDP header is; false when there is none. Fills the destination and the addresses of the tuple. */
UNDERLAY_INLINE bool find_udp(struct __sk_buff *skb, struct tr_local_key *to, struct bpf_sock_tuple *tuple,
                              struct place *place)
{
    __u8 *ip4 = place->ip.bytes;
    __u8 ip[40];

    if (skb->protocol == bpf_htons(ETH_P_IP)) {
        if (!load(skb, 0, ip4, 20) || (ip4[0] & 0x0f) < 5 || ip4[9] != IPPROTO_UDP)
            return false;
        if ((ip4[6] & 0x1f) || ip4[7]) /* an offset */
            return false;
        place->is_fragment = ip4[6] & 0x20;
        place->udp = (ip4[0] & 0x0f) * 4;
        to->family = 4;
        __builtin_memcpy(to->addr.bytes, ip4 + 16, 4);
        __builtin_memcpy(&tuple->ipv4.saddr, ip4 + 12, 4);
        __builtin_memcpy(&tuple->ipv4.daddr, ip4 + 16, 4);
        return true;
    }
    if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
        if (!load(skb, 0, ip, 40) || ip[6] != IPPROTO_UDP) /* extension headers are nobody's disco */
            return false;
        place->is_fragment = false;
        place->udp = 40;
        to->family = 6;
        __builtin_memcpy(to->addr.bytes, ip + 24, 16);
        __builtin_memcpy(tuple->ipv6.saddr, ip + 8, 16);
        __builtin_memcpy(tuple->ipv6.daddr, ip + 24, 16);
        return true;
    }
    return false;
}

UNDERLAY_INLINE bool is_ip_at(struct __sk_buff *skb, __u32 offset, const struct place *place)
{
    __u32 there[5];

    return bpf_skb_load_bytes(skb, offset, there, sizeof(there)) == 0 && there[0] == place->ip.words[0] &&
           there[1] == place->ip.words[1] && there[2] == place->ip.words[2] && there[3] == place->ip.words[3] &&
           there[4] == place->ip.words[4];
}

/* Writes a port of an IPv4 packet's UDP header and mends the checksum, also one that the hardware will finish. Helpers
 * that write count from the start of the buffer, and nothing says how long the link's header is: none or Ethernet's,
 * whichever has the IP header behind it (an Ethernet header never looks like one: it would go to a group). On a link of
 * another kind the packet stays as it is. */
UNDERLAY_INLINE void set_port(struct __sk_buff *skb, const struct place *place, __u32 which, __be16 from, __be16 to)
{
    __u32 l2_bytes, udp;

    if (is_ip_at(skb, 0, place))
        l2_bytes = 0;
    else if (is_ip_at(skb, ETH_HLEN, place))
        l2_bytes = ETH_HLEN;
    else
        return;
    udp = l2_bytes + place->udp;
    /* Several datagrams in one have only the sum of the pseudo header yet, without ports, and where the device makes no
     * checksums nothing else tells so (linux net/ipv4/udp.c, udp_send_skb). */
    if (!skb->gso_size && bpf_l4_csum_replace(skb, udp + UDP_CHECKSUM, from, to, BPF_F_MARK_MANGLED_0 | sizeof(to)))
        return;
    bpf_skb_store_bytes(skb, udp + which, &to, sizeof(to), 0);
}
