/* bpf/shared/hash.h - where an entry of tr_hosts, tr_pairs and tr_rows stands.
 *
 * These maps are arrays of buckets of TR_WAYS entries. An entry is in one of two buckets, and in the second one only if
 * the first is full (cuckoo hashing): a packet looks at one bucket, rarely two, without a call into the kernel, which
 * is where a hash map of the kernel's spends its time. The agent lays a whole table out anew for each commit
 * (policy/table_image.cpp), with another seed when one does not work out. */
#pragma once
#include "base.h"

#define TR_WAYS 4

/* Of a key of two words. Low half: first bucket, high half: second. */
static inline __attribute__((always_inline)) __u64 tr_hash(__u64 first, __u64 second, __u64 seed)
{
    __u64 hash = ((first + seed) * 0x9e3779b97f4a7c15ull) ^ second;

    hash ^= hash >> 32; /* a product passes nothing down: the last bytes of an IPv6 address are high bits here */
    hash *= 0xff51afd7ed558ccdull;
    return hash ^ (hash >> 29);
}

/* Where the buckets of one table are, in one of those maps. */
struct tr_place {
    __u32 first; /* index of the first bucket */
    __u32 mask;  /* number of buckets, a power of two, minus one */
};
TR_ASSERT_SIZE(struct tr_place, 8);
