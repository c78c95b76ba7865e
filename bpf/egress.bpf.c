/* bpf/egress.bpf.c - sees what we send into the WireGuard device. tc egress. Policy does not restrict it, but it is the
 * only writer of the reply memory, so no peer can fill that. */
#include "address.bpf.h"
#include "flows.bpf.h"
#include "maps.bpf.h"
#include "packet.bpf.h"
#include "shared/marks.h"
#include <linux/pkt_cls.h>

/* 0 on WireGuard and TUN devices. Test runs put an Ethernet header before the packet. */
const volatile __u32 l2_bytes = 0;

TR_INLINE int drop(struct __sk_buff *skb, __u32 reason)
{
    count_in(&tr_reasons, reason, skb, l2_bytes);
    return TC_ACT_SHOT;
}

TR_INLINE int pass(struct __sk_buff *skb)
{
    count_in(&tr_reasons, TR_OUT_PASS, skb, l2_bytes);
    return TC_ACT_OK;
}

TR_INLINE bool is_own(const struct tr_settings *settings, __u8 family, const struct tr_addr *addr)
{
    return family == 4 ? settings->has_own4 && same_addr(addr, &settings->own4)
                       : settings->has_own6 && same_addr(addr, &settings->own6);
}

/* UDP and SCTP replies always need the memory; those of TCP only where a strict setting asks for it. A reset does not
 * make a flow: we send one to whoever knocks at a closed port. */
TR_INLINE bool needs_memory(const struct tr_packet *packet, const struct tr_settings *settings)
{
    __u32 setting;

    if (packet->ip_proto == IPPROTO_UDP || packet->ip_proto == TR_IPPROTO_SCTP)
        return true;
    if (packet->ip_proto != IPPROTO_TCP || (packet->tcp_flags & TR_TCP_RST))
        return false;
    if (!settings)
        return true;
    setting = is_own(settings, packet->family, &packet->src) ? TR_SETTING_STRICT_OWN : TR_SETTING_STRICT_FORWARDED;
    return settings->flags & setting;
}

TR_INLINE bool is_jailed(const struct tr_settings *settings, __u32 table, const struct tr_packet *packet)
{
    const struct tr_address *peer = find_address(settings, table, TR_SIDE_SOURCE, packet->family, &packet->dst);

    return peer && (peer->flags & TR_ADDRESS_JAILED);
}

TR_INLINE void remember(const struct tr_packet *packet, const struct tr_settings *settings, __u32 table)
{
    struct tr_flow_key reply = {
        .src = packet->dst,
        .dst = packet->src,
        .src_port = packet->dst_port,
        .dst_port = packet->src_port,
        .ip_proto = packet->ip_proto,
        .family = packet->family,
    };
    struct tr_flow_place place;

    if (settings) {
        reply.lineage = settings->lineage;
        if ((settings->flags & TR_SETTING_HAS_JAILED) && is_jailed(settings, table, packet))
            reply.lineage = TR_LINEAGE_JAILED;
    }
    place = find_flow(&reply);
    if (place.bucket && !place.known)
        add_flow(&place, &reply);
}

SEC("tc")
int tr_egress(struct __sk_buff *skb)
{
    const struct tr_settings *settings = 0;
    struct tr_packet packet = {};
    const volatile __u32 *live;
    __u32 zero = 0, table;

    if (skb->len <= l2_bytes)
        return pass(skb);
    if (read_packet(skb, l2_bytes, &packet) != TR_READ_OK)
        return drop(skb, TR_OUT_DROP_MALFORMED);
    if (is_multicast(&packet))
        return drop(skb, TR_OUT_DROP_MULTICAST);
    if (is_link_local(&packet))
        return drop(skb, TR_OUT_DROP_LINK_LOCAL);
    if (packet.later_fragment)
        return pass(skb);
    if (packet.ip_proto == TR_IPPROTO_TSMP && (skb->mark & TR_MARK_MASK) != TR_MARK_BYPASS)
        return drop(skb, TR_OUT_DROP_TSMP);

    live = bpf_map_lookup_elem(&tr_live, &zero);
    table = live ? *live : TR_TABLE_NONE;
    if (table != TR_TABLE_NONE)
        settings = bpf_map_lookup_elem(&tr_settings, &table);
    if (needs_memory(&packet, settings))
        remember(&packet, settings, table);
    return pass(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
