/* bpf/shared/via_map.h - 4via6: what via6.bpf.c needs to know to carry IPv6 flows of peers to the IPv4 networks of a
 * site, and what it remembers of them. Written by agent/dataplane/translator.cpp, but for the flows. */
#pragma once
#include "base.h"

/* Key of tr_via_nets (LPM trie): the advertised prefixes, 96 bits and longer. The last four bytes of an address in one
 * are the IPv4 address that is meant. */
struct tr_via_net_key {
    __u32 prefix_bits;
    struct tr_addr addr;
};
TR_ASSERT_SIZE(struct tr_via_net_key, 20);
enum { TR_VIA_NETS = 16384 };

/* tr_via_peers (hash): a peer's own IPv6 address -> its own IPv4 address, under which its packets go on. */
enum { TR_VIA_PEERS = 65536 };

/* tr_via_self: array of one, our own two addresses: errors that this host makes itself come from there. */
struct tr_via_self {
    struct tr_addr own6;
    __be32 own4; /* 0: none */
};
TR_ASSERT_SIZE(struct tr_via_self, 20);

/* Key of tr_via_flows (LRU hash). An echo has its identifier as the peer's port. */
struct tr_via_flow_key {
    __be32 peer;
    __be32 remote;
    __be16 peer_port;
    __be16 remote_port;
    __u8 ip_proto; /* of IPv4 */
    __u8 zero[3];
};
TR_ASSERT_SIZE(struct tr_via_flow_key, 16);

/* The two ends as the peer knows them. Replies go from `via` to `peer`. */
struct tr_via_flow {
    struct tr_addr via;
    struct tr_addr peer;
};
TR_ASSERT_SIZE(struct tr_via_flow, 32);
enum { TR_VIA_FLOWS = 65536 };

/* Key of tr_via_frags (LRU hash), value struct tr_via_flow: to which flow the later fragments of a reply belong. */
struct tr_via_frag_key {
    __be32 peer;
    __be32 remote;
    __be16 id;
    __u8 ip_proto;
    __u8 zero;
};
TR_ASSERT_SIZE(struct tr_via_frag_key, 12);
enum { TR_VIA_FRAGS = 1024 };

/* Index of the per-CPU map tr_via_counts, value struct tr_counter. What is dropped here the policy has let in, or it
 * was on its way to a peer: it is counted there as well.
 *      symbol               name in status         passes */
#define TR_VIA_REASONS(X)                                                                                              \
    X(IN, "via-in", 1)                      /* IPv6 from a peer, went on as IPv4 */                                    \
    X(OUT, "via-out", 1)                    /* the way back */                                                         \
    X(DROP_NO_PEER, "via-no-peer", 0)       /* the source is no peer's own address, or the peer has no IPv4 */         \
    X(DROP_REFUSED, "via-refused", 0)       /* to loopback, multicast, link-local, a tailnet address ... */            \
    X(DROP_RESET, "via-reset", 0)           /* ... over TCP: the peer was told */                                      \
    X(DROP_PROTOCOL, "via-protocol", 0)     /* not TCP, UDP, an echo or an error that IPv4 and IPv6 both know */       \
    X(DROP_FRAGMENT, "via-fragment", 0)     /* ICMP in fragments */                                                    \
    X(DROP_CHECKSUM, "via-checksum", 0)     /* IPv4 UDP without one, and too long or in fragments */                   \
    X(DROP_UNREADABLE, "via-unreadable", 0) /* shorter than its headers say, or an error about nothing */              \
    X(DROP_FAILED, "via-failed", 0)         /* the kernel had no memory for it */

enum tr_via_reason {
#define X(symbol, name, passes) TR_VIA_##symbol,
    TR_VIA_REASONS(X)
#undef X
        TR_VIA_REASON_COUNT
};
