#include "proto/dns_message.hpp"
#include "proto/dns_wire.hpp"

#include "base/text.hpp"

#include <arpa/nameser.h>
#include <resolv.h>

#include <array>
#include <utility>

namespace tailrace {
namespace {

constexpr std::size_t kMostAnswers = 256; // in an answer that people look at

constexpr std::pair<const char*, std::uint16_t> kDnsTypeNames[] = {
    {"A", dns_type::kA},       {"NS", dns_type::kNs},       {"CNAME", dns_type::kCname}, {"SOA", dns_type::kSoa},
    {"PTR", dns_type::kPtr},   {"HINFO", dns_type::kHinfo}, {"MX", dns_type::kMx},       {"TXT", dns_type::kTxt},
    {"AAAA", dns_type::kAaaa}, {"SRV", dns_type::kSrv},     {"AXFR", dns_type::kAxfr},   {"ANY", dns_type::kAny}};

Result<void> write_name(Writer& out, std::string_view name) {
    if (!name.empty() && name.back() == '.') name.remove_suffix(1);
    if (name.size() + 2 > dns_wire::kMostName) return Error::make("\"{}\" is too long for a name", name);
    for (std::string_view label : split(name, '.')) {
        if (name.empty()) break; // the root
        if (label.empty() || label.size() > dns_wire::kMostLabel)
            return Error::make("\"{}\" is no name: between dots stand 1 to {} characters", name, dns_wire::kMostLabel);
        out.u8(static_cast<std::uint8_t>(label.size()));
        out.text(label);
    }
    out.u8(0);
    return {};
}

/// The rest of a record: its length, and what `write` writes.
template <typename Write>
Result<void> write_data(Writer& out, Write write) {
    Writer data;
    if (Result<void> done = write(data); !done) return done;
    out.be16(static_cast<std::uint16_t>(data.view().size()));
    out.bytes(data.view());
    return {};
}

Result<void> write_record(Writer& out, const DnsReply& reply) {
    out.be16(dns_wire::kPointer | dns_wire::kHeader); // the name in the question
    out.be16(reply.address ? (reply.address->is_v6() ? dns_type::kAaaa : dns_type::kA) : dns_type::kPtr);
    out.be16(dns_wire::kInternet);
    out.be32(kDnsTtlSeconds);
    return write_data(out, [&](Writer& data) -> Result<void> {
        if (!reply.address) return write_name(data, reply.pointer);
        data.bytes(reply.address->bytes());
        return {};
    });
}

Result<void> write_soa(Writer& out, const DnsReply& reply) {
    if (auto named = write_name(out, reply.zone); !named) return named;
    out.be16(dns_type::kSoa);
    out.be16(dns_wire::kInternet);
    out.be32(kDnsNegativeTtlSeconds);
    return write_data(out, [&](Writer& data) -> Result<void> {
        for (int i = 0; i < 2; ++i) // who serves it, and who is responsible
            if (auto named = write_name(data, reply.zone); !named) return named;
        data.be32(reply.serial);
        for (int i = 0; i < 4; ++i) data.be32(kDnsNegativeTtlSeconds); // refresh, retry, expire, minimum
        return {};
    });
}

/// A name in a message, which may point back. `at` goes behind it.
Result<std::string> read_name(BytesView message, std::size_t& at) {
    char text[NS_MAXDNAME];
    const unsigned char* begin = as_uchars(message);
    int length = at < message.size()
                     ? ::dn_expand(begin, begin + message.size(), begin + at, text, static_cast<int>(sizeof text))
                     : -1;
    if (length < 0) return Error::make("DNS answer: a name is cut or goes in circles");
    at += static_cast<std::size_t>(length);
    return std::string{text} + ".";
}

std::string printable(BytesView text) {
    std::string out;
    for (char c : as_chars(text)) {
        if (c == '"' || c == '\\') out += '\\';
        if (c < 0x20 || c == 0x7f)
            out += fmt::format("\\{:03}", static_cast<unsigned char>(c));
        else
            out += c;
    }
    return out;
}

/// What a record says. `at` is where its data begins in the message, for names in it.
Result<std::string> read_body(BytesView message, std::size_t at, std::size_t size, std::uint16_t type) {
    BytesView data = message.subspan(at, size);
    Reader in{data};
    auto name_after = [&](std::size_t skip) {
        std::size_t where = at + skip;
        return read_name(message.first(at + size), where);
    };
    switch (type) {
    case dns_type::kA:
    case dns_type::kAaaa: {
        IpAddress address = IpAddress::from_bytes(data);
        if (!address.valid() || address.is_v6() != (type == dns_type::kAaaa))
            return Error::make("DNS answer: an address of {} bytes", size);
        return address.text();
    }
    case dns_type::kNs:
    case dns_type::kCname:
    case dns_type::kPtr:
        return name_after(0);
    case dns_type::kMx: {
        auto host = name_after(2);
        if (!host) return host;
        return fmt::format("{} {}", in.be16(), *host);
    }
    case dns_type::kSrv: {
        auto host = name_after(6);
        if (!host) return host;
        auto priority = in.be16(), weight = in.be16(), port = in.be16();
        return fmt::format("{} {} {} {}", priority, weight, port, *host);
    }
    case dns_type::kTxt: {
        std::string out;
        while (in.left() > 0) {
            BytesView piece = in.bytes(in.u8());
            if (!in.ok()) return in.error("DNS answer, TXT");
            out += fmt::format("{}\"{}\"", out.empty() ? "" : " ", printable(piece));
        }
        return out;
    }
    case dns_type::kSoa: {
        std::size_t where = at;
        auto server = read_name(message.first(at + size), where);
        if (!server) return server;
        auto person = read_name(message.first(at + size), where);
        if (!person) return person;
        Reader numbers{message.subspan(where, at + size - where)};
        std::string out = *server + " " + *person;
        for (int i = 0; i < 5; ++i) out += fmt::format(" {}", numbers.be32());
        if (!numbers.ok()) return numbers.error("DNS answer, SOA");
        return out;
    }
    default:
        return fmt::format("\\# {} {}", size, hex_encode(data)); // RFC 3597 5
    }
}

} // namespace

Bytes write_dns_reply(BytesView message, const DnsReply& reply) {
    auto query = parse_dns_query(message);
    if (!query) return write_dns_format_error(message);
    const bool has_record = reply.address || !reply.pointer.empty();
    Writer record, soa;
    DnsResult result = reply.result;
    bool written = !has_record || write_record(record, reply);
    written = written && (reply.zone.empty() || write_soa(soa, reply));
    if (!written) result = DnsResult::ServFail; // a name of the tailnet that DNS cannot say
    Writer out;
    out.be16(query->id);
    std::uint16_t flags = dns_wire::kResponse | static_cast<std::uint16_t>(result);
    if (reply.authoritative) flags |= dns_wire::kAuthoritative;
    if (query->recursion_desired) flags |= dns_wire::kRecursionDesired | dns_wire::kRecursionAvailable;
    out.be16(flags);
    out.be16(1);
    out.be16(written && has_record);
    out.be16(written && !reply.zone.empty());
    out.be16(0);
    out.bytes(message.subspan(dns_wire::kHeader, query->question_end - dns_wire::kHeader));
    if (written) out.bytes(record.view());
    if (written) out.bytes(soa.view());
    return out.take();
}

Bytes write_dns_format_error(BytesView message) {
    Reader in{message};
    std::uint16_t id = in.be16(), flags = in.be16();
    if (message.size() < dns_wire::kHeader || (flags & dns_wire::kResponse) != 0) return {}; // nobody asked
    Writer out;
    out.be16(id);
    out.be16(static_cast<std::uint16_t>(dns_wire::kResponse |
                                        (flags & (dns_wire::kOpcode | dns_wire::kRecursionDesired)) |
                                        static_cast<std::uint16_t>(DnsResult::FormErr)));
    for (int i = 0; i < 4; ++i) out.be16(0);
    return out.take();
}

Result<Bytes> make_dns_query(std::string_view name, std::uint16_t type, std::uint16_t id) {
    Writer out;
    out.be16(id);
    out.be16(dns_wire::kRecursionDesired);
    for (std::uint16_t count : {1, 0, 0, 0}) out.be16(count);
    if (auto named = write_name(out, name); !named) return named.error();
    out.be16(type);
    out.be16(dns_wire::kInternet);
    return out.take();
}

Result<std::uint16_t> parse_dns_type(std::string_view text) {
    for (const auto& [name, number] : kDnsTypeNames)
        if (equals_ignoring_case(name, text)) return number;
    std::string_view digits = text;
    if (digits.size() > 4 && equals_ignoring_case(digits.substr(0, 4), "type")) digits.remove_prefix(4);
    auto number = parse_number<std::uint16_t>(digits);
    if (!number)
        return Error::make("\"{}\" is no type of DNS records that is known here; others are written as TYPE65", text);
    return *number;
}

std::string dns_type_name(std::uint16_t type) {
    for (const auto& [name, number] : kDnsTypeNames)
        if (number == type) return name;
    return fmt::format("TYPE{}", type);
}

Result<DnsAnswerText> parse_dns_answer(BytesView message) {
    Reader in{message};
    (void)in.be16();
    std::uint16_t flags = in.be16(), questions = in.be16(), answers = in.be16();
    if (message.size() < dns_wire::kHeader || (flags & dns_wire::kResponse) == 0)
        return Error::make("DNS answer: this is none");
    DnsAnswerText out;
    out.result = flags & 0xf;
    std::size_t at = dns_wire::kHeader;
    for (std::uint16_t i = 0; i < questions; ++i) {
        if (auto name = read_name(message, at); !name) return name.error();
        at += 4;
    }
    if (answers > kMostAnswers) return Error::make("DNS answer: {} records are too many", answers);
    for (std::uint16_t i = 0; i < answers; ++i) {
        DnsRecordText record;
        auto name = read_name(message, at);
        if (!name) return name.error();
        record.name = *name;
        Reader head{message.subspan(at)};
        record.type = head.be16();
        record.dns_class = head.be16();
        record.ttl_seconds = head.be32();
        std::size_t size = head.be16();
        if (!head.ok() || size > head.left()) return Error::make("DNS answer: ends after {} bytes", message.size());
        at = message.size() - head.left();
        auto body = read_body(message, at, size, record.type);
        if (!body) return body.error();
        record.body = *body;
        at += size;
        out.answers.push_back(std::move(record));
    }
    return out;
}

} // namespace tailrace
