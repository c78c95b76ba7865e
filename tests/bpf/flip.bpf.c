/* tests/bpf/flip.bpf.c - switches between the two tables some 20 ns after the other, which no system call can: a packet
 * that looks twice, a few instructions apart, then sees both. */
#include "bpf/shared/policy_map.h"
#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>

/* The one of the programs that are tried; the loader sees to that. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} tr_live SEC(".maps");

#define FLIPS 512 /* an even number: the last one brings back what was there */

SEC("tc")
int tr_flip(struct __sk_buff* skb) {
    __u32 zero = 0;
    volatile __u32* live = bpf_map_lookup_elem(&tr_live, &zero);

    if (!live) return 0;
    for (int i = 0; i < FLIPS; ++i) {
        *live ^= TR_TABLE_A ^ TR_TABLE_B;
        bpf_ktime_get_ns(); /* a pause */
    }
    return FLIPS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
