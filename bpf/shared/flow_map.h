/* bpf/shared/flow_map.h - what is remembered between packets. Survives policy changes. */
#pragma once
#include "base.h"

#define TR_LINEAGE_JAILED 0xffff /* the flows of jailed peers live apart */

/* Key of tr_flows (LRU hash that all CPUs share, written by egress only): the packet that we expect to come in. */
struct tr_flow_key {
    struct tr_addr src;
    struct tr_addr dst;
    __be16 src_port;
    __be16 dst_port;
    __u8 ip_proto;
    __u8 family; /* 4 or 6 */
    __u16 lineage;
};
TR_ASSERT_SIZE(struct tr_flow_key, 40);

struct tr_flow {
    __u32 serial; /* of the commit in force when the flow began; 0 before the first */
    __u32 zero;
};
TR_ASSERT_SIZE(struct tr_flow, 8);

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
