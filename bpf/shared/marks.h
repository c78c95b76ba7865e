/* bpf/shared/marks.h - the bits of a packet's mark that we use.
 *
 * All of them live in the byte 0xff0000, the one that the reference client claims, so we collide with nobody with whom
 * it does not collide. It uses the lower half of that byte; TR_MARK_PASSED takes a bit of the upper half.
 * Rules that compare the byte for equality (fwmark 0x80000/0xff0000 -> main) rightly don't match a passed packet, and
 * the forward chain replaces the byte by 0x40000 after the backstop (in prerouting, before any connmark restore) has
 * seen the bit. Source: tailscale tsconst/linuxfw.go. */
#pragma once

#define TR_MARK_MASK 0x00ff0000u
#define TR_MARK_SUBNET_ROUTE 0x00040000u /* came from the tailnet, may be forwarded and masqueraded */
#define TR_MARK_BYPASS 0x00080000u       /* the agent's own packets */
#define TR_MARK_PASSED 0x00100000u       /* the policy program let it in; only that program sets it */
