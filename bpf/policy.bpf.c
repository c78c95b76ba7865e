/* bpf/policy.bpf.c - decides which decrypted packets may leave the WireGuard device. tc ingress. The kernel has proven
 * that the source address belongs to the sending peer. What passes gets TR_MARK_PASSED; the nftables backstop drops
 * what comes from the device without it. The verdicts are those of the reference client's filter
 * (tailscale wgengine/filter/filter.go) plus the strict settings. */
#include "address.bpf.h"
#include "flows.bpf.h"
#include "maps.bpf.h"
#include "packet.bpf.h"
#include "shared/marks.h"
#include "shared/question.h"
#include <linux/pkt_cls.h>

/* 0 on WireGuard and TUN devices. Test runs put an Ethernet header before the packet. */
const volatile __u32 l2_bytes = 0;

/* Everything a verdict is made of. */
struct tr_question {
    struct tr_packet packet;
    const struct tr_settings *settings;
    __u32 table;
    __u32 rule; /* out: the rule that let it in, 0 for none */
    struct tr_address src;
    struct tr_address dst;
};

TR_INLINE bool find_destination(struct tr_question *ask)
{
    const struct tr_settings *settings = ask->settings;
    const struct tr_address *found;

    if (ask->packet.family == 4 && settings->has_own4 && same_addr(&settings->own4, &ask->packet.dst)) {
        ask->dst = settings->own4_address;
        return true;
    }
    if (ask->packet.family == 6 && settings->has_own6 && same_addr(&settings->own6, &ask->packet.dst)) {
        ask->dst = settings->own6_address;
        return true;
    }
    found = find_address(settings, ask->table, TR_SIDE_DESTINATION, ask->packet.family, &ask->packet.dst);
    if (!found)
        return false;
    ask->dst = *found;
    return true;
}

/* A source that stands in no rule stays in class 0. */
TR_INLINE void find_source(struct tr_question *ask)
{
    const struct tr_address *found =
        find_address(ask->settings, ask->table, TR_SIDE_SOURCE, ask->packet.family, &ask->packet.src);

    if (found)
        ask->src = *found;
}

TR_INLINE bool is_strict(const struct tr_question *ask)
{
    __u32 setting = ask->dst.flags & TR_ADDRESS_OWN ? TR_SETTING_STRICT_OWN : TR_SETTING_STRICT_FORWARDED;

    return ask->settings->flags & setting;
}

/* A flow_key in as many arguments as there are. Not static, like find_rule. */
__attribute__((noinline)) int knows_flow(__u64 src0, __u64 src1, __u64 dst0, __u64 dst1, __u64 rest)
{
    struct tr_flow_key key = {.src = {src0, src1}, .dst = {dst0, dst1}, .rest = rest};

    return find_flow(&key).known;
}

/* Have we sent a packet whose answer this would be? */
TR_INLINE bool answers_our_flow(const struct tr_question *ask)
{
    const struct tr_packet *packet = &ask->packet;
    __u16 lineage = ask->src.flags & TR_ADDRESS_JAILED ? TR_LINEAGE_JAILED : ask->settings->lineage;
    struct tr_flow_key key = flow_key(&packet->src, packet->src_port, &packet->dst, packet->dst_port, packet, lineage);

    return knows_flow(key.src[0], key.src[1], key.dst[0], key.dst[1], key.rest);
}

TR_INLINE const struct tr_pair *find_pair(const struct tr_settings *settings, __u32 src, __u32 dst)
{
    const struct tr_pair_bucket *bucket;
    __u64 hash;
    __u32 index;

    if (!src || !dst)
        return 0;
    hash = tr_hash(src, dst, settings->seed);
#pragma unroll
    for (int choice = 0; choice < 2; ++choice) {
        index = tr_bucket_of(settings->pairs, choice ? tr_second_hash(hash) : hash);
        bucket = bpf_map_lookup_elem(&tr_pairs, &index);
        if (!bucket)
            return 0;
#pragma unroll
        for (int way = 0; way < TR_WAYS; ++way)
            if (bucket->way[way].src_class == src && bucket->way[way].dst_class == dst)
                return &bucket->way[way];
        if (!bucket->way[TR_WAYS - 1].src_class)
            return 0;
    }
    return 0;
}

TR_INLINE __u32 find_row(const struct tr_settings *settings, __u32 rule_set, __u16 port_class, __u8 proto)
{
    __u64 key = rule_set | (__u64)port_class << 32 | (__u64)proto << 48;
    const struct tr_row_bucket *bucket;
    __u64 hash = tr_hash(key, 0, settings->seed);
    __u32 index;

#pragma unroll
    for (int choice = 0; choice < 2; ++choice) {
        index = tr_bucket_of(settings->rows, choice ? tr_second_hash(hash) : hash);
        bucket = bpf_map_lookup_elem(&tr_rows, &index);
        if (!bucket)
            return 0;
#pragma unroll
        for (int way = 0; way < TR_WAYS; ++way)
            if (bucket->way[way].rule_set == rule_set && bucket->way[way].port_class == port_class &&
                bucket->way[way].ip_proto == proto)
                return bucket->way[way].rule;
        if (!bucket->way[TR_WAYS - 1].rule)
            return 0;
    }
    return 0;
}

/* What a packet asks for, in one word: there are few arguments. */
#define TR_ASK_ANY 5 /* beside the slots: ICMP, whatever protocols and ports the rule has */
#define TR_ASK(slot, proto, port) ((slot) | (__u32)(proto) << 8 | (__u32)(port) << 16)

/* The first rule that lets a packet from one class to the other: one that has its port; of a protocol without ports
 * (TR_SLOT_OTHER) one that lists the protocol and spans all ports. Not static, like measure_segments: the verifier walks
 * through it once. */
__attribute__((noinline)) __u32 find_rule(__u32 src, __u32 dst, __u32 what, __u32 table)
{
    const struct tr_settings *settings = bpf_map_lookup_elem(&tr_settings, &table);
    __u32 slot = what & 7, proto = what >> 8 & 0xff, port, rule;
    const struct tr_port_classes *ports;
    const struct tr_pair *pair;
    __u16 port_class = 0;

    if (!settings)
        return 0;
    pair = find_pair(settings, src, dst);
    if (!pair)
        return 0;
    if (slot == TR_ASK_ANY)
        return pair->any_rule;
    if (pair->has_rows & (1u << slot)) {
        if (slot != TR_SLOT_OTHER) {
            ports = bpf_map_lookup_elem(&tr_ports, &table);
            if (!ports)
                return 0;
            port = bpf_ntohs(what >> 16);
            barrier_var(port); /* else it is doubled in a way that a verifier for strict alignment can't follow */
            port_class = ports->class_of[port & 0xffff];
        }
        rule = find_row(settings, pair->rule_set, port_class, proto);
        if (rule)
            return rule;
    }
    if (slot == TR_SLOT_OTHER) {
        if (proto != IPPROTO_ICMP && proto != TR_IPPROTO_ICMPV6)
            return 0;
        slot = TR_SLOT_CROSS_ICMP;
    }
    return pair->all_ports[slot % TR_SLOTS];
}

TR_INLINE __u32 rule_for(const struct tr_question *ask, __u32 slot)
{
    return find_rule(ask->src.address_class, ask->dst.address_class,
                     TR_ASK(slot, ask->packet.ip_proto, ask->packet.dst_port), ask->table);
}

/* ICMP asks only whether any rule joins the two, or names the source by capability. */
TR_INLINE __u32 rule_for_icmp(const struct tr_question *ask)
{
    __u32 rule = rule_for(ask, TR_ASK_ANY);

    return rule ? rule : ask->src.icmp_rule;
}

/* The parameter problem of IPv4 is type 12 (RFC 792); the reference client has 0x12 for it, which nobody sends. */
TR_INLINE bool is_icmp_reply_or_error(const struct tr_packet *packet)
{
    __u8 type = packet->icmp_type;

    if (!packet->has_icmp_header)
        return false;
    if (packet->family == 4)
        return (type == 0 && packet->icmp_code == 0) || type == 3 || type == 11 || type == 12;
    return (type == 129 && packet->icmp_code == 0) || (type >= 1 && type <= 4);
}

/* No rules count for this packet, or none of them fits: says which. */
TR_INLINE __u32 refusal(const struct tr_question *ask)
{
    if (ask->src.flags & TR_ADDRESS_JAILED)
        return TR_DROP_JAILED;
    if (ask->settings->flags & TR_SETTING_SHIELDS_UP)
        return TR_DROP_SHIELDS_UP;
    return TR_DROP_NO_RULE;
}

TR_INLINE bool rules_count(const struct tr_question *ask)
{
    return refusal(ask) == TR_DROP_NO_RULE;
}

TR_INLINE __u32 judge_tcp(struct tr_question *ask)
{
    bool syn = is_pure_syn(&ask->packet);

    if (!syn && !is_strict(ask))
        return TR_PASS_ESTABLISHED;
    find_source(ask);
    if (!syn && answers_our_flow(ask))
        return TR_PASS_REPLY;
    if (rules_count(ask))
        ask->rule = rule_for(ask, TR_SLOT_TCP);
    if (ask->rule)
        return TR_PASS_RULE;
    if ((ask->packet.tcp_flags & TR_TCP_SYN) && (ask->dst.flags & TR_ADDRESS_OWN) && ask->packet.dst_port &&
        ask->packet.dst_port == (ask->packet.family == 4 ? ask->settings->peer_api4 : ask->settings->peer_api6))
        return TR_PASS_PEER_API;
    return syn || !rules_count(ask) ? refusal(ask) : TR_DROP_NO_FLOW;
}

TR_INLINE __u32 judge_datagram(struct tr_question *ask, __u32 slot)
{
    if (ask->settings->flags & TR_SETTING_HAS_JAILED)
        find_source(ask);
    if (answers_our_flow(ask))
        return TR_PASS_REPLY;
    if (!(ask->settings->flags & TR_SETTING_HAS_JAILED))
        find_source(ask);
    if (rules_count(ask))
        ask->rule = rule_for(ask, slot);
    return ask->rule ? TR_PASS_RULE : refusal(ask);
}

TR_INLINE __u32 judge_icmp(struct tr_question *ask)
{
    if (is_icmp_reply_or_error(&ask->packet))
        return TR_PASS_ICMP_REPLY;
    find_source(ask);
    if (rules_count(ask))
        ask->rule = rule_for_icmp(ask);
    return ask->rule ? TR_PASS_RULE : refusal(ask);
}

TR_INLINE __u32 judge_other(struct tr_question *ask)
{
    find_source(ask);
    if (rules_count(ask))
        ask->rule = rule_for(ask, TR_SLOT_OTHER);
    return ask->rule ? TR_PASS_RULE : refusal(ask);
}

TR_INLINE struct tr_frag_key fragment_key(const struct tr_packet *packet)
{
    struct tr_frag_key key = {
        .src = to_addr(&packet->src),
        .dst = to_addr(&packet->dst),
        .id = packet->fragment_id,
        .ip_proto = packet->family == 4 ? packet->ip_proto : 0,
        .family = packet->family,
    };

    return key;
}

/* Without strict settings a later fragment passes before any other question: receivers drop it when its first one is
 * missing. Strict: its first one must have passed under the policy in force. */
TR_INLINE __u32 judge_later_fragment(struct tr_question *ask)
{
    struct tr_frag_key key;
    const __u32 *serial;

    if (!(ask->settings->flags & (TR_SETTING_STRICT_FORWARDED | TR_SETTING_STRICT_OWN)))
        return TR_PASS_FRAGMENT;
    if (!find_destination(ask))
        return TR_DROP_NOT_LOCAL;
    if (!is_strict(ask))
        return TR_PASS_FRAGMENT;
    key = fragment_key(&ask->packet);
    serial = bpf_map_lookup_elem(&tr_frags, &key);
    return serial && *serial == ask->settings->serial ? TR_PASS_FRAGMENT : TR_DROP_NO_FIRST;
}

TR_INLINE void remember_first_fragment(const struct tr_question *ask)
{
    struct tr_frag_key key = fragment_key(&ask->packet);

    bpf_map_update_elem(&tr_frags, &key, &ask->settings->serial, BPF_ANY);
}

TR_INLINE __u32 judge(struct tr_question *ask)
{
    __u8 proto = ask->packet.ip_proto;

    if (is_multicast(&ask->packet))
        return TR_DROP_MULTICAST;
    if (is_link_local(&ask->packet))
        return TR_DROP_LINK_LOCAL;
    if (ask->packet.later_fragment)
        return judge_later_fragment(ask);
    if (!find_destination(ask))
        return TR_DROP_NOT_LOCAL;
    if (proto == IPPROTO_TCP)
        return judge_tcp(ask);
    if (proto == IPPROTO_UDP)
        return judge_datagram(ask, TR_SLOT_UDP);
    if (proto == TR_IPPROTO_SCTP)
        return judge_datagram(ask, TR_SLOT_SCTP);
    if (proto == (ask->packet.family == 4 ? IPPROTO_ICMP : TR_IPPROTO_ICMPV6))
        return judge_icmp(ask);
    if (proto == TR_IPPROTO_TSMP)
        return TR_PASS_TSMP;
    return judge_other(ask);
}

/* The reason to pass or drop it. */
TR_INLINE __u32 verdict_on(struct __sk_buff *skb, __u32 header_bytes, __u32 live, struct tr_question *ask)
{
    int unreadable;

    ask->table = live & TR_LIVE_TABLE;
    if (ask->table == TR_TABLE_NONE)
        return TR_DROP_NO_POLICY;
    ask->settings = bpf_map_lookup_elem(&tr_settings, &ask->table);
    if (!ask->settings)
        return TR_DROP_NO_POLICY;
    if (skb->len <= header_bytes)
        return TR_PASS_KEEPALIVE;
    unreadable = read_packet(skb, header_bytes, &ask->packet);
    return unreadable != TR_READ_OK ? unreadable : judge(ask);
}

TR_INLINE void count_rule(__u32 rule, const struct tr_counter *size)
{
    __u32 index;
    struct tr_rule_hits *hits;

    if (rule >= TR_COUNTED_RULES)
        rule = 0;
    index = rule / TR_RULES_A_VALUE;
    hits = bpf_map_lookup_elem(&tr_rule_hits, &index);
    if (hits)
        add(&hits->of[rule % TR_RULES_A_VALUE], size);
}

SEC("tc")
int tr_policy(struct __sk_buff *skb)
{
    __u32 header_bytes = l2_bytes; /* read once */
    __u32 live = read_live();
    struct tr_question ask = {};
    __u32 reason = verdict_on(skb, header_bytes, live, &ask);
    struct tr_counter size = measure(skb, header_bytes);

    count_in(&tr_reasons, reason, &size);
    if (TR_UNLIKELY(live & TR_LIVE_WATCHED))
        tell_packet(skb, header_bytes, reason, ask.rule);
    if (reason >= TR_DROP_NO_POLICY)
        return TC_ACT_SHOT;
    if (reason == TR_PASS_RULE)
        count_rule(ask.rule, &size);
    if (ask.packet.first_fragment && is_strict(&ask))
        remember_first_fragment(&ask);
    skb->mark |= TR_MARK_PASSED;
    /* What is for a network behind us is left to a program that stands behind this one: the translator of 4via6. */
    return ask.dst.flags & TR_ADDRESS_OWN ? TC_ACT_OK : TC_ACT_UNSPEC;
}

/* For test runs only: the same verdict, of which nothing is counted, marked or told. */
SEC("tc")
int tr_question(struct __sk_buff *skb)
{
    struct tr_question ask = {};
    __u32 reason = verdict_on(skb, l2_bytes, read_live(), &ask);

    skb->cb[TR_ANSWER_REASON] = reason;
    skb->cb[TR_ANSWER_RULE] = ask.rule;
    return reason >= TR_DROP_NO_POLICY ? TC_ACT_SHOT : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
