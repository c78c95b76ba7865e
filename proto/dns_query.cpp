#include "proto/dns_query.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::size_t kHeader = 12;
constexpr std::size_t kMostName = 255; // RFC 1035 2.3.4, with the length bytes
constexpr unsigned kMostLabel = 63;
constexpr std::uint16_t kResponse = 0x8000, kTruncated = 0x0200, kOpcode = 0x7800, kResultCode = 0x000f;

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
    (void)in.bytes(kHeader - 6); // answers, authorities, others: EDNS is one of them
    if (!in.ok()) return in.error("DNS query");
    if ((flags & kResponse) != 0 || (flags & kOpcode) != 0) return Error::make("DNS query: this is none");
    if (questions != 1) return Error::make("DNS query: {} questions, and one is answered", questions);
    for (unsigned length = in.u8(); length != 0; length = in.u8()) {
        if (length > kMostLabel) return Error::make("DNS query: a part of the name with length {}", length);
        if (!query.name.empty()) query.name += '.';
        query.name += as_chars(in.bytes(length));
        if (!in.ok()) return in.error("DNS query");
        if (query.name.size() + 2 > kMostName) return Error::make("DNS query: the name is too long");
    }
    query.type = in.be16();
    query.dns_class = in.be16();
    if (!in.ok()) return in.error("DNS query");
    query.question_end = message.size() - in.left();
    return query;
}

bool is_dns_answer(BytesView query, BytesView message) {
    auto asked = parse_dns_query(query);
    if (!asked || message.size() < kHeader) return false;
    Reader in{message};
    std::uint16_t id = in.be16(), flags = in.be16(), questions = in.be16();
    if (id != asked->id || (flags & kResponse) == 0 || (flags & kOpcode) != 0) return false;
    if (questions == 0) return (flags & kResultCode) != 0;
    if (questions != 1 || message.size() < asked->question_end) return false;
    auto lower = [](std::byte byte) {
        auto value = static_cast<unsigned>(byte);
        return value >= 'A' && value <= 'Z' ? value + ('a' - 'A') : value;
    };
    return std::equal(query.begin() + kHeader, query.begin() + static_cast<std::ptrdiff_t>(asked->question_end),
                      message.begin() + kHeader, [&](std::byte a, std::byte b) { return lower(a) == lower(b); });
}

bool is_dns_truncated(BytesView message) {
    return (flags_of(message) & kTruncated) != 0;
}

void set_dns_id(Bytes& message, std::uint16_t id) {
    if (message.size() < 2) return;
    message[0] = static_cast<std::byte>(id >> 8);
    message[1] = static_cast<std::byte>(id & 0xff);
}

} // namespace tailrace
