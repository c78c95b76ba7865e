/* bpf/shared/base.h - what every header shared by packet programs and the agent starts from. */
#pragma once
#include <linux/types.h>

#ifdef __cplusplus
#define TR_ASSERT_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), "both sides of the map must agree")
#else
#define TR_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "both sides of the map must agree")
#endif

/* Part of the path of every pin: /sys/fs/bpf/tailrace/v1/DEVICE/NAME. Raise it when the meaning or the
 * layout of a map changes; an agent adopts only its own version, builds beside an older one and takes its place
 * (agent/dataplane/other_schemas.hpp), and leaves a newer one alone. */
#define TR_SCHEMA_VERSION 5

/* The schema from which on tr_flows, tr_flow_events, tr_secret, the table in tr_live and the first ten bytes of
 * tr_settings are as now: from there on an
 * upgrade takes them along, and with them the replies that we wait for. Raise it to TR_SCHEMA_VERSION when they change. */
#define TR_FLOWS_SINCE 2

/* An address of either family; IPv4 in the first four bytes, the rest zero. Network order. */
struct tr_addr {
    __u8 bytes[16];
} __attribute__((aligned(4)));
TR_ASSERT_SIZE(struct tr_addr, 16);
