/* bpf/steer.bpf.c - hands what is not WireGuard's on the WireGuard port to the agent. tc ingress of each underlay
 * interface and of lo. Nothing is rewritten: the packet gets another socket, so firewall and conntrack see the truth.
 * Only whole datagrams to an address of this host: a packet that would be forwarded must never be assigned.
 * Formats: tailscale disco/disco.go, RFC 5389 section 6, RFC 8926 section 3.4. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
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
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TR_STEERED_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} tr_steered SEC(".maps");

#define STEER_INLINE static __attribute__((always_inline)) inline

/* Magic 6 | sender's key 32 | nonce 24. */
#define DISCO_HEADER_BYTES 62
#define STUN_HEADER_BYTES 20
#define GENEVE_HEADER_BYTES 8
#define GENEVE_PROTOCOL_DISCO 0x7a11
#define GENEVE_PROTOCOL_WIREGUARD 0x7a12

/* The start of an UDP header and of what it carries. */
struct datagram {
    __be16 src_port;
    __be16 dst_port;
    __be16 bytes;
    __be16 checksum;
    __u8 payload[8];
};
TR_ASSERT_SIZE(struct datagram, 16);

STEER_INLINE bool is_disco(const __u8 *payload, __u32 bytes)
{
    return bytes >= DISCO_HEADER_BYTES && payload[0] == 0x54 && payload[1] == 0x53 && payload[2] == 0xf0 &&
           payload[3] == 0x9f && payload[4] == 0x92 && payload[5] == 0xac; /* "TS" and a speech balloon */
}

/* A STUN length counts what follows the header. A WireGuard message begins with its type and three zero bytes, which
 * is no binding message, so a session whose index happens to be the cookie is not mistaken. */
STEER_INLINE bool is_stun(const __u8 *payload, __u32 bytes)
{
    return bytes >= STUN_HEADER_BYTES && (payload[0] & 0xc0) == 0 && payload[1] != 0 && payload[4] == 0x21 &&
           payload[5] == 0x12 && payload[6] == 0xa4 && payload[7] == 0x42 &&
           (__u32)(payload[2] << 8 | payload[3]) + STUN_HEADER_BYTES <= bytes;
}

/* Geneve version 0 without options, of the two protocols that peer relays speak. */
STEER_INLINE bool is_geneve(const __u8 *payload, __u32 bytes)
{
    __u16 protocol = payload[2] << 8 | payload[3];

    return bytes >= GENEVE_HEADER_BYTES && payload[0] == 0 &&
           (protocol == GENEVE_PROTOCOL_DISCO || protocol == GENEVE_PROTOCOL_WIREGUARD);
}

STEER_INLINE void count(__u32 what)
{
    __u64 *counter = bpf_map_lookup_elem(&tr_steered, &what);

    if (counter)
        *counter += 1;
}

STEER_INLINE bool load(struct __sk_buff *skb, __u32 offset, void *to, __u32 bytes)
{
    return bpf_skb_load_bytes_relative(skb, offset, to, bytes, BPF_HDR_START_NET) == 0;
}

/* Where the UDP header is, from the network header; 0 when this is not a whole UDP datagram. Fills the destination and
 * the addresses of the tuple that finds the agent's socket. */
STEER_INLINE __u32 find_udp(struct __sk_buff *skb, struct tr_local_key *to, struct bpf_sock_tuple *tuple)
{
    __u8 ip[40];

    if (skb->protocol == bpf_htons(ETH_P_IP)) {
        if (!load(skb, 0, ip, 20) || (ip[0] & 0x0f) < 5 || ip[9] != IPPROTO_UDP)
            return 0;
        if ((ip[6] & 0x3f) || ip[7]) /* more fragments, or an offset */
            return 0;
        to->family = 4;
        __builtin_memcpy(to->addr.bytes, ip + 16, 4);
        __builtin_memcpy(&tuple->ipv4.saddr, ip + 12, 4);
        __builtin_memcpy(&tuple->ipv4.daddr, ip + 16, 4);
        return (ip[0] & 0x0f) * 4;
    }
    if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
        if (!load(skb, 0, ip, 40) || ip[6] != IPPROTO_UDP) /* extension headers are nobody's disco */
            return 0;
        to->family = 6;
        __builtin_memcpy(to->addr.bytes, ip + 24, 16);
        __builtin_memcpy(tuple->ipv6.saddr, ip + 8, 16);
        __builtin_memcpy(tuple->ipv6.daddr, ip + 24, 16);
        return 40;
    }
    return 0;
}

SEC("tc")
int tr_steer(struct __sk_buff *skb)
{
    const struct tr_steer_config *config;
    struct bpf_sock_tuple tuple = {};
    struct tr_local_key to = {};
    struct datagram datagram;
    __u32 zero = 0, udp, bytes, what;
    struct bpf_sock *socket;
    long assigned;

    if (skb->gso_size || skb->vlan_present)
        return TC_ACT_UNSPEC;
    config = bpf_map_lookup_elem(&tr_steer_cfg, &zero);
    if (!config || !config->wireguard_port)
        return TC_ACT_UNSPEC;
    udp = find_udp(skb, &to, &tuple);
    if (!udp || !load(skb, udp, &datagram, sizeof(datagram)) || datagram.dst_port != config->wireguard_port)
        return TC_ACT_UNSPEC;
    bytes = bpf_ntohs(datagram.bytes);
    if (bytes < sizeof(datagram) || udp + bytes > skb->len)
        return TC_ACT_UNSPEC;
    bytes -= sizeof(datagram) - sizeof(datagram.payload);

    if (is_disco(datagram.payload, bytes))
        what = TR_STEERED_DISCO;
    else if (is_stun(datagram.payload, bytes))
        what = TR_STEERED_STUN;
    else if (is_geneve(datagram.payload, bytes))
        what = TR_STEERED_GENEVE;
    else
        return TC_ACT_UNSPEC;
    if (!bpf_map_lookup_elem(&tr_local, &to))
        return TC_ACT_UNSPEC;

    if (to.family == 4) {
        tuple.ipv4.sport = datagram.src_port;
        tuple.ipv4.dport = config->agent_port4;
        socket = config->agent_port4 ? bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0) : 0;
    } else {
        tuple.ipv6.sport = datagram.src_port;
        tuple.ipv6.dport = config->agent_port6;
        socket = config->agent_port6 ? bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0) : 0;
    }
    if (!socket) {
        count(TR_STEERED_NO_SOCKET);
        return TC_ACT_UNSPEC;
    }
    assigned = bpf_sk_assign(skb, socket, 0);
    bpf_sk_release(socket);
    if (assigned) {
        count(TR_STEERED_NO_SOCKET);
        return TC_ACT_UNSPEC;
    }
    count(what);
    return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
