// agent/version.hpp - who we say we are.
#pragma once

namespace tailrace {

inline constexpr const char* kVersion = TAILRACE_VERSION;
/// What we know of the protocol (control-protocol.md 7): Noise prologue, register, map and /key say the same number.
inline constexpr int kCapabilityVersion = 131;

} // namespace tailrace
