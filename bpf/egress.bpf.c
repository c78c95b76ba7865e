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

TR_INLINE bool is_own(const struct tr_settings *settings, __u8 family, const struct tr_words *addr)
{
    return family == 4 ? settings->has_own4 && same_addr(&settings->own4, addr)
                       : settings->has_own6 && same_addr(&settings->own6, addr);
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

/* A flow_key in as many arguments as there are. True: it was not known before. Not static: the verifier walks through it
 * once. */
__attribute__((noinline)) int remember_flow(__u64 src0, __u64 src1, __u64 dst0, __u64 dst1, __u64 rest)
{
    struct tr_flow_key reply = {.src = {src0, src1}, .dst = {dst0, dst1}, .rest = rest};
    struct tr_flow_place place = find_flow(&reply);

    if (!place.bucket || place.known)
        return false;
    add_flow(&place, &reply, read_live() & TR_LIVE_WATCHED);
    return true;
}

/* True: it was not known before. */
TR_INLINE bool remember(const struct tr_packet *packet, const struct tr_settings *settings, __u32 table)
{
    __u16 lineage = settings ? settings->lineage : 0;
    struct tr_flow_key reply;

    if (settings && (settings->flags & TR_SETTING_HAS_JAILED) && is_jailed(settings, table, packet))
        lineage = TR_LINEAGE_JAILED;
    reply = flow_key(&packet->dst, packet->dst_port, &packet->src, packet->src_port, packet, lineage);
    return remember_flow(reply.src[0], reply.src[1], reply.dst[0], reply.dst[1], reply.rest);
}

TR_INLINE __u32 verdict_on(const struct __sk_buff *skb, const struct tr_packet *packet, __u32 table, bool *fresh)
{
    const struct tr_settings *settings = 0;

    if (is_multicast(packet))
        return TR_OUT_DROP_MULTICAST;
    if (is_link_local(packet))
        return TR_OUT_DROP_LINK_LOCAL;
    if (packet->later_fragment)
        return TR_OUT_PASS;
    if (packet->ip_proto == TR_IPPROTO_TSMP && (skb->mark & TR_MARK_MASK) != TR_MARK_BYPASS)
        return TR_OUT_DROP_TSMP;

    if (table != TR_TABLE_NONE)
        settings = bpf_map_lookup_elem(&tr_settings, &table);
    if (needs_memory(packet, settings))
        *fresh = remember(packet, settings, table);
    return TR_OUT_PASS;
}

SEC("tc")
int tr_egress(struct __sk_buff *skb)
{
    __u32 header_bytes = l2_bytes; /* read once */
    __u32 live = read_live(), reason;
    struct tr_packet packet = {};
    struct tr_counter size;
    bool fresh = false;

    if (skb->len <= header_bytes)
        reason = TR_OUT_PASS;
    else if (read_packet(skb, header_bytes, &packet) != TR_READ_OK)
        reason = TR_OUT_DROP_MALFORMED;
    else
        reason = verdict_on(skb, &packet, live & TR_LIVE_TABLE, &fresh);
    size = measure(skb, header_bytes);
    count_in(&tr_reasons, reason, &size);
    if (TR_UNLIKELY(live & TR_LIVE_WATCHED))
        tell_packet(skb, header_bytes, reason | TR_DONE_OUTBOUND | (fresh ? TR_DONE_FRESH : 0), 0);
    return reason == TR_OUT_PASS ? TC_ACT_OK : TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
