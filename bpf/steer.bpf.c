/* bpf/steer.bpf.c - hands what is not WireGuard's on the WireGuard port to the agent. tc ingress of each underlay
 * interface and of lo. Nothing is rewritten: the packet gets another socket, so firewall and conntrack see the truth.
 * The exception is a move (move.bpf.c), whose answers get back the port that WireGuard knows, here and before all else.
 * Only datagrams to an address of this host: a packet that would be forwarded must never be assigned or changed.
 * Formats: tailscale disco/disco.go, RFC 5389 section 6, RFC 8926 section 3.4. */
#include "underlay.bpf.h"
#include <linux/pkt_cls.h>

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TR_STEERED_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} tr_steered SEC(".maps");

/* Magic 6 | sender's key 32 | nonce 24. */
#define DISCO_HEADER_BYTES 62
#define STUN_HEADER_BYTES 20
#define GENEVE_HEADER_BYTES 8
#define GENEVE_PROTOCOL_DISCO 0x7a11
#define GENEVE_PROTOCOL_WIREGUARD 0x7a12

UNDERLAY_INLINE bool is_disco(const __u8 *payload, __u32 bytes)
{
    return bytes >= DISCO_HEADER_BYTES && payload[0] == 0x54 && payload[1] == 0x53 && payload[2] == 0xf0 &&
           payload[3] == 0x9f && payload[4] == 0x92 && payload[5] == 0xac; /* "TS" and a speech balloon */
}

/* A STUN length counts what follows the header. A WireGuard message begins with its type and three zero bytes, which
 * is no binding message, so a session whose index happens to be the cookie is not mistaken. */
UNDERLAY_INLINE bool is_stun(const __u8 *payload, __u32 bytes)
{
    return bytes >= STUN_HEADER_BYTES && (payload[0] & 0xc0) == 0 && payload[1] != 0 && payload[4] == 0x21 &&
           payload[5] == 0x12 && payload[6] == 0xa4 && payload[7] == 0x42 &&
           (__u32)(payload[2] << 8 | payload[3]) + STUN_HEADER_BYTES <= bytes;
}

/* Geneve version 0 without options, of the two protocols that peer relays speak. */
UNDERLAY_INLINE bool is_geneve(const __u8 *payload, __u32 bytes)
{
    __u16 protocol = payload[2] << 8 | payload[3];

    return bytes >= GENEVE_HEADER_BYTES && payload[0] == 0 &&
           (protocol == GENEVE_PROTOCOL_DISCO || protocol == GENEVE_PROTOCOL_WIREGUARD);
}

UNDERLAY_INLINE void count(__u32 what)
{
    __u64 *counter = bpf_map_lookup_elem(&tr_steered, &what);

    if (counter)
        *counter += 1;
}

/* An answer to a moved datagram goes to WireGuard's port. */
UNDERLAY_INLINE void move_back(struct __sk_buff *skb, const struct tr_steer_config *config,
                               const struct tr_local_key *to, const struct bpf_sock_tuple *tuple,
                               const struct place *place)
{
    struct tr_move_key key = {.addr = tuple->ipv4.saddr};
    const struct tr_move *move;
    struct datagram datagram;

    if (!load(skb, place->udp, &datagram, UDP_HEADER_BYTES))
        return;
    key.port = datagram.src_port;
    move = bpf_map_lookup_elem(&tr_moves, &key);
    if (move && move->port == datagram.dst_port && bpf_map_lookup_elem(&tr_local, to))
        set_port(skb, place, UDP_DST_PORT, datagram.dst_port, config->wireguard_port);
}

SEC("tc")
int tr_steer(struct __sk_buff *skb)
{
    const struct tr_steer_config *config;
    struct bpf_sock_tuple tuple = {};
    struct tr_local_key to = {};
    struct datagram datagram;
    struct place place;
    __u32 zero = 0, bytes, what;
    struct bpf_sock *socket;
    long assigned;

    if (skb->vlan_present)
        return TC_ACT_UNSPEC;
    config = bpf_map_lookup_elem(&tr_steer_cfg, &zero);
    if (!config || !config->wireguard_port)
        return TC_ACT_UNSPEC;
    if (!find_udp(skb, &to, &tuple, &place))
        return TC_ACT_UNSPEC;
    if (config->moves && to.family == 4)
        move_back(skb, config, &to, &tuple, &place);
    if (skb->gso_size || place.is_fragment || !load(skb, place.udp, &datagram, sizeof(datagram)) ||
        datagram.dst_port != config->wireguard_port)
        return TC_ACT_UNSPEC;
    bytes = bpf_ntohs(datagram.bytes);
    if (bytes < sizeof(datagram) || place.udp + bytes > skb->len)
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
