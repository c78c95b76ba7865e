/* bpf/watch.bpf.h - tells whoever watches of packets. Nothing here is for a packet that nobody watches: the callers test
 * the bit, and what follows stands out of their way. */
#pragma once
#include "maps.bpf.h"
#include "packet.bpf.h"

/* A flood of what we drop must not cost us more than the drop: so many samples of each CPU in a window, then none. */
TR_INLINE bool take_sample(struct tr_watch_tally *tally, __u64 now)
{
    if (tally->window != now >> TR_SAMPLE_WINDOW_SHIFT) {
        tally->window = now >> TR_SAMPLE_WINDOW_SHIFT;
        tally->samples = 0;
    }
    if (tally->samples >= TR_SAMPLES_IN_WINDOW) {
        ++tally->not_sampled;
        return false;
    }
    ++tally->samples;
    return true;
}

TR_INLINE void count_by_flow(const struct tr_event *seen, struct tr_watch_tally *tally)
{
    struct tr_flow_count *count = bpf_map_lookup_elem(&tr_flow_counts, &seen->flow);
    const struct tr_flow_count none = {};

    if (!count) {
        bpf_map_update_elem(&tr_flow_counts, &seen->flow, &none, BPF_NOEXIST); /* full, or another CPU did: as below */
        count = bpf_map_lookup_elem(&tr_flow_counts, &seen->flow);
    }
    if (!count) {
        tally->uncounted += seen->packets;
        return;
    }
    if (seen->rule)
        count->rule = seen->rule;
    __sync_fetch_and_add(seen->outbound ? &count->out_packets : &count->in_packets, seen->packets);
    __sync_fetch_and_add(seen->outbound ? &count->out_bytes : &count->in_bytes, seen->bytes);
}

/* Nobody is woken: the reader looks now and then, so that its cost is bounded too. */
static __attribute__((noinline)) int tell(struct tr_event *seen)
{
    struct tr_watch_tally *tally;
    const struct tr_watch *watch;
    __u32 zero = 0;

    watch = bpf_map_lookup_elem(&tr_watch, &zero);
    tally = bpf_map_lookup_elem(&tr_watch_tally, &zero);
    if (!seen || !watch || !tally)
        return 0;
    seen->time_ns = bpf_ktime_get_ns();
    if (seen->kind < TR_EVENT_EVICTED && seen->flow.family && seen->time_ns < watch->counts_until_ns)
        count_by_flow(seen, tally);
    if (seen->kind == TR_EVENT_NONE || seen->time_ns >= watch->events_until_ns)
        return 0;
    if (seen->kind == TR_EVENT_DROP && !take_sample(tally, seen->time_ns))
        return 0;
    if (bpf_ringbuf_output(&tr_events, seen, sizeof *seen, BPF_RB_NO_WAKEUP))
        ++tally->lost;
    return 0;
}

TR_INLINE __u32 kind_of(const struct tr_packet *packet, bool outbound, bool drop, bool fresh)
{
    if (drop)
        return TR_EVENT_DROP;
    if (packet->tcp_flags & (TR_TCP_FIN | TR_TCP_RST))
        return TR_EVENT_CLOSED;
    if (is_pure_syn(packet))
        return outbound ? TR_EVENT_OUT : TR_EVENT_IN;
    return fresh && packet->ip_proto != IPPROTO_TCP ? TR_EVENT_TALK : TR_EVENT_NONE;
}

/* What was done with a packet, in one word: there are few arguments. */
#define TR_DONE_FRESH 0x100    /* with the reason: a flow was remembered for it */
#define TR_DONE_OUTBOUND 0x200 /* on its way to a peer */

/* Reads the packet again, so that the way of one that nobody watches need not keep what it read of it. */
__attribute__((noinline)) int tell_packet(struct __sk_buff *skb, __u32 header_bytes, __u32 done, __u32 rule)
{
    __u32 reason = done & 0xff;
    bool outbound = done & TR_DONE_OUTBOUND, drop = reason != TR_OUT_PASS && reason >= TR_DROP_NO_POLICY;
    struct tr_packet packet = {};
    struct tr_counter size;

    header_bytes &= TR_MOST_L2_BYTES;
    size = measure(skb, header_bytes);
    if (skb->len > header_bytes)
        read_packet(skb, header_bytes, &packet);
    struct tr_event event = {
        .flow =
            {
                .remote = to_addr(outbound ? &packet.dst : &packet.src),
                .local = to_addr(outbound ? &packet.src : &packet.dst),
                .remote_port = outbound ? packet.dst_port : packet.src_port,
                .local_port = outbound ? packet.src_port : packet.dst_port,
                .ip_proto = packet.ip_proto,
                .family = packet.family,
            },
        .rule = rule,
        .packets = size.packets,
        .bytes = size.bytes,
        .kind = kind_of(&packet, outbound, drop, done & TR_DONE_FRESH),
        .reason = reason,
        .outbound = outbound,
        .tcp_flags = packet.tcp_flags,
    };

    return tell(&event);
}

/* What the memory for replies knows of a flow is the packet that we expect: from the peer to us. */
TR_INLINE void tell_evicted(const struct tr_flow_key *reply)
{
    struct tr_event event = {
        .flow =
            {
                .remote_port = reply->rest,
                .local_port = reply->rest >> 16,
                .ip_proto = reply->rest >> 32,
                .family = reply->rest >> 40,
            },
        .kind = TR_EVENT_EVICTED,
        .reason = TR_OUT_PASS,
        .outbound = 1,
    };

    __builtin_memcpy(&event.flow.remote, reply->src, sizeof event.flow.remote);
    __builtin_memcpy(&event.flow.local, reply->dst, sizeof event.flow.local);
    tell(&event);
}
