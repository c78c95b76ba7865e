/* bpf/shared/steer_map.h - what steer.bpf.c and move.bpf.c need to know. */
#pragma once
#include "base.h"

/* tr_steer_cfg: array of one. All zero: nothing is steered. */
struct tr_steer_config {
    __be16 wireguard_port; /* datagrams to this port are looked at */
    __be16 agent_port4;    /* the agent's UDP sockets, bound to the wildcard address; 0: none */
    __be16 agent_port6;
    __u16 moves; /* how many there are in tr_moves, host order */
};
TR_ASSERT_SIZE(struct tr_steer_config, 8);

/* Key of tr_moves (hash): a peer's outside address over IPv4. */
struct tr_move_key {
    __be32 addr;
    __be16 port;
    __u16 zero;
};
TR_ASSERT_SIZE(struct tr_move_key, 8);

/* What WireGuard sends there leaves from this port, and what comes from there to this port is WireGuard's. */
struct tr_move {
    __be16 port;
    __u16 zero;
};
TR_ASSERT_SIZE(struct tr_move, 4);
enum { TR_MOVES = 1024 };

/* Key of tr_local (hash): an address of this host. A packet to anything else may be forwarded and is never touched. */
struct tr_local_key {
    __u32 family; /* 4 or 6 */
    struct tr_addr addr;
};
TR_ASSERT_SIZE(struct tr_local_key, 20);

/* Index of the per-CPU map tr_steered, value __u64. */
enum tr_steered { TR_STEERED_DISCO, TR_STEERED_STUN, TR_STEERED_GENEVE, TR_STEERED_NO_SOCKET, TR_STEERED_COUNT };
