#include "agent/dns/resolver.hpp"
#include "agent/dns/server.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

IpAddress ip(std::string_view text) {
    return *IpAddress::parse(text);
}

const WallTime kNow = WallTime::from_unix(1'800'000'000);

wire::Node dns_node(const char* name, std::vector<const char*> addresses) {
    wire::Node out;
    out.name = name;
    for (const char* address : addresses) out.addresses.push_back(IpPrefix::single(ip(address)));
    return out;
}

wire::DnsConfig magic() {
    wire::DnsConfig config;
    config.proxied = true;
    config.domains = {"tail.lab"};
    config.routes["tail.lab"];
    return config;
}

/// What an answer says.
struct Said {
    DnsResult result{};
    bool authoritative = false, soa = false;
    std::vector<std::string> answers;
};

class DnsNames : public ::testing::Test {
protected:
    wire::DnsConfig config_ = magic();
    wire::Node self_ = dns_node("alice.tail.lab.", {"100.64.0.1", "fd7a:115c:a1e0::1"});
    Prefs prefs_;
    bool aaaa_ = false, subdomains_ = false;

    DnsResolver resolver(const wire::Node* exit_node = nullptr) {
        DnsResolver::Names names;
        for (const wire::Node& node :
             {self_, dns_node("Bob.Tail.Lab.", {"100.64.0.2", "fd7a:115c:a1e0::2"}),
              dns_node("six.tail.lab.", {"fd7a:115c:a1e0::6"}), dns_node("guest.other.net.", {"100.64.0.9"})}) {
            DnsNode entry{node.name, {}, subdomains_ && node.name.starts_with("Bob")};
            for (const IpPrefix& address : node.addresses) entry.addresses.push_back(address.address());
            names.nodes.push_back(std::move(entry));
        }
        names.ipv6_beside_ipv4 = aaaa_;
        names.service = {ip("100.100.100.100"), ip("fd7a:115c:a1e0::53")};
        auto dns = effective_dns(config_, self_, prefs_, exit_node, exit_node != nullptr);
        auto defaults = dns.defaults;
        return DnsResolver{std::move(dns), std::move(names), std::move(defaults)};
    }
    Said ask(std::string name, std::uint16_t type = dns_type::kA) {
        auto query = make_dns_query(name, type, 7);
        EXPECT_TRUE(query) << name;
        auto verdict = resolver().resolve(*query, kNow);
        Said said;
        auto* bytes = std::get_if<Bytes>(&verdict);
        EXPECT_NE(bytes, nullptr) << name << " was forwarded";
        if (bytes == nullptr) return said;
        EXPECT_TRUE(is_dns_answer(*query, *bytes));
        Reader in{*bytes};
        EXPECT_EQ(in.be16(), 7);
        std::uint16_t flags = in.be16();
        EXPECT_EQ(flags & 0x8180, 0x8180) << "QR, and RA as RD was";
        said.result = static_cast<DnsResult>(flags & 0xf);
        said.authoritative = (flags & 0x400) != 0;
        (void)in.be16();
        (void)in.be16();
        said.soa = in.be16() == 1;
        auto text = parse_dns_answer(*bytes);
        EXPECT_TRUE(text) << text.error().message();
        for (const auto& record : text->answers)
            said.answers.push_back(
                fmt::format("{} {} {} {}", record.name, record.ttl_seconds, dns_type_name(record.type), record.body));
        return said;
    }
    std::vector<std::string> forwarded(std::string name, std::uint16_t type = dns_type::kA,
                                       const wire::Node* exit_node = nullptr) {
        auto verdict = resolver(exit_node).resolve(*make_dns_query(name, type, 7), kNow);
        auto* forward = std::get_if<DnsResolver::Forward>(&verdict);
        if (forward == nullptr) return {"answered here"};
        std::vector<std::string> out;
        for (const DnsUpstream& upstream : forward->upstreams) out.push_back(upstream.text());
        return out;
    }
};

TEST_F(DnsNames, NodesHaveTheirNames) {
    EXPECT_THAT(ask("bob.tail.lab").answers, ElementsAre("bob.tail.lab. 5 A 100.64.0.2"));
    EXPECT_TRUE(ask("bob.tail.lab").authoritative);
    EXPECT_THAT(ask("BOB.tail.LAB.").answers, ElementsAre("BOB.tail.LAB. 5 A 100.64.0.2")) << "as it was asked";
    EXPECT_THAT(ask("bob").answers, ElementsAre("bob. 5 A 100.64.0.2"));
    EXPECT_THAT(ask("alice").answers, ElementsAre("alice. 5 A 100.64.0.1"));
    EXPECT_THAT(ask("guest.other.net").answers, ElementsAre("guest.other.net. 5 A 100.64.0.9"));
    EXPECT_THAT(forwarded("guest"), IsEmpty()) << "short names are those of this tailnet";
    config_.proxied = false;
    EXPECT_THAT(forwarded("bob"), IsEmpty());
    EXPECT_THAT(ask("bob.tail.lab").answers, ElementsAre("bob.tail.lab. 5 A 100.64.0.2"));
}

TEST_F(DnsNames, Ipv6StandsBackBehindIpv4) {
    Said empty = ask("bob.tail.lab", dns_type::kAaaa);
    EXPECT_EQ(empty.result, DnsResult::Success);
    EXPECT_TRUE(empty.soa);
    EXPECT_THAT(empty.answers, IsEmpty());
    EXPECT_THAT(ask("six", dns_type::kAaaa).answers, ElementsAre("six. 5 AAAA fd7a:115c:a1e0::6"));
    EXPECT_THAT(ask("six").answers, IsEmpty());
    EXPECT_THAT(ask("bob", dns_type::kAny).answers, ElementsAre("bob. 5 A 100.64.0.2"));
    aaaa_ = true;
    EXPECT_THAT(ask("bob", dns_type::kAaaa).answers, ElementsAre("bob. 5 AAAA fd7a:115c:a1e0::2"));
    aaaa_ = false;
    self_.addresses.erase(self_.addresses.begin());
    EXPECT_THAT(ask("bob", dns_type::kAaaa).answers, ElementsAre("bob. 5 AAAA fd7a:115c:a1e0::2"));
    EXPECT_THAT(ask("bob").answers, IsEmpty());
}

TEST_F(DnsNames, UnknownOnesBelowTheSuffixAreNobodys) {
    Said nobody = ask("nobody.tail.lab");
    EXPECT_EQ(nobody.result, DnsResult::NxDomain);
    EXPECT_TRUE(nobody.soa);
    EXPECT_EQ(ask("x.bob.tail.lab").result, DnsResult::NxDomain);
    subdomains_ = true;
    EXPECT_THAT(ask("a.b.bob.tail.lab").answers, ElementsAre("a.b.bob.tail.lab. 5 A 100.64.0.2"));
    EXPECT_EQ(ask("x.alice.tail.lab").result, DnsResult::NxDomain);
    EXPECT_THAT(forwarded("nottail.lab"), IsEmpty());
    EXPECT_EQ(ask("foo.onion").result, DnsResult::NxDomain);
    EXPECT_FALSE(ask("foo.onion").soa);
}

TEST_F(DnsNames, OtherTypesOfRecords) {
    for (std::uint16_t type : {dns_type::kNs, dns_type::kSoa, dns_type::kAxfr, dns_type::kHinfo})
        EXPECT_EQ(ask("bob", type).result, DnsResult::NotImp) << type;
    for (std::uint16_t type : {dns_type::kTxt, dns_type::kMx, std::uint16_t{65}, std::uint16_t{9824}}) {
        Said said = ask("bob", type);
        EXPECT_EQ(said.result, DnsResult::Success) << type;
        EXPECT_THAT(said.answers, IsEmpty());
    }
}

TEST_F(DnsNames, AddressesHaveNames) {
    EXPECT_THAT(ask("2.0.64.100.in-addr.arpa", dns_type::kPtr).answers,
                ElementsAre("2.0.64.100.in-addr.arpa. 5 PTR bob.tail.lab."));
    EXPECT_THAT(ask("100.100.100.100.in-addr.arpa", dns_type::kPtr).answers,
                ElementsAre("100.100.100.100.in-addr.arpa. 5 PTR magicdns.localhost-tailscale-daemon."));
    EXPECT_THAT(ask("magicdns.localhost-tailscale-daemon").answers,
                ElementsAre("magicdns.localhost-tailscale-daemon. 5 A 100.100.100.100"));
    const std::string six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa";
    EXPECT_THAT(ask(six, dns_type::kPtr).answers, ElementsAre(six + ". 5 PTR bob.tail.lab."));
    Said unknown = ask("254.0.64.100.in-addr.arpa", dns_type::kPtr);
    EXPECT_EQ(unknown.result, DnsResult::NxDomain);
    EXPECT_TRUE(unknown.soa);
    EXPECT_THAT(forwarded("1.1.168.192.in-addr.arpa", dns_type::kPtr), IsEmpty());
    EXPECT_THAT(forwarded("1.168.192.in-addr.arpa", dns_type::kPtr), IsEmpty()) << "not well formed: somebody may know";
    Said bonjour = ask("lb._dns-sd._udp.0.1.168.192.in-addr.arpa", dns_type::kPtr);
    EXPECT_EQ(bonjour.result, DnsResult::NxDomain);
    EXPECT_FALSE(bonjour.authoritative || bonjour.soa);
}

TEST_F(DnsNames, SitesOf4via6) {
    const char* address = "10-1-1-16-via-7. 5 AAAA fd7a:115c:a1e0:b1a:0:7:a01:110";
    EXPECT_THAT(ask("10-1-1-16-via-7", dns_type::kAaaa).answers, ElementsAre(address));
    EXPECT_THAT(ask("10-1-1-16-via-0x7", dns_type::kAaaa).answers.size(), 1u);
    EXPECT_THAT(ask("10-1-1-16-via-7.foo.ts.net", dns_type::kAaaa).answers.size(), 1u);
    EXPECT_THAT(ask("10-1-1-16-via-7").answers, IsEmpty());
    EXPECT_THAT(forwarded("10-1-1-16-via-7.example.com", dns_type::kAaaa), IsEmpty());
    for (const char* no : {"10-1-1-via-7", "10-1-1-16-via-", "10-1-1-16-via-4294967296", "10-1-1-256-via-7", "via-7"})
        EXPECT_FALSE(via_address(no).valid()) << no;
}

TEST_F(DnsNames, ExtraRecordsGoBeforeNodes) {
    config_.extra_records = {{"db.corp.example", "A", "10.0.0.1"},
                             {"DB.corp.example.", "", "2001:db8::1"},
                             {"bob.tail.lab", "", "10.0.0.2"},
                             {"txt.corp.example", "TXT", "hello"},
                             {"bad.corp.example", "A", "what"}};
    EXPECT_THAT(ask("db.corp.example").answers, ElementsAre("db.corp.example. 5 A 10.0.0.1"));
    EXPECT_THAT(ask("db.corp.example", dns_type::kAaaa).answers, ElementsAre("db.corp.example. 5 AAAA 2001:db8::1"));
    EXPECT_THAT(ask("bob.tail.lab").answers, ElementsAre("bob.tail.lab. 5 A 10.0.0.2"));
    EXPECT_THAT(ask("1.0.0.10.in-addr.arpa", dns_type::kPtr).answers,
                ElementsAre("1.0.0.10.in-addr.arpa. 5 PTR db.corp.example."));
    EXPECT_EQ(ask("x.db.corp.example").result, DnsResult::NxDomain) << "it is a zone of its own";
    EXPECT_THAT(forwarded("other.corp.example"), IsEmpty());
}

TEST_F(DnsNames, TheLongestSuffixSaysWhoIsAsked) {
    config_.resolvers = {{"8.8.8.8", {}, false}, {"https://dns.example/dns-query", {}, false}};
    config_.routes["corp.example"] = {{"10.0.0.53", {}, false}};
    config_.routes["eu.Corp.example."] = {{"10.1.0.53:5353", {}, false}};
    EXPECT_THAT(forwarded("www.example"), ElementsAre("8.8.8.8"));
    EXPECT_THAT(forwarded("a.corp.example"), ElementsAre("10.0.0.53"));
    EXPECT_THAT(forwarded("corp.example"), ElementsAre("10.0.0.53"));
    EXPECT_THAT(forwarded("a.eu.corp.example"), ElementsAre("10.1.0.53:5353"));
    EXPECT_THAT(forwarded("notcorp.example"), ElementsAre("8.8.8.8"));
    auto dns = effective_dns(config_, self_, prefs_, nullptr, false);
    EXPECT_TRUE(dns.install);
    EXPECT_EQ(dns.notes.size(), 1u) << "one over TLS is named";
    prefs_.corp_dns = false;
    EXPECT_THAT(forwarded("www.example"), IsEmpty());
    EXPECT_THAT(ask("bob.tail.lab").answers.size(), 1u) << "who asks is answered all the same";
    EXPECT_FALSE(effective_dns(config_, self_, prefs_, nullptr, false).install);
}

TEST_F(DnsNames, AnExitNodeIsAskedForAllThatIsNotOurs) {
    wire::Node exit = dns_node("exit.tail.lab.", {"100.64.0.7", "fd7a:115c:a1e0::7"});
    config_.resolvers = {{"8.8.8.8", {}, false}};
    config_.routes["corp.example"] = {{"10.0.0.53", {}, false}};
    config_.fallback_resolvers = {{"9.9.9.9", {}, false}};
    EXPECT_THAT(forwarded("www.example", dns_type::kA, &exit), ElementsAre("8.8.8.8")) << "it speaks no DNS";
    exit.hostinfo.value.services = {{"peerapi4", 4000, ""}, {"peerapi6", 4001, ""}, {"peerapi-dns-proxy", 1, ""}};
    EXPECT_THAT(forwarded("www.example", dns_type::kA, &exit), ElementsAre("http://100.64.0.7:4000/dns-query"));
    EXPECT_THAT(forwarded("a.corp.example", dns_type::kA, &exit), ElementsAre("http://100.64.0.7:4000/dns-query"));
    config_.routes["corp.example"][0].use_with_exit_node = true;
    EXPECT_THAT(forwarded("a.corp.example", dns_type::kA, &exit), ElementsAre("10.0.0.53"));
    config_.resolvers[0].use_with_exit_node = true;
    EXPECT_THAT(forwarded("www.example", dns_type::kA, &exit), ElementsAre("8.8.8.8"));
    config_.resolvers.clear();
    EXPECT_THAT(effective_dns(config_, self_, prefs_, nullptr, true).defaults.at(0).text(), "9.9.9.9");
    EXPECT_THAT(effective_dns(config_, self_, prefs_, nullptr, false).defaults, IsEmpty());
}

TEST(DnsMessages, WhatMakesNoSenseIsAFormatError) {
    DnsResolver resolver{{}, {}, {}};
    Bytes query = *make_dns_query("bob", dns_type::kA, 7);
    Bytes cut{query.begin(), query.end() - 3};
    auto verdict = resolver.resolve(cut, kNow);
    const Bytes& said = std::get<Bytes>(verdict);
    ASSERT_EQ(said.size(), 12u);
    EXPECT_EQ(said[3], std::byte{1});
    Bytes response = query;
    response[2] |= std::byte{0x80};
    EXPECT_TRUE(std::get<Bytes>(resolver.resolve(response, kNow)).empty()) << "nobody asked";
    EXPECT_FALSE(make_dns_query("a..b", 1, 7));
    EXPECT_FALSE(make_dns_query(std::string(64, 'a'), 1, 7));
    EXPECT_TRUE(make_dns_query(".", 1, 7));
}

TEST(DnsMessages, UdpHasAnEnd) {
    Bytes query = *make_dns_query("bob", dns_type::kA, 7);
    auto truncated = [&](std::size_t size) {
        Bytes answer = query;
        answer.resize(size);
        Bytes fitted = fit_udp_answer(query, answer);
        EXPECT_EQ(fitted.size(), size) << "marked, and whole";
        return is_dns_truncated(fitted);
    };
    EXPECT_FALSE(truncated(512));
    EXPECT_TRUE(truncated(513));
    const Bytes opt{std::byte{0}, std::byte{0}, std::byte{41}, std::byte{0x20}, std::byte{0}, std::byte{0},
                    std::byte{0}, std::byte{0}, std::byte{0},  std::byte{0},    std::byte{0}}; // EDNS: 8192
    query.insert(query.end(), opt.begin(), opt.end());
    query[11] = std::byte{1};
    EXPECT_FALSE(truncated(8192));
    EXPECT_TRUE(truncated(8193));
    limit_dns_udp_size(query, 4095);
    EXPECT_EQ(parse_dns_query(query)->udp_size, 4095);
    limit_dns_udp_size(query, 5000);
    EXPECT_EQ(parse_dns_query(query)->udp_size, 4095);
}

TEST(DnsMessages, TypesHaveNames) {
    EXPECT_EQ(*parse_dns_type("aaaa"), 28);
    EXPECT_EQ(*parse_dns_type("TYPE65"), 65);
    EXPECT_EQ(*parse_dns_type("65"), 65);
    EXPECT_FALSE(parse_dns_type("type"));
    EXPECT_FALSE(parse_dns_type("70000"));
    EXPECT_EQ(dns_type_name(65), "TYPE65");
}

} // namespace
} // namespace tailrace
