/* bpf/shared/policy_map.h - the policy as flat tables. Written by agent/dataplane, read by policy.bpf.c.
 *
 *   source address       -> source class          tr_hosts (whole addresses), else tr_nets (longest prefix)
 *   destination address  -> destination class     the same two maps; not found = not one of our local nets
 *   (source class, destination class)             tr_pairs -> rules for every port, and a rule set
 *   port                 -> port class            tr_ports, one table for TCP, UDP and SCTP
 *   (rule set, protocol, port class) -> rule      tr_rows
 *
 * Everything exists twice, as table 1 and table 2; tr_live says which one counts. Classes are sets of addresses that
 * stand in exactly the same rules, not peers. Rule number 0 means "no rule". */
#pragma once
#include "base.h"
#include "hash.h"
#include "reasons.h"

/* tr_live: array of one, read once a packet. In TR_LIVE_TABLE 0 before the first commit (everything is dropped), else
 * TR_TABLE_A or TR_TABLE_B. TR_LIVE_WATCHED: somebody watches packets, see watch_map.h. */
#define TR_LIVE_TABLE 3u
#define TR_LIVE_WATCHED 4u
#define TR_TABLE_NONE 0
#define TR_TABLE_A 1
#define TR_TABLE_B 2
#define TR_TABLES 3

#define TR_SIDE_SOURCE 1
#define TR_SIDE_DESTINATION 2

/* Which of the tables an address key belongs to. Four bytes, so that a prefix is 32 bits longer than its address says. */
struct tr_scope {
    __u8 table;  /* TR_TABLE_A or _B; 0 in tr_hosts, where the place says it */
    __u8 side;   /* TR_SIDE_...; 0 in tr_hosts: nothing here */
    __u8 family; /* 4 or 6 */
    __u8 zero;
};
TR_ASSERT_SIZE(struct tr_scope, 4);

/* Key of tr_nets (LPM trie). */
struct tr_net_key {
    __u32 prefix_bits; /* 32 for the scope plus the prefix's own length */
    struct tr_scope scope;
    struct tr_addr addr;
};
TR_ASSERT_SIZE(struct tr_net_key, 24);

#define TR_ADDRESS_JAILED 1 /* source: the peer may only answer */
#define TR_ADDRESS_OWN 2    /* destination: an address of this node, not of a subnet behind it */

/* What tr_hosts and tr_nets say of an address. */
struct tr_address {
    __u32 address_class; /* 0: in no rule */
    __u32 flags;         /* TR_ADDRESS_... */
    __u32 icmp_rule;     /* source: a rule that names it by capability; allows ICMP to any local net */
};
TR_ASSERT_SIZE(struct tr_address, 12);

/* Entry of tr_hosts. */
struct tr_host {
    struct tr_addr addr;
    struct tr_scope scope;
    struct tr_address value;
};
TR_ASSERT_SIZE(struct tr_host, 32);

/* Slots of tr_pair.all_ports and bits of tr_pair.has_rows. */
#define TR_SLOT_TCP 0
#define TR_SLOT_UDP 1
#define TR_SLOT_SCTP 2
#define TR_SLOT_CROSS_ICMP 3 /* ICMP inside the other family: "other protocols" that default rules list */
#define TR_SLOTS 4
#define TR_SLOT_OTHER 4 /* only in has_rows */

#define TR_RULE_SET_BITS 24
#define TR_MAX_RULE_SETS (1u << TR_RULE_SET_BITS)

/* Entry of tr_pairs. Rows are asked first: they hold only rules that stand before the one in all_ports. */
struct tr_pair {
    __u32 src_class; /* 0: nothing here */
    __u32 dst_class;
    __u32 any_rule;            /* first rule that joins the two, whatever its protocols and ports: decides ICMP */
    __u32 all_ports[TR_SLOTS]; /* first rule that allows every port */
    __u32 rule_set : TR_RULE_SET_BITS; /* in tr_rows; many pairs share one */
    __u32 has_rows : 8;                /* bit per slot: this protocol has rows */
};
TR_ASSERT_SIZE(struct tr_pair, 32);

/* Value of tr_ports (array, index = table): port -> port class. Ports of one class are in the same ranges of the rules. */
#define TR_PORTS 65536
struct tr_port_classes {
    __u16 class_of[TR_PORTS];
};
TR_ASSERT_SIZE(struct tr_port_classes, 131072);

/* Entry of tr_rows. */
struct tr_row {
    __u32 rule_set;
    __u16 port_class; /* 0 for protocols without ports */
    __u8 ip_proto;
    __u8 zero;
    __u32 rule; /* 0: nothing here */
    __u32 zero_too;
};
TR_ASSERT_SIZE(struct tr_row, 16);

/* The values of the three maps (arrays). The first half of each is table 1's, the second half table 2's. */
struct tr_host_bucket {
    struct tr_host way[TR_WAYS];
};
struct tr_pair_bucket {
    struct tr_pair way[TR_WAYS];
};
struct tr_row_bucket {
    struct tr_row way[TR_WAYS];
};

#define TR_SETTING_SHIELDS_UP 1       /* no rules */
#define TR_SETTING_STRICT_FORWARDED 2 /* strict TCP and fragments towards subnets behind us */
#define TR_SETTING_STRICT_OWN 4       /* ... and towards our own addresses */
#define TR_SETTING_HAS_JAILED 8       /* some source is jailed: egress must look */
/* Is there anything of this side and family in tr_nets? */
#define TR_SETTING_HAS_NETS(side, family) (16u << ((side)*2 + (family) / 6))

/* Value of tr_settings (array, index = table; 0 is unused). Switches together with the tables. */
struct tr_settings {
    __u32 flags;   /* TR_SETTING_... */
    __u32 serial;  /* of the commit; what was remembered under another serial does not count */
    __u16 lineage; /* flows remembered under another lineage don't count; changes when shields go up */
    __u8 has_own4;
    __u8 has_own6;
    __be16 peer_api4; /* 0: none */
    __be16 peer_api6;
    struct tr_addr own4; /* asked before the maps: most packets are for us */
    struct tr_addr own6;
    struct tr_address own4_address;
    struct tr_address own6_address;
    struct tr_place hosts;
    struct tr_place pairs;
    struct tr_place rows;
    __u64 seed; /* of the hashes */
};
TR_ASSERT_SIZE(struct tr_settings, 104);

/* tr_rule_hits: per-CPU array; a rule's counter is by its number, rules with higher numbers count as rule 0. Many counters
 * a value: the kernel allocates each value by itself, and who reads them makes a system call for each. */
#define TR_COUNTED_RULES 16384
#define TR_RULES_A_VALUE 64
struct tr_rule_hits {
    struct tr_counter of[TR_RULES_A_VALUE];
};
