/* bpf/kinds.bpf.h - what shares a port with WireGuard, told apart by its first eight bytes and its length.
 * Formats: tailscale disco/disco.go, RFC 5389 section 6, RFC 8926 section 3.4. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>

#define UNDERLAY_INLINE static __attribute__((always_inline)) inline

/* Magic 6 | sender's key 32 | nonce 24. */
#define DISCO_HEADER_BYTES 62
#define STUN_HEADER_BYTES 20
#define GENEVE_HEADER_BYTES 8
#define GENEVE_PROTOCOL_DISCO 0x7a11
#define GENEVE_PROTOCOL_WIREGUARD 0x7a12

UNDERLAY_INLINE bool is_disco(const __u8 *payload, __u32 bytes)
{
    return bytes >= DISCO_HEADER_BYTES && payload[0] == 0x54 && payload[1] == 0x53 && payload[2] == 0xf0 &&
           payload[3] == 0x9f && payload[4] == 0x92 && payload[5] == 0xac; /* "TS" and a speech balloon */
}

/* A STUN length counts what follows the header. A WireGuard message begins with its type and three zero bytes, which
 * is no binding message, so a session whose index happens to be the cookie is not mistaken. */
UNDERLAY_INLINE bool is_stun(const __u8 *payload, __u32 bytes)
{
    return bytes >= STUN_HEADER_BYTES && (payload[0] & 0xc0) == 0 && payload[1] != 0 && payload[4] == 0x21 &&
           payload[5] == 0x12 && payload[6] == 0xa4 && payload[7] == 0x42 &&
           (__u32)(payload[2] << 8 | payload[3]) + STUN_HEADER_BYTES <= bytes;
}

/* Geneve version 0 without options, of the two protocols that peer relays speak. */
UNDERLAY_INLINE bool is_geneve(const __u8 *payload, __u32 bytes)
{
    __u16 protocol = payload[2] << 8 | payload[3];

    return bytes >= GENEVE_HEADER_BYTES && payload[0] == 0 &&
           (protocol == GENEVE_PROTOCOL_DISCO || protocol == GENEVE_PROTOCOL_WIREGUARD);
}
