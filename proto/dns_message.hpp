// proto/dns_message.hpp - DNS messages that we make ourselves, and answers taken apart for people. RFC 1035 4.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"
#include "proto/dns_query.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Numbers of the IANA registry, as many as we have to tell apart.
namespace dns_type {
inline constexpr std::uint16_t kA = 1, kNs = 2, kCname = 5, kSoa = 6, kPtr = 12, kHinfo = 13, kMx = 15, kTxt = 16,
                               kAaaa = 28, kSrv = 33, kAxfr = 252, kAny = 255;
}

enum class DnsResult : std::uint8_t { Success = 0, FormErr = 1, ServFail = 2, NxDomain = 3, NotImp = 4, Refused = 5 };

/// What we answer: at most one record, and in a zone of ours who is to blame when there is none.
struct DnsReply {
    DnsResult result = DnsResult::Success;
    bool authoritative = true;
    std::optional<IpAddress> address;
    std::string pointer; ///< of a PTR record; "" for none
    std::string zone;    ///< an SOA record for it goes along; "" for none
    std::uint32_t serial = 0;
};

/// A positive record may be kept this long, and that there is none. Source: dns.md 3.2.
inline constexpr std::uint32_t kDnsTtlSeconds = 5, kDnsNegativeTtlSeconds = 10;

/// `query` passes parse_dns_query(): its ID and its question are repeated as they are.
Bytes write_dns_reply(BytesView query, const DnsReply& reply);
/// To what has a header and makes no sense beyond it.
Bytes write_dns_format_error(BytesView message);

/// "peer.tail.example" or with a dot behind. Fails for what is no name.
Result<Bytes> make_dns_query(std::string_view name, std::uint16_t type, std::uint16_t id);

/// "A", "aaaa", "TYPE65", "65".
Result<std::uint16_t> parse_dns_type(std::string_view text);
std::string dns_type_name(std::uint16_t type); ///< "A"; "TYPE65" for those without a name here

struct DnsRecordText {
    std::string name; ///< with a dot behind
    std::uint32_t ttl_seconds = 0;
    std::uint16_t dns_class = 0, type = 0;
    std::string body;
};
struct DnsAnswerText {
    unsigned result = 0;
    std::vector<DnsRecordText> answers;
};
/// The answer section only.
Result<DnsAnswerText> parse_dns_answer(BytesView message);

} // namespace tailrace
