#include "proto/dns_query.hpp"
#include "proto/dns_wire.hpp"

#include <algorithm>

namespace tailrace {
namespace {

std::uint16_t flags_of(BytesView message) {
    Reader in{message};
    (void)in.be16();
    return in.be16();
}

} // namespace

Result<DnsQuery> parse_dns_query(BytesView message) {
    if (message.size() > kMostDnsMessage) return Error::make("DNS query: {} bytes are too many", message.size());
    Reader in{message};
    DnsQuery query;
    query.id = in.be16();
    std::uint16_t flags = in.be16(), questions = in.be16();
    std::uint16_t answers = in.be16(), authorities = in.be16(), others = in.be16();
    if (!in.ok()) return in.error("DNS query");
    if ((flags & dns_wire::kResponse) != 0 || (flags & dns_wire::kOpcode) != 0)
        return Error::make("DNS query: this is none");
    if (questions != 1) return Error::make("DNS query: {} questions, and one is answered", questions);
    for (unsigned length = in.u8(); length != 0; length = in.u8()) {
        if (length > dns_wire::kMostLabel) return Error::make("DNS query: a part of the name with length {}", length);
        if (!query.name.empty()) query.name += '.';
        query.name += as_chars(in.bytes(length));
        if (!in.ok()) return in.error("DNS query");
        if (query.name.size() + 2 > dns_wire::kMostName) return Error::make("DNS query: the name is too long");
    }
    query.type = in.be16();
    query.dns_class = in.be16();
    if (!in.ok()) return in.error("DNS query");
    query.question_end = message.size() - in.left();
    query.recursion_desired = (flags & dns_wire::kRecursionDesired) != 0;
    if (answers == 0 && authorities == 0 && others != 0 && in.u8() == 0 && in.be16() == dns_wire::kOpt)
        query.udp_size = std::max(query.udp_size, in.be16()); // 0 where the message ends before
    return query;
}

bool is_dns_answer(BytesView query, BytesView message) {
    auto asked = parse_dns_query(query);
    if (!asked || message.size() < dns_wire::kHeader) return false;
    Reader in{message};
    std::uint16_t id = in.be16(), flags = in.be16(), questions = in.be16();
    if (id != asked->id || (flags & dns_wire::kResponse) == 0 || (flags & dns_wire::kOpcode) != 0) return false;
    if (questions == 0) return (flags & dns_wire::kResultCode) != 0;
    if (questions != 1 || message.size() < asked->question_end) return false;
    auto lower = [](std::byte byte) {
        auto value = static_cast<unsigned>(byte);
        return value >= 'A' && value <= 'Z' ? value + ('a' - 'A') : value;
    };
    return std::equal(
        query.begin() + dns_wire::kHeader, query.begin() + static_cast<std::ptrdiff_t>(asked->question_end),
        message.begin() + dns_wire::kHeader, [&](std::byte a, std::byte b) { return lower(a) == lower(b); });
}

bool is_dns_truncated(BytesView message) {
    return (flags_of(message) & dns_wire::kTruncated) != 0;
}

bool is_dns_failure(BytesView message) {
    unsigned code = flags_of(message) & dns_wire::kResultCode;
    return code == 2 || code == 5;
}

void set_dns_truncated(Bytes& message) {
    if (message.size() > 2) message[2] |= std::byte{dns_wire::kTruncated >> 8};
}

void limit_dns_udp_size(Bytes& message, std::uint16_t most) {
    if (message.size() < dns_wire::kHeader + dns_wire::kOptWithoutData) return;
    Reader counts{BytesView{message}.subspan(dns_wire::kHeader - 2, 2)};
    if (counts.be16() == 0) return;
    const std::size_t at = message.size() - dns_wire::kOptWithoutData;
    Reader in{BytesView{message}.subspan(at)};
    if (in.u8() != 0 || in.be16() != dns_wire::kOpt) return;
    std::uint16_t size = in.be16();
    (void)in.u8();            // more of the result code
    if (in.u8() != 0) return; // of another version
    (void)in.be16();
    if (in.be16() != 0 || size <= most) return;
    message[at + 3] = static_cast<std::byte>(most >> 8);
    message[at + 4] = static_cast<std::byte>(most & 0xff);
}

void set_dns_id(Bytes& message, std::uint16_t id) {
    if (message.size() < 2) return;
    message[0] = static_cast<std::byte>(id >> 8);
    message[1] = static_cast<std::byte>(id & 0xff);
}

} // namespace tailrace
