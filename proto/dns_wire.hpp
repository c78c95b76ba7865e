// proto/dns_wire.hpp - numbers of DNS messages, RFC 1035 4.1, for the files of this folder.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tailrace::dns_wire {

inline constexpr std::size_t kHeader = 12;
inline constexpr std::size_t kMostName = 255; // RFC 1035 2.3.4, with the length bytes
inline constexpr unsigned kMostLabel = 63;
inline constexpr std::uint16_t kInternet = 1;
inline constexpr std::uint16_t kResponse = 0x8000, kOpcode = 0x7800, kAuthoritative = 0x0400, kTruncated = 0x0200,
                               kRecursionDesired = 0x0100, kRecursionAvailable = 0x0080, kResultCode = 0x000f;
inline constexpr std::uint16_t kOpt = 41;          // RFC 6891 6.1.1
inline constexpr std::size_t kOptWithoutData = 11; // root, type, size, flags, length
inline constexpr std::uint16_t kPointer = 0xc000;  // to a name before, RFC 1035 4.1.4

} // namespace tailrace::dns_wire
