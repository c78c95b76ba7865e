/* bpf/move.bpf.c - lets WireGuard's datagrams to some peers leave from another port. tc egress of each underlay interface,
 * attached only while there are moves. A NAT that gives each destination another outside port has one mapping through
 * which such a peer can reach us; it belongs to a port that the agent holds, and WireGuard, which has one port, is moved
 * there. steer.bpf.c is the way back. After netfilter: conntrack knows WireGuard's port only. IPv4: IPv6 has no NATs
 * worth the name. */
#include "underlay.bpf.h"
#include <linux/pkt_cls.h>

SEC("tc")
int tr_move_out(struct __sk_buff *skb)
{
    const struct tr_steer_config *config;
    struct bpf_sock_tuple tuple = {};
    struct tr_local_key from = {.family = 4}, to = {};
    struct tr_move_key key = {};
    const struct tr_move *move;
    struct datagram datagram;
    struct place place;
    __u32 zero = 0;

    config = bpf_map_lookup_elem(&tr_steer_cfg, &zero);
    if (!config || !config->moves || skb->protocol != bpf_htons(ETH_P_IP))
        return TC_ACT_UNSPEC;
    if (!find_udp(skb, &to, &tuple, &place) || !load(skb, place.udp, &datagram, UDP_HEADER_BYTES) ||
        datagram.src_port != config->wireguard_port)
        return TC_ACT_UNSPEC;
    key.addr = tuple.ipv4.daddr;
    key.port = datagram.dst_port;
    move = bpf_map_lookup_elem(&tr_moves, &key);
    if (!move)
        return TC_ACT_UNSPEC;
    __builtin_memcpy(from.addr.bytes, &tuple.ipv4.saddr, 4);
    if (!bpf_map_lookup_elem(&tr_local, &from)) /* somebody's whom we route for */
        return TC_ACT_UNSPEC;
    set_port(skb, &place, UDP_SRC_PORT, datagram.src_port, move->port);
    return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
