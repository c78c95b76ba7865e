/* bpf/shared/flow_map.h - what is remembered between packets. Survives policy changes. */
#pragma once
#include "base.h"

#define TR_LINEAGE_JAILED 0xffff /* the flows of jailed peers live apart */

/* A packet that we expect to come in. Addresses as in struct tr_addr; the rest, from the lowest bits: source and
 * destination port (16 each, network order), IP protocol (8), family (8: 4 or 6), lineage (16). */
struct tr_flow_key {
    __u64 src[2];
    __u64 dst[2];
    __u64 rest;
};
TR_ASSERT_SIZE(struct tr_flow_key, 40);

/* Value of tr_flows: array of buckets, their number a power of two, that all CPUs share. A flow is in the bucket that its
 * hash names. Egress alone adds flows; the one of the bucket that nobody has used for longest makes room.
 *
 * Nobody locks. A tag names the flow (upper 40 bits of its hash) and when it was used last (lower 24 bits, of
 * TR_FLOW_TICK jiffies); it is written after the key. Two CPUs that write one place at once can leave a key that belongs
 * to neither flow, or not to the tag: then it matches neither, for the whole key is compared as well, and the next
 * packet that we send writes it anew. */
#define TR_FLOW_WAYS 8
#define TR_FLOW_STAMP_BITS 24
#define TR_FLOW_TICK_SHIFT                                                                                             \
    2 /* 4 jiffies: 4 to 40 ms; the stamp wraps after 19 hours or more, and then only errs about age */
struct tr_flow_bucket {
    __u64 tag[TR_FLOW_WAYS]; /* 0: free */
    struct tr_flow_key key[TR_FLOW_WAYS];
};
TR_ASSERT_SIZE(struct tr_flow_bucket, 384);

/* tr_secret: array of one, random, made with the maps. Multipliers, so that nobody outside can aim at one bucket. The
 * loader copies it into the programs' constants; the map keeps it for the next program. */
struct tr_secret {
    __u64 word[5];
};
TR_ASSERT_SIZE(struct tr_secret, 40);

/* Index of the per-CPU map tr_flow_events, value __u64. */
enum tr_flow_event { TR_FLOW_NEW, TR_FLOW_EVICTED, TR_FLOW_EVENT_COUNT };

/* Key of tr_frags (LRU hash, written by the policy program for first fragments that a strict verdict let in). */
struct tr_frag_key {
    struct tr_addr src;
    struct tr_addr dst;
    __u32 id;      /* network order, as in the packet */
    __u8 ip_proto; /* IPv4 only */
    __u8 family;
    __u16 zero;
};
TR_ASSERT_SIZE(struct tr_frag_key, 40);

/* Value of tr_frags: serial of the commit that let the first fragment in, __u32. */
