/* bpf/shared/watch_map.h - what the packet programs tell while somebody watches: events in the ring tr_events, and how
 * much each flow moves in tr_flow_counts. Read by agent/dataplane/packet_watch.cpp. While nobody does (TR_LIVE_WATCHED of
 * tr_live is not set) all of it costs a packet one test of a bit. */
#pragma once
#include "base.h"

/* Both directions of a conversation: the peer's side and ours. Ports are 0 where the protocol has none. */
struct tr_flow_id {
    struct tr_addr remote;
    struct tr_addr local;
    __be16 remote_port;
    __be16 local_port;
    __u8 ip_proto;
    __u8 family; /* 4, 6, or 0: the packet could not be read so far, and nothing else is known of it */
    __u16 zero;
};
TR_ASSERT_SIZE(struct tr_flow_id, 40);

/* Nothing is remembered for the sake of events: a SYN that is sent again is one again, both sides' FINs are two, and who
 * spoke first over UDP or SCTP is not known. */
enum tr_event_kind {
    TR_EVENT_NONE,    /* only counted */
    TR_EVENT_OUT,     /* TCP: we send a SYN */
    TR_EVENT_IN,      /* TCP: a peer's SYN was let in */
    TR_EVENT_TALK,    /* UDP, SCTP: we send, and the flow was not remembered */
    TR_EVENT_CLOSED,  /* TCP: a FIN or a RST passed, in either direction */
    TR_EVENT_EVICTED, /* the flow was pushed out of the memory for replies by another one */
    TR_EVENT_DROP,    /* a sample of what was dropped */
    TR_EVENT_KINDS
};

/* Record of tr_events (ring buffer), and what the programs note of a packet. */
struct tr_event {
    __u64 time_ns; /* CLOCK_MONOTONIC */
    struct tr_flow_id flow;
    __u32 rule; /* that let it in, 0: none */
    __u32 packets;
    __u32 bytes;
    __u8 kind;     /* enum tr_event_kind */
    __u8 reason;   /* enum tr_reason */
    __u8 outbound; /* 1: on its way to a peer */
    __u8 tcp_flags;
};
TR_ASSERT_SIZE(struct tr_event, 64);

#define TR_EVENT_RING_BYTES (256 * 1024) /* a power of two and whole pages; a record takes 72 */

/* tr_watch: array of one. CLOCK_MONOTONIC until which each is wanted, so that a reader who dies is soon forgotten. */
struct tr_watch {
    __u64 events_until_ns;
    __u64 counts_until_ns;
};
TR_ASSERT_SIZE(struct tr_watch, 16);

/* Value of tr_flow_counts (hash, key struct tr_flow_id): what passed since the reader took the last value away. */
struct tr_flow_count {
    __u64 in_packets;
    __u64 in_bytes;
    __u64 out_packets;
    __u64 out_bytes;
    __u32 rule; /* that let the last packet in that needed one; 0: none did */
    __u32 zero;
};
TR_ASSERT_SIZE(struct tr_flow_count, 40);
#define TR_COUNTED_FLOWS 16384 /* at a time */

/* tr_watch_tally: per-CPU array of one. */
struct tr_watch_tally {
    __u64 window;      /* of TR_SAMPLE_WINDOW_SHIFT, the last one with a drop */
    __u64 samples;     /* taken in it */
    __u64 not_sampled; /* drops beyond TR_SAMPLES_IN_WINDOW, ever */
    __u64 lost;        /* events that found the ring full, ever */
    __u64 uncounted;   /* packets of flows that found tr_flow_counts full, ever */
};
TR_ASSERT_SIZE(struct tr_watch_tally, 40);
#define TR_SAMPLE_WINDOW_SHIFT 27 /* ns: 134 ms */
#define TR_SAMPLES_IN_WINDOW 16   /* of each CPU */
