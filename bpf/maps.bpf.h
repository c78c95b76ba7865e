/* bpf/maps.bpf.h - the maps that the policy and the egress program share. Each object declares all of them; the loader
 * makes the second object use the first one's. Sizes are set again by the loader: hosts, pairs and rows count buckets,
 * half of them for each of the two tables, and take their memory at once. */
#pragma once
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "shared/flow_map.h"
#include "shared/policy_map.h"
#include "shared/reasons.h"
#include "shared/watch_map.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} tr_live SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, TR_TABLES);
    __type(key, __u32);
    __type(value, struct tr_settings);
} tr_settings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 32768);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct tr_host_bucket);
} tr_hosts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct tr_net_key);
    __type(value, struct tr_address);
} tr_nets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct tr_pair_bucket);
} tr_pairs SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, TR_TABLES);
    __type(key, __u32);
    __type(value, struct tr_port_classes);
} tr_ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 32768);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct tr_row_bucket);
} tr_rows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TR_COUNTED_RULES / TR_RULES_A_VALUE);
    __type(key, __u32);
    __type(value, struct tr_rule_hits);
} tr_rule_hits SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TR_REASON_COUNT);
    __type(key, __u32);
    __type(value, struct tr_counter);
} tr_reasons SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, struct tr_flow_bucket);
} tr_flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct tr_secret);
} tr_secret SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, TR_FLOW_EVENT_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} tr_flow_events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 8192);
    __type(key, struct tr_frag_key);
    __type(value, __u32);
} tr_frags SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct tr_watch);
} tr_watch SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct tr_watch_tally);
} tr_watch_tally SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, TR_EVENT_RING_BYTES);
} tr_events SEC(".maps");

/* Memory is taken only for what it holds. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, TR_COUNTED_FLOWS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct tr_flow_id);
    __type(value, struct tr_flow_count);
} tr_flow_counts SEC(".maps");
