// proto/dns_query.hpp - as much of DNS messages as it takes to pass on a question and to know its answer. RFC 1035 4.1.
// What we say ourselves is in dns_message.hpp.
#pragma once
#include "base/bytes.hpp"

#include <cstdint>
#include <string>

namespace tailrace {

/// RFC 8484 6: a message over HTTP is as long as one over TCP can be.
inline constexpr std::size_t kMostDnsMessage = 65535;
inline constexpr std::uint16_t kDnsPort = 53;
inline constexpr const char* kDnsMediaType = "application/dns-message"; ///< RFC 8484 6

struct DnsQuery {
    std::uint16_t id = 0;
    std::string name; ///< "example.com", as it was sent; "" is the root
    std::uint16_t type = 0, dns_class = 0;
    std::size_t question_end = 0; ///< where the one question ends, which begins after the 12 bytes of the header
    bool recursion_desired = false;
    std::uint16_t udp_size = 512; ///< how long an answer over UDP may be: what EDNS says (RFC 6891), and not less
};

/// A standard query (opcode 0) with one question, whose name is not compressed. What follows the question is anybody's.
Result<DnsQuery> parse_dns_query(BytesView message);

/// Whether `message` answers the query: its ID and its question, in any case of letters (an error may go without one).
bool is_dns_answer(BytesView query, BytesView message);
/// The answer did not fit; it is whole over TCP.
bool is_dns_truncated(BytesView message);
/// Whether the server could not, or would not (SERVFAIL, REFUSED): another one may know better.
bool is_dns_failure(BytesView message);
/// Lowers what EDNS at the end of a message offers for UDP to `most`.
void limit_dns_udp_size(Bytes& message, std::uint16_t most);
/// Of a message that has a header.
void set_dns_truncated(Bytes& message);
void set_dns_id(Bytes& message, std::uint16_t id);

} // namespace tailrace
