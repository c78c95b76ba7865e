/* bench/verdict/vary.bpf.c - makes each run of a repeated test run another flow: counts up in the ports of an IPv4
 * packet without options, then goes on in the program at hand. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#define PORTS_AT (14 + 20)

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} next SEC(".maps");

__u32 counter = 0;

SEC("tc")
int vary(struct __sk_buff* skb) {
    void* data = (void*)(long)skb->data;
    void* data_end = (void*)(long)skb->data_end;
    __u16* ports = data + PORTS_AT;

    if ((void*)(ports + 2) > data_end) return TC_ACT_SHOT;
    ++counter;
    ports[0] = counter;
    ports[1] = counter >> 16;
    bpf_tail_call(skb, &next, 0);
    return TC_ACT_SHOT;
}

/* What a test run costs by itself. */
SEC("tc")
int nothing(struct __sk_buff* skb) {
    return TC_ACT_OK;
}

/* Hands packets of a live test run to the network stack. */
SEC("xdp")
int hand_up(struct xdp_md* packet) {
    return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
