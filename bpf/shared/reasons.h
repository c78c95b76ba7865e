/* bpf/shared/reasons.h - why a packet passed or was dropped. Index of the per-CPU map tr_reasons.
 * The order is part of the schema: append only. */
#pragma once
#include "base.h"

/*      symbol               name in status     passes */
#define TR_REASONS(X)                                                                                                  \
    X(PASS_RULE, "rule", 1)                      /* a rule of the policy */                                            \
    X(PASS_KEEPALIVE, "keepalive", 1)            /* empty packet */                                                    \
    X(PASS_ESTABLISHED, "established", 1)        /* TCP, not a SYN */                                                  \
    X(PASS_REPLY, "reply", 1)                    /* answers a flow that we started */                                  \
    X(PASS_ICMP_REPLY, "icmp-reply", 1)          /* echo reply or ICMP error */                                        \
    X(PASS_FRAGMENT, "fragment", 1)              /* a later fragment */                                                \
    X(PASS_TSMP, "tsmp", 1)                      /* protocol 99, for the agent */                                      \
    X(PASS_PEER_API, "peerapi", 1)               /* TCP SYN to our peerAPI port */                                     \
    X(DROP_NO_POLICY, "no-policy", 0)            /* before the first commit */                                         \
    X(DROP_TOO_SHORT, "too-short", 0)            /* less than an IPv4 header */                                        \
    X(DROP_BAD_VERSION, "bad-version", 0)        /* neither IPv4 nor IPv6 */                                           \
    X(DROP_TRUNCATED, "truncated", 0)            /* shorter than its own headers say */                                \
    X(DROP_BAD_HEADER, "bad-header", 0)          /* header lengths that contradict each other */                       \
    X(DROP_UNKNOWN_PROTO, "unknown-protocol", 0) /* protocol 0 or 255, hop-by-hop first */                             \
    X(DROP_BAD_FRAGMENT, "bad-fragment", 0)      /* offset inside a transport header */                                \
    X(DROP_MULTICAST, "multicast", 0)                                                                                  \
    X(DROP_LINK_LOCAL, "link-local", 0)                                                                                \
    X(DROP_NOT_LOCAL, "not-local", 0) /* not ours and not a subnet that we route */                                    \
    X(DROP_NO_RULE, "no-rule", 0)     /* the policy does not allow it */                                               \
    X(DROP_SHIELDS_UP, "shields-up", 0)                                                                                \
    X(DROP_JAILED, "jailed", 0)              /* the peer may only answer */                                            \
    X(DROP_NO_FLOW, "no-flow", 0)            /* strict: TCP of an unknown flow that no rule allows */                  \
    X(DROP_NO_FIRST, "no-first-fragment", 0) /* strict: fragment whose first one did not pass */                       \
    X(OUT_PASS, "out", 1)                                                                                              \
    X(OUT_DROP_MALFORMED, "out-malformed", 0)                                                                          \
    X(OUT_DROP_MULTICAST, "out-multicast", 0)                                                                          \
    X(OUT_DROP_LINK_LOCAL, "out-link-local", 0)                                                                        \
    X(OUT_DROP_TSMP, "out-tsmp", 0) /* protocol 99 that the agent did not send */

enum tr_reason {
#define X(symbol, name, passes) TR_##symbol,
    TR_REASONS(X)
#undef X
        TR_REASON_COUNT
};

/* Value of tr_reasons and tr_rule_hits. A GSO packet counts as the segments that it stands for, and bytes are those of
 * whole IP packets: of each segment its headers too, as they are in the tunnel, whatever offload joins here. */
struct tr_counter {
    __u64 packets;
    __u64 bytes;
};
TR_ASSERT_SIZE(struct tr_counter, 16);
