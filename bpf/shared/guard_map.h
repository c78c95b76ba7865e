/* bpf/shared/guard_map.h - what guard.bpf.c needs to know, and what it counts. */
#pragma once
#include "base.h"

/* tr_guard_cfg: array of one. All zero: everything passes. */
struct tr_guard_config {
    __be16 wireguard_port; /* datagrams to this port are judged */
    __u16 zero[3];
    __u64 interval_ns;  /* one message of a budget in so long, for good */
    __u64 tolerance_ns; /* how much sooner than that they may come: all of a burst but its first message */
};
TR_ASSERT_SIZE(struct tr_guard_config, 24);

/* Key of tr_guard_peers (hash): an endpoint that a peer has now. */
struct tr_guard_key {
    struct tr_addr addr;
    __be16 port;
    __u8 family; /* 4 or 6 */
    __u8 zero;
};
TR_ASSERT_SIZE(struct tr_guard_key, 20);
enum { TR_GUARD_PEERS = 32768 };

/* Index of tr_guard_budget (array), value __u64: when the budget is whole again, by the monotonic clock. */
enum tr_guard_budgets { TR_BUDGET_INITIATIONS, TR_BUDGET_ANSWERS, TR_BUDGET_COUNT };

/* Index of the per-CPU map tr_guard_count. The order is part of the schema: append only.
 *       symbol             name                 passes */
#define TR_GUARD_VERDICTS(X)                                                                                           \
    X(GUARD_DATA, "data", 1)           /* WireGuard's, encrypted */                                                    \
    X(GUARD_PEER, "peer-handshake", 1) /* a handshake message from an endpoint in force */                             \
    X(GUARD_NEW, "new-handshake", 1)   /* from elsewhere, within the budget */                                         \
    X(GUARD_DISCO, "disco", 1)                                                                                         \
    X(GUARD_STUN, "stun", 1)                                                                                           \
    X(GUARD_GENEVE, "geneve", 1)                                                                                       \
    X(GUARD_FRAGMENT, "fragment", 1)      /* the first one, of what is no handshake by its length */                   \
    X(GUARD_FOREIGN, "not-wireguard", 0)  /* nothing that is spoken on this port */                                    \
    X(GUARD_LENGTH, "wrong-length", 0)    /* a WireGuard message that is too long or too short for its type */         \
    X(GUARD_INITIATION, "initiations", 0) /* more of them from unknown sources than the budget has */                  \
    X(GUARD_ANSWER, "answers", 0)         /* likewise handshake responses and cookie replies */                        \
    X(GUARD_HEADERS, "headers", 0)        /* more extension headers than anybody needs */

enum tr_guard_verdict {
#define X(symbol, name, passes) TR_##symbol,
    TR_GUARD_VERDICTS(X)
#undef X
        TR_GUARD_VERDICT_COUNT
};
