/* bpf/via6.bpf.c - carries flows of peers to the IPv4 networks behind 4via6 prefixes, by translation (RFC 7915) and not
 * by ending them here: IPv6 from a peer's own address to SITE's 10.1.2.3 becomes IPv4 from the peer's own IPv4 address
 * to 10.1.2.3, and the host routes, source-NATs and filters it as everything else that comes for a network behind it.
 *
 * tr_via_in: tc ingress of the WireGuard device, behind the policy program, which has judged the IPv6 packet and set the
 * mark that the backstop wants. The source it translates is one that WireGuard and the policy have proven.
 * tr_via_out: tc egress, before the egress program: policy, reply memory and flow counts know such flows as IPv6 only.
 * What is not theirs both leave to the next program. The host forwards, so time to live is counted down there.
 *
 * On its way out a packet of more than 1,260 bytes becomes larger than the MTU of the device, by 20 bytes, a fragment by
 * 28 at most. TCP makes none: a peer asks for segments that fit IPv6. Datagrams do, and arrive: nobody counts behind here,
 * WireGuard makes 1,360 bytes of 1,300 on an IPv4 wire, and what a narrower one needs in pieces the kernel sends so. To
 * tell the sender instead (RFC 7915 4) the route to the peer would need a lower MTU, which would also concern what the
 * peer asks for by IPv4. */
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include "via.bpf.h"

/* 0 on WireGuard and TUN devices. Test runs put an Ethernet header before the packet. */
const volatile __u32 l2_bytes = 0;

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, TR_VIA_NETS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct tr_via_net_key);
    __type(value, __u32);
} tr_via_nets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, TR_VIA_PEERS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct tr_addr);
    __type(value, __be32);
} tr_via_peers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct tr_via_self);
} tr_via_self SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, TR_VIA_FLOWS);
    __type(key, struct tr_via_flow_key);
    __type(value, struct tr_via_flow);
} tr_via_flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, TR_VIA_FRAGS);
    __type(key, struct tr_via_frag_key);
    __type(value, struct tr_via_flow);
} tr_via_frags SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TR_VIA_REASON_COUNT);
    __type(key, __u32);
    __type(value, struct tr_counter);
} tr_via_counts SEC(".maps");

#define NOT_OURS TR_VIA_REASON_COUNT

/* Loopback, multicast, unspecified and the rest of that network, broadcast, link-local and the tailnet's own range. */
TR_INLINE bool is_refused(__u32 addr)
{
    return addr >> 24 == 0 || addr >> 24 == 127 || addr >> 16 == 0xa9fe || addr >> 28 == 0xe || addr == 0xffffffff ||
           addr >> 22 == 0x64400000 >> 22;
}

TR_INLINE void remember(const struct tr_via_flow_key *key, const struct tr_addr *via, const struct tr_addr *peer)
{
    const struct tr_via_flow *known = bpf_map_lookup_elem(&tr_via_flows, key);
    struct tr_via_flow flow = {.via = *via, .peer = *peer};

    if (!known || !same_addr6(&known->via, via) || !same_addr6(&known->peer, peer))
        bpf_map_update_elem(&tr_via_flows, key, &flow, BPF_ANY);
}

/* The number that packets without one get: those of up to 1280 bytes may be fragmented on an IPv4 link that is narrower,
 * as no IPv6 sender would make them smaller (RFC 7915 5.1). */
TR_INLINE void set_id(struct ip4 *ip, const struct __sk_buff *skb)
{
    __u32 bytes = skb->gso_size ? skb->gso_size + 40 : bpf_ntohs(ip->total_bytes);

    if (bytes > ICMP6_MIN_MTU - MTU_DIFFERENCE)
        ip->offset = bpf_htons(IP4_DONT_FRAGMENT);
    else
        ip->id = bpf_get_prandom_u32();
}

TR_INLINE __u32 echo_in(struct __sk_buff *skb, __u32 l2, const struct ip6 *from, __be32 peer,
                        const union transport *icmp)
{
    struct tr_via_flow_key key = {
        .peer = peer, .remote = inner_address(&from->dst), .peer_port = icmp->id, .ip_proto = IPPROTO_ICMP};
    __u32 bytes = bpf_ntohs(from->payload_bytes), difference;
    struct pseudo6 pseudo = pseudo_of(&from->src, &from->dst, bytes, TR_IPPROTO_ICMPV6);
    union transport old = {.type = icmp->type, .code = icmp->code}, fresh = {.type = ICMP4_ECHO, .code = icmp->code};
    struct ip4 ip;

    remember(&key, &from->dst, &from->src);
    difference = bpf_csum_diff((__be32 *)&pseudo, sizeof pseudo, 0, 0, 0);
    difference = bpf_csum_diff((__be32 *)&old, 4, (__be32 *)&fresh, 4, difference);
    fresh.icmp_check = changed_check(icmp->icmp_check, difference);
    to_ip4(&ip, from, peer, key.remote, IPPROTO_ICMP, bytes);
    set_id(&ip, skb);
    finish_ip4(&ip);
    if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0) || bpf_skb_store_bytes(skb, l2, &ip, sizeof ip, 0) ||
        bpf_skb_store_bytes(skb, l2 + sizeof ip, &fresh, 4, 0))
        return TR_VIA_DROP_FAILED;
    return TR_VIA_IN;
}

/* An error of the peer's about a packet that we sent it: that one came from the address that the error goes to. */
TR_INLINE __u32 error_in(struct __sk_buff *skb, __u32 l2, __be32 peer)
{
    __u32 difference, remote;
    struct error6 from;
    struct error4 to;

    if (bpf_skb_load_bytes(skb, l2, &from, sizeof from))
        return TR_VIA_DROP_UNREADABLE;
    if (bpf_ntohs(from.ip.payload_bytes) < sizeof from - sizeof from.ip || !same_addr6(&from.about.src, &from.ip.dst) ||
        !same_addr6(&from.about.dst, &from.ip.src) || bpf_ntohs(from.about.payload_bytes) > 0xffff - sizeof to.about)
        return TR_VIA_DROP_UNREADABLE;
    if (!to_error4(&to.icmp, &from.icmp))
        return TR_VIA_DROP_PROTOCOL;
    remote = inner_address(&from.ip.dst);
    to.start = from.start;
    if (from.about.next == IPPROTO_UDP && from.start.check) {
        difference = bpf_csum_diff((__be32 *)&from.about.src, 32, 0, 0, 0);
        difference = bpf_csum_diff(0, 0, &peer, 4, difference);
        difference = bpf_csum_diff(0, 0, &remote, 4, difference);
        to.start.check = changed_check(from.start.check, difference);
    } else if (from.about.next == TR_IPPROTO_ICMPV6 && from.start.type == ICMP6_ECHO_REPLY) {
        struct pseudo6 pseudo =
            pseudo_of(&from.about.src, &from.about.dst, bpf_ntohs(from.about.payload_bytes), TR_IPPROTO_ICMPV6);
        __be32 old = bpf_htonl((__u32)ICMP6_ECHO_REPLY << 24), fresh = bpf_htonl((__u32)ICMP4_ECHO_REPLY << 24);

        difference = bpf_csum_diff((__be32 *)&pseudo, sizeof pseudo, 0, 0, 0);
        difference = bpf_csum_diff(&old, 4, &fresh, 4, difference);
        to.start.type = ICMP4_ECHO_REPLY;
        to.start.icmp_check = changed_check(from.start.icmp_check, difference);
    } else if (from.about.next != IPPROTO_UDP && from.about.next != IPPROTO_TCP) {
        return TR_VIA_DROP_PROTOCOL;
    }
    to_ip4(&to.about, &from.about, remote, peer, from.about.next == TR_IPPROTO_ICMPV6 ? IPPROTO_ICMP : from.about.next,
           bpf_ntohs(from.about.payload_bytes));
    finish_ip4(&to.about);
    to_ip4(&to.ip, &from.ip, peer, remote, IPPROTO_ICMP, sizeof to - sizeof to.ip);
    set_id(&to.ip, skb);
    finish_ip4(&to.ip);
    to.icmp.icmp_check = 0;
    to.icmp.icmp_check = check_of(bpf_csum_diff(0, 0, (__be32 *)&to.icmp, sizeof to - sizeof to.ip, 0));
    if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0) || bpf_skb_change_tail(skb, l2 + sizeof to, 0) ||
        bpf_skb_store_bytes(skb, l2, &to, sizeof to, 0))
        return TR_VIA_DROP_FAILED;
    return TR_VIA_IN;
}

TR_INLINE __u32 icmp_in(struct __sk_buff *skb, __u32 l2, const struct ip6 *from, __be32 peer)
{
    union transport icmp;

    if (bpf_ntohs(from->payload_bytes) < sizeof icmp || bpf_skb_load_bytes(skb, l2 + sizeof *from, &icmp, sizeof icmp))
        return TR_VIA_DROP_UNREADABLE;
    if (icmp.type == ICMP6_ECHO)
        return echo_in(skb, l2, from, peer, &icmp);
    if (icmp.type < ICMP6_ECHO)
        return error_in(skb, l2, peer);
    return TR_VIA_DROP_PROTOCOL;
}

TR_INLINE __u32 translate_in(struct __sk_buff *skb, __u32 l2, const struct ip6 *from)
{
    __u32 bytes = bpf_ntohs(from->payload_bytes), at = l2 + sizeof *from, difference;
    const __be32 *found = bpf_map_lookup_elem(&tr_via_peers, &from->src);
    struct tr_via_flow_key key = {.remote = inner_address(&from->dst), .ip_proto = from->next};
    struct fragment6 fragment = {};
    union transport start;
    __be32 fresh[2];
    struct ip4 ip;

    if (bytes + sizeof *from > skb->len - l2 || bytes > 0xffff - sizeof ip)
        return TR_VIA_DROP_UNREADABLE;
    if (!found)
        return TR_VIA_DROP_NO_PEER;
    key.peer = *found;
    if (is_refused(bpf_ntohl(key.remote)))
        return from->next == IPPROTO_TCP ? TR_VIA_DROP_RESET : TR_VIA_DROP_REFUSED;
    if (from->next == TR_IPPROTO_ICMPV6)
        return icmp_in(skb, l2, from, key.peer);
    if (from->next == TR_IPPROTO_FRAGMENT) {
        if (bytes < sizeof fragment || bpf_skb_load_bytes(skb, at, &fragment, sizeof fragment))
            return TR_VIA_DROP_UNREADABLE;
        key.ip_proto = fragment.next;
        bytes -= sizeof fragment;
        at += sizeof fragment;
    }
    if (key.ip_proto == TR_IPPROTO_ICMPV6)
        return TR_VIA_DROP_FRAGMENT; /* its checksum sums up a length that nobody knows */
    if (key.ip_proto != IPPROTO_TCP && key.ip_proto != IPPROTO_UDP)
        return TR_VIA_DROP_PROTOCOL;
    if (!(fragment.offset & bpf_htons(0xfff8))) {
        if (bytes < (key.ip_proto == IPPROTO_TCP ? sizeof(struct tcp) : sizeof start) ||
            bpf_skb_load_bytes(skb, at, &start, sizeof start))
            return TR_VIA_DROP_UNREADABLE;
        key.peer_port = start.src_port;
        key.remote_port = start.dst_port;
        remember(&key, &from->dst, &from->src);
    }

    to_ip4(&ip, from, key.peer, key.remote, key.ip_proto, bytes);
    if (from->next == TR_IPPROTO_FRAGMENT) {
        ip.id = bpf_htons(bpf_ntohl(fragment.id));
        ip.offset = bpf_htons(bpf_ntohs(fragment.offset) >> 3 | (bpf_ntohs(fragment.offset) & 1 ? IP4_MORE : 0));
    } else {
        set_id(&ip, skb);
    }
    finish_ip4(&ip);
    fresh[0] = ip.src;
    fresh[1] = ip.dst;
    difference = bpf_csum_diff((__be32 *)&from->src, 32, fresh, sizeof fresh, 0);
    if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0))
        return TR_VIA_DROP_FAILED;
    if (from->next == TR_IPPROTO_FRAGMENT && bpf_skb_adjust_room(skb, -(__s32)sizeof fragment, BPF_ADJ_ROOM_NET, 0))
        return TR_VIA_DROP_FAILED;
    if (bpf_skb_store_bytes(skb, l2, &ip, sizeof ip, 0))
        return TR_VIA_DROP_FAILED;
    if (fragment.offset & bpf_htons(0xfff8))
        return TR_VIA_IN;
    if (key.ip_proto == IPPROTO_TCP
            ? bpf_l4_csum_replace(skb, l2 + sizeof ip + 16, 0, difference, BPF_F_PSEUDO_HDR)
            : bpf_l4_csum_replace(skb, l2 + sizeof ip + 6, 0, difference, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0))
        return TR_VIA_DROP_FAILED;
    return TR_VIA_IN;
}

/* RFC 9293 3.10.7.1: what a closed port answers. */
TR_INLINE int send_reset(struct __sk_buff *skb, __u32 l2, const struct ip6 *from)
{
    __u32 bytes = bpf_ntohs(from->payload_bytes), sum;
    struct {
        struct ip6 ip;
        struct tcp tcp;
    } answer = {.ip = {.start = bpf_htonl(0x60000000u),
                       .payload_bytes = bpf_htons(sizeof(struct tcp)),
                       .next = IPPROTO_TCP,
                       .hop_limit = 64}};
    struct pseudo6 pseudo = pseudo_of(&from->dst, &from->src, sizeof answer.tcp, IPPROTO_TCP);
    struct tcp tcp;

    if (bytes < sizeof tcp || bpf_skb_load_bytes(skb, l2 + sizeof *from, &tcp, sizeof tcp) ||
        (tcp.flags & TR_TCP_RST) || bytes < (tcp.words >> 4) * 4u)
        return TC_ACT_SHOT;
    answer.ip.src = from->dst;
    answer.ip.dst = from->src;
    answer.tcp.src_port = tcp.dst_port;
    answer.tcp.dst_port = tcp.src_port;
    answer.tcp.words = sizeof tcp / 4 << 4;
    if (tcp.flags & TR_TCP_ACK) {
        answer.tcp.seq = tcp.ack;
        answer.tcp.flags = TR_TCP_RST;
    } else {
        answer.tcp.ack = bpf_htonl(bpf_ntohl(tcp.seq) + bytes - (tcp.words >> 4) * 4 + !!(tcp.flags & TR_TCP_SYN) +
                                   !!(tcp.flags & TR_TCP_FIN));
        answer.tcp.flags = TR_TCP_RST | TR_TCP_ACK;
    }
    sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof pseudo, 0);
    answer.tcp.check = check_of(bpf_csum_diff(0, 0, (__be32 *)&answer.tcp, sizeof answer.tcp, sum));
    if (bpf_skb_change_tail(skb, l2 + sizeof answer, 0) || bpf_skb_store_bytes(skb, l2, &answer, sizeof answer, 0))
        return TC_ACT_SHOT;
    skb->mark = 0;
    return bpf_redirect(skb->ifindex, 0);
}

/* A peer that reaches an IPv4 network of ours directly may use the ports of an earlier flow by a via address: what it
 * starts now it wants answered as IPv4. */
TR_INLINE void forget_other(struct __sk_buff *skb, __u32 l2)
{
    struct tr_packet packet = {};
    struct tr_via_flow_key key = {};
    union transport icmp;

    if (read_packet(skb, l2, &packet) != TR_READ_OK || packet.later_fragment)
        return;
    if (packet.ip_proto == IPPROTO_TCP    ? !is_pure_syn(&packet)
        : packet.ip_proto == IPPROTO_ICMP ? packet.icmp_type != ICMP4_ECHO || !packet.has_icmp_header
                                          : packet.ip_proto != IPPROTO_UDP)
        return;
    key.peer = (__be32)packet.src.word[0];
    key.remote = (__be32)packet.dst.word[0];
    key.ip_proto = packet.ip_proto;
    key.peer_port = packet.src_port;
    key.remote_port = packet.dst_port;
    if (packet.ip_proto == IPPROTO_ICMP) {
        __u8 start = 0;

        if (bpf_skb_load_bytes(skb, l2, &start, 1) ||
            bpf_skb_load_bytes(skb, l2 + (start & 0xf) * 4, &icmp, sizeof icmp))
            return;
        key.peer_port = icmp.id;
    }
    bpf_map_delete_elem(&tr_via_flows, &key);
}

SEC("tc")
int tr_via_in(struct __sk_buff *skb)
{
    __u32 l2 = l2_bytes; /* read once */
    struct tr_via_net_key net = {.prefix_bits = 128};
    struct tr_counter size;
    struct ip6 ip;
    __u32 reason;

    if (skb->len < l2 + sizeof(struct ip4) || bpf_skb_load_bytes(skb, l2, &ip, 1))
        return TC_ACT_UNSPEC;
    if ((*(const __u8 *)&ip >> 4) == 4) {
        forget_other(skb, l2);
        return TC_ACT_UNSPEC;
    }
    if ((*(const __u8 *)&ip >> 4) != 6 || bpf_skb_load_bytes(skb, l2, &ip, sizeof ip))
        return TC_ACT_UNSPEC;
    net.addr = ip.dst;
    if (!bpf_map_lookup_elem(&tr_via_nets, &net))
        return TC_ACT_UNSPEC;
    size = measure(skb, l2);
    reason = translate_in(skb, l2, &ip);
    count_in(&tr_via_counts, reason, &size);
    if (reason == TR_VIA_DROP_RESET)
        return send_reset(skb, l2, &ip);
    return reason == TR_VIA_IN ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* The flow that an IPv4 packet to a peer answers, copied to `flow`; false: none. `ip` has no options. */
TR_INLINE bool find_reply(struct __sk_buff *skb, __u32 l2, const struct ip4 *ip, const union transport *start,
                          struct tr_via_flow *flow)
{
    struct tr_via_flow_key key = {.peer = ip->dst, .remote = ip->src, .ip_proto = ip->ip_proto};
    const struct tr_via_flow *known;
    union transport about;
    struct ip4 inner;

    if (ip->offset & bpf_htons(IP4_OFFSET)) {
        struct tr_via_frag_key fragment = {.peer = ip->dst, .remote = ip->src, .id = ip->id, .ip_proto = ip->ip_proto};

        known = bpf_map_lookup_elem(&tr_via_frags, &fragment);
        if (known)
            *flow = *known;
        return known;
    }
    if (ip->ip_proto == IPPROTO_TCP || ip->ip_proto == IPPROTO_UDP) {
        key.peer_port = start->dst_port;
        key.remote_port = start->src_port;
    } else if (ip->ip_proto != IPPROTO_ICMP) {
        return false;
    } else if (start->type == ICMP4_ECHO_REPLY) {
        key.peer_port = start->id;
    } else {
        /* an error about what the peer sent; other types have nothing there that looks like it */
        if (bpf_skb_load_bytes(skb, l2 + 28, &inner, sizeof inner) || inner.start != 0x45 || inner.src != ip->dst ||
            bpf_skb_load_bytes(skb, l2 + 48, &about, sizeof about))
            return false;
        key.remote = inner.dst;
        key.ip_proto = inner.ip_proto;
        if (inner.ip_proto == IPPROTO_ICMP) {
            key.peer_port = about.id;
        } else {
            key.peer_port = about.src_port;
            key.remote_port = about.dst_port;
        }
    }
    known = bpf_map_lookup_elem(&tr_via_flows, &key);
    if (known)
        *flow = *known;
    return known;
}

/* An error comes from the site's address of whoever made it, or from ours. */
TR_INLINE void set_error_source(struct tr_addr *src, const struct tr_via_flow *flow, __be32 from)
{
    __u32 zero = 0;
    const struct tr_via_self *self = bpf_map_lookup_elem(&tr_via_self, &zero);

    *src = flow->via;
    if (self && self->own4 && self->own4 == from)
        *src = self->own6;
    else
        set_inner_address(src, from);
}

TR_INLINE __u32 error_out(struct __sk_buff *skb, __u32 l2, const struct tr_via_flow *flow)
{
    __u32 difference, bytes;
    struct pseudo6 pseudo;
    struct error4 from;
    struct error6 to;

    if (bpf_skb_load_bytes(skb, l2, &from, sizeof from) || bpf_ntohs(from.ip.total_bytes) < sizeof from ||
        bpf_ntohs(from.about.total_bytes) < sizeof from.about)
        return TR_VIA_DROP_UNREADABLE;
    if (!to_error6(&to.icmp, &from.icmp))
        return TR_VIA_DROP_PROTOCOL;
    bytes = bpf_ntohs(from.about.total_bytes) - sizeof from.about;
    to.start = from.start;
    if (from.about.ip_proto == IPPROTO_UDP && from.start.check) {
        difference = bpf_csum_diff(&from.about.src, 8, (__be32 *)&flow->peer, 16, 0);
        difference = bpf_csum_diff(0, 0, (__be32 *)&flow->via, 16, difference);
        to.start.check = changed_check(from.start.check, difference);
    } else if (from.about.ip_proto == IPPROTO_ICMP) {
        __be32 old = bpf_htonl((__u32)ICMP4_ECHO << 24), fresh = bpf_htonl((__u32)ICMP6_ECHO << 24);

        pseudo = pseudo_of(&flow->peer, &flow->via, bytes, TR_IPPROTO_ICMPV6);
        difference = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof pseudo, 0);
        difference = bpf_csum_diff(&old, 4, &fresh, 4, difference);
        to.start.type = ICMP6_ECHO;
        to.start.icmp_check = changed_check(from.start.icmp_check, difference);
    }
    to_ip6(&to.about, &from.about, &flow->peer, &flow->via,
           from.about.ip_proto == IPPROTO_ICMP ? TR_IPPROTO_ICMPV6 : from.about.ip_proto, bytes);
    to_ip6(&to.ip, &from.ip, &flow->via, &flow->peer, TR_IPPROTO_ICMPV6, sizeof to - sizeof to.ip);
    set_error_source(&to.ip.src, flow, from.ip.src);
    pseudo = pseudo_of(&to.ip.src, &to.ip.dst, sizeof to - sizeof to.ip, TR_IPPROTO_ICMPV6);
    to.icmp.icmp_check = 0;
    difference = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof pseudo, 0);
    to.icmp.icmp_check = check_of(bpf_csum_diff(0, 0, (__be32 *)&to.icmp, sizeof to - sizeof to.ip, difference));
    if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0) || bpf_skb_change_tail(skb, l2 + sizeof to, 0) ||
        bpf_skb_store_bytes(skb, l2, &to, sizeof to, 0))
        return TR_VIA_DROP_FAILED;
    return TR_VIA_OUT;
}

TR_INLINE __u32 echo_out(struct __sk_buff *skb, __u32 l2, const struct ip4 *from, const union transport *icmp,
                         const struct tr_via_flow *flow)
{
    __u32 bytes = bpf_ntohs(from->total_bytes) - sizeof *from, difference;
    struct pseudo6 pseudo = pseudo_of(&flow->via, &flow->peer, bytes, TR_IPPROTO_ICMPV6);
    union transport old = {.type = icmp->type, .code = icmp->code};
    union transport fresh = {.type = ICMP6_ECHO_REPLY, .code = icmp->code};
    struct ip6 ip;

    difference = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof pseudo, 0);
    difference = bpf_csum_diff((__be32 *)&old, 4, (__be32 *)&fresh, 4, difference);
    fresh.icmp_check = changed_check(icmp->icmp_check, difference);
    to_ip6(&ip, from, &flow->via, &flow->peer, TR_IPPROTO_ICMPV6, bytes);
    if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0) || bpf_skb_store_bytes(skb, l2, &ip, sizeof ip, 0) ||
        bpf_skb_store_bytes(skb, l2 + sizeof ip, &fresh, 4, 0))
        return TR_VIA_DROP_FAILED;
    return TR_VIA_OUT;
}

/* IPv6 wants a checksum in every UDP datagram. */
enum { SUMMED_AT_ONCE = 64, SUMMED_AT_MOST = 24 * SUMMED_AT_ONCE };

/* Of `bytes` bytes from `at`, added to `sum`. */
TR_INLINE __u32 sum_of(struct __sk_buff *skb, __u32 at, __u32 bytes, __u32 sum)
{
    __u8 piece[SUMMED_AT_ONCE];
    __u32 left;

    for (__u32 done = 0; done < SUMMED_AT_MOST; done += SUMMED_AT_ONCE) {
        if (done >= bytes)
            break;
        left = bytes - done;
        if (left > SUMMED_AT_ONCE)
            left = SUMMED_AT_ONCE;
        --left;
        asm volatile("" : "+r"(left)); /* so that the compiler leaves what tells the verifier that it is 1 to 64 */
        left = (left & (SUMMED_AT_ONCE - 1)) + 1;
        __builtin_memset(piece, 0, sizeof piece);
        if (bpf_skb_load_bytes(skb, at + done, piece, left))
            break;
        sum = bpf_csum_diff(0, 0, (__be32 *)piece, sizeof piece, sum);
    }
    return sum;
}

TR_INLINE __u32 translate_out(struct __sk_buff *skb, __u32 l2, const struct ip4 *from, const union transport *start,
                              const struct tr_via_flow *flow)
{
    bool in_pieces = from->offset & bpf_htons(IP4_MORE | IP4_OFFSET), later = from->offset & bpf_htons(IP4_OFFSET);
    __u32 bytes = bpf_ntohs(from->total_bytes) - sizeof *from, difference;
    struct fragment6 fragment = {.next = from->ip_proto};
    __u16 check = 0;
    struct ip6 ip;

    if (from->ip_proto == IPPROTO_ICMP) {
        if (in_pieces)
            return TR_VIA_DROP_FRAGMENT;
        return start->type == ICMP4_ECHO_REPLY ? echo_out(skb, l2, from, start, flow) : error_out(skb, l2, flow);
    }
    if (from->ip_proto == IPPROTO_UDP && !later && !start->check) {
        struct pseudo6 pseudo = pseudo_of(&flow->via, &flow->peer, bytes, IPPROTO_UDP);

        if (in_pieces || skb->gso_size || bytes > SUMMED_AT_MOST)
            return TR_VIA_DROP_CHECKSUM;
        difference = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof pseudo, 0);
        check = check_of(sum_of(skb, l2 + sizeof *from, bytes, difference));
        if (!check)
            check = 0xffff;
    }
    if (in_pieces && !later) {
        struct tr_via_frag_key key = {
            .peer = from->dst, .remote = from->src, .id = from->id, .ip_proto = from->ip_proto};

        bpf_map_update_elem(&tr_via_frags, &key, flow, BPF_ANY);
    }
    to_ip6(&ip, from, &flow->via, &flow->peer, in_pieces ? TR_IPPROTO_FRAGMENT : from->ip_proto,
           bytes + (in_pieces ? sizeof fragment : 0));
    fragment.id = bpf_htonl(bpf_ntohs(from->id));
    fragment.offset = bpf_htons((bpf_ntohs(from->offset) & IP4_OFFSET) << 3 | !!(from->offset & bpf_htons(IP4_MORE)));
    difference = bpf_csum_diff((__be32 *)&from->src, 8, (__be32 *)&ip.src, 32, 0);
    if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0))
        return TR_VIA_DROP_FAILED;
    if (in_pieces && (bpf_skb_adjust_room(skb, sizeof fragment, BPF_ADJ_ROOM_NET, 0) ||
                      bpf_skb_store_bytes(skb, l2 + sizeof ip, &fragment, sizeof fragment, 0)))
        return TR_VIA_DROP_FAILED;
    if (bpf_skb_store_bytes(skb, l2, &ip, sizeof ip, 0))
        return TR_VIA_DROP_FAILED;
    l2 += sizeof ip + (in_pieces ? sizeof fragment : 0);
    if (later)
        return TR_VIA_OUT;
    if (check ? bpf_skb_store_bytes(skb, l2 + 6, &check, sizeof check, 0)
        : from->ip_proto == IPPROTO_TCP
            ? bpf_l4_csum_replace(skb, l2 + 16, 0, difference, BPF_F_PSEUDO_HDR)
            : bpf_l4_csum_replace(skb, l2 + 6, 0, difference, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0))
        return TR_VIA_DROP_FAILED;
    return TR_VIA_OUT;
}

SEC("tc")
int tr_via_out(struct __sk_buff *skb)
{
    __u32 l2 = l2_bytes, reason, bytes; /* read once */
    union transport start = {};
    struct tr_via_flow flow;
    struct tr_counter size;
    struct ip4 ip;

    /* With options, and without a header of its own, it is no answer to what tr_via_in made. */
    if (skb->len < l2 + sizeof ip || bpf_skb_load_bytes(skb, l2, &ip, sizeof ip) || ip.start != 0x45)
        return TC_ACT_UNSPEC;
    bytes = bpf_ntohs(ip.total_bytes);
    if (!(ip.offset & bpf_htons(IP4_OFFSET)) &&
        (bytes < sizeof ip + (ip.ip_proto == IPPROTO_TCP ? sizeof(struct tcp) : sizeof start) ||
         bpf_skb_load_bytes(skb, l2 + sizeof ip, &start, sizeof start)))
        return TC_ACT_UNSPEC;
    if (!find_reply(skb, l2, &ip, &start, &flow))
        return TC_ACT_UNSPEC;
    size = measure(skb, l2);
    reason = bytes < sizeof ip || bytes > skb->len - l2 ? TR_VIA_DROP_UNREADABLE
                                                        : translate_out(skb, l2, &ip, &start, &flow);
    count_in(&tr_via_counts, reason, &size);
    return reason == TR_VIA_OUT ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
