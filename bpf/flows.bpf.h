/* bpf/flows.bpf.h - the memory for what we sent, so that its answers pass. How it works is told in shared/flow_map.h. */
#pragma once
#include "maps.bpf.h"
#include "packet.bpf.h"
#include "watch.bpf.h"

/* Set by the loader: number of buckets minus one, and what tr_secret holds. */
const volatile __u32 flow_mask = 0;
const volatile struct tr_secret flow_secret = {};

TR_INLINE struct tr_flow_key flow_key(const struct tr_words *src, __be16 src_port, const struct tr_words *dst,
                                      __be16 dst_port, const struct tr_packet *packet, __u16 lineage)
{
    struct tr_flow_key key = {
        .src = {src->word[0], src->word[1]},
        .dst = {dst->word[0], dst->word[1]},
        .rest = src_port | (__u64)dst_port << 16 | (__u64)packet->ip_proto << 32 | (__u64)packet->family << 40 |
                (__u64)lineage << 48,
    };

    return key;
}

TR_INLINE __u64 flow_hash(const struct tr_flow_key *key)
{
    __u64 hash =
        key->src[0] * flow_secret.word[0] + key->dst[0] * flow_secret.word[1] + key->rest * flow_secret.word[4];

    if (key->src[1] | key->dst[1])
        hash += key->src[1] * flow_secret.word[2] + key->dst[1] * flow_secret.word[3];
    hash ^= hash >> 32;
    hash *= 0xff51afd7ed558ccdull;
    return hash ^ (hash >> 29);
}

TR_INLINE __u64 flow_stamp(void)
{
    return (bpf_jiffies64() >> TR_FLOW_TICK_SHIFT) & ((1 << TR_FLOW_STAMP_BITS) - 1);
}

TR_INLINE bool same_flow(const struct tr_flow_key *a, const struct tr_flow_key *b)
{
    return a->rest == b->rest && a->src[0] == b->src[0] && a->dst[0] == b->dst[0] && a->src[1] == b->src[1] &&
           a->dst[1] == b->dst[1];
}

/* Where the flow is or would be; marks it as used now. */
struct tr_flow_place {
    struct tr_flow_bucket *bucket;
    __u64 name; /* upper part of the tag that it has or would have */
    __u32 way;  /* that has this name, TR_FLOW_WAYS for none. If the key is another one (see there) it is overwritten */
    bool known;
};

TR_INLINE struct tr_flow_place find_flow(const struct tr_flow_key *key)
{
    struct tr_flow_place place = {.way = TR_FLOW_WAYS};
    __u64 hash = flow_hash(key), tag;
    __u32 index = hash & flow_mask;

    place.bucket = bpf_map_lookup_elem(&tr_flows, &index);
    if (!place.bucket)
        return place;
    hash >>= TR_FLOW_STAMP_BITS;
    hash = hash ? hash : 1;
    place.name = hash << TR_FLOW_STAMP_BITS;
#pragma unroll
    for (int way = 0; way < TR_FLOW_WAYS; ++way)
        if (place.bucket->tag[way] >> TR_FLOW_STAMP_BITS == hash)
            place.way = way;
    if (place.way >= TR_FLOW_WAYS || !same_flow(&place.bucket->key[place.way], key))
        return place;
    place.known = true;
    tag = place.name | flow_stamp();
    if (place.bucket->tag[place.way] != tag)
        place.bucket->tag[place.way] = tag;
    return place;
}

TR_INLINE void count_flow(__u32 event)
{
    __u64 *counter = bpf_map_lookup_elem(&tr_flow_events, &event);

    if (counter)
        ++*counter;
}

/* Only for egress: nothing that a peer sends may push flows out. */
TR_INLINE void add_flow(struct tr_flow_place *place, const struct tr_flow_key *key, bool watched)
{
    const __u32 stamp_mask = (1 << TR_FLOW_STAMP_BITS) - 1;
    __u32 victim = 0, greatest = 0, age;
    volatile __u64 *tag;
    __u64 own_tag;

    if (place->way < TR_FLOW_WAYS) {
        place->bucket->key[place->way] = *key;
        return;
    }
    own_tag = place->name | flow_stamp();
#pragma unroll
    for (int way = 0; way < TR_FLOW_WAYS; ++way) {
        age = place->bucket->tag[way] ? (__u32)(own_tag - place->bucket->tag[way]) & stamp_mask : stamp_mask + 1;
        if (age >= greatest) {
            greatest = age;
            victim = way;
        }
    }
    tag = &place->bucket->tag[victim & (TR_FLOW_WAYS - 1)];
    count_flow(TR_FLOW_NEW);
    if (*tag) {
        count_flow(TR_FLOW_EVICTED);
        if (TR_UNLIKELY(watched))
            tell_evicted(&place->bucket->key[victim & (TR_FLOW_WAYS - 1)]);
    }
    place->bucket->key[victim & (TR_FLOW_WAYS - 1)] = *key;
    *tag = own_tag;
}
