/* bpf/shared/hash.h - where an entry of tr_hosts, tr_pairs and tr_rows stands.
 *
 * These maps are arrays of buckets of TR_WAYS entries. An entry is in one of two buckets, and in the second one only if
 * the first is full (cuckoo hashing): a packet looks at one bucket, rarely two, without a call into the kernel, which
 * is where a hash map of the kernel's spends its time. The agent lays a whole table out anew for each commit
 * (policy/table_image.cpp), with another seed when one does not work out. */
#pragma once
#include "base.h"

#define TR_WAYS 4

/* Of a key of two words; `seed` is odd. Its highest bits, on which all bits of the key bear, say which bucket is the first
 * one. A packet waits for three such hashes, one after the other: so there is one product behind the key's first word,
 * and that is enough (multiplicative hashing), for a table where it is not gets another seed. */
static inline __attribute__((always_inline)) __u64 tr_hash(__u64 first, __u64 second, __u64 seed)
{
    return (first + second * 0x9e3779b97f4a7c15ull) * seed;
}

/* Of the first hash: the second bucket. Keys that share the first one go apart here. */
static inline __attribute__((always_inline)) __u64 tr_second_hash(__u64 hash)
{
    return (hash ^ (hash >> 32)) * 0xff51afd7ed558ccdull;
}

/* Where the buckets of one table are, in one of those maps. */
struct tr_place {
    __u32 first; /* index of the first bucket */
    __u32 shift; /* there are 2 to the power of (64 - shift) of them, 1 at least */
};
TR_ASSERT_SIZE(struct tr_place, 8);

static inline __attribute__((always_inline)) __u32 tr_bucket_of(struct tr_place place, __u64 hash)
{
    return place.first + (__u32)(hash >> (place.shift & 63));
}
