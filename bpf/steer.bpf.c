/* bpf/steer.bpf.c - hands what is not WireGuard's on the WireGuard port to the agent. tc ingress of each underlay
 * interface and of lo. Nothing is rewritten: the packet gets another socket, so firewall and conntrack see the truth.
 * The exception is a move (move.bpf.c), whose answers get back the port that WireGuard knows, here and before all else.
 * Only datagrams to an address of this host: a packet that would be forwarded must never be assigned or changed. */
#include "kinds.bpf.h"
#include "underlay.bpf.h"
#include <linux/pkt_cls.h>

/* Link's header, IPv6 or IPv4 with options, UDP and the start of its payload. */
#define PULL_BYTES 98

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TR_STEERED_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} tr_steered SEC(".maps");

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
    if (place.is_fragment || !load(skb, place.udp, &datagram, UDP_HEADER_BYTES) ||
        datagram.dst_port != config->wireguard_port)
        return TC_ACT_UNSPEC;
    if (!load(skb, place.udp, &datagram, sizeof(datagram))) { /* of many in one only headers are there */
        if (bpf_skb_pull_data(skb, skb->len < PULL_BYTES ? skb->len : PULL_BYTES) ||
            !load(skb, place.udp, &datagram, sizeof(datagram)))
            return TC_ACT_UNSPEC;
    }
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
    /* Relay servers send many at once, all of one kind, and the kernel takes them apart again for the agent's socket. */
    if (skb->gso_size && what != TR_STEERED_GENEVE)
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
