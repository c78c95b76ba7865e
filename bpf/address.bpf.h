/* bpf/address.bpf.h - what the policy in force says of an address. */
#pragma once
#include "maps.bpf.h"
#include "packet.bpf.h"

/* One word says which table counts. It is read once a packet. */
TR_INLINE __u32 read_live(void)
{
    __u32 zero = 0;
    const volatile __u32 *live = bpf_map_lookup_elem(&tr_live, &zero);

    return live ? *live : TR_TABLE_NONE;
}

TR_INLINE const struct tr_address *find_host(const struct tr_settings *settings, __u8 side, __u8 family,
                                             const struct tr_words *addr)
{
    const struct tr_place *place = &settings->hosts;
    const struct tr_host_bucket *bucket;
    const struct tr_host *host;
    __u64 hash = tr_hash(addr->word[0], addr->word[1] + side, settings->seed);
    __u32 index;

#pragma unroll
    for (int choice = 0; choice < 2; ++choice) {
        index = tr_bucket_of(*place, choice ? tr_second_hash(hash) : hash);
        bucket = bpf_map_lookup_elem(&tr_hosts, &index);
        if (!bucket)
            return 0;
#pragma unroll
        for (int way = 0; way < TR_WAYS; ++way) {
            host = &bucket->way[way];
            if (same_addr(&host->addr, addr) && host->scope.side == side && host->scope.family == family)
                return &host->value;
        }
        if (!bucket->way[TR_WAYS - 1].scope.side)
            return 0;
    }
    return 0;
}

TR_INLINE const struct tr_address *find_address(const struct tr_settings *settings, __u32 table, __u8 side, __u8 family,
                                                const struct tr_words *addr)
{
    const struct tr_address *found = find_host(settings, side, family, addr);
    struct tr_net_key key;

    if (found || !(settings->flags & TR_SETTING_HAS_NETS(side, family)))
        return found;
    key = (struct tr_net_key){
        .prefix_bits = 32 + 128,
        .scope = {.table = table, .side = side, .family = family},
        .addr = to_addr(addr),
    };
    return bpf_map_lookup_elem(&tr_nets, &key);
}
