#include "agent/peerapi/dns_proxy.hpp"
#include "agent/peerapi/peer_api.hpp"
#include "proto/dns_query.hpp"
#include "tests/fakes/run_task.hpp"

#include <gmock/gmock.h>

using namespace tailrace;
using ::testing::HasSubstr;
using ::testing::Not;

namespace {

const std::vector<IpAddress> kOwn{*IpAddress::parse("100.64.0.1"), *IpAddress::parse("fd7a:115c:a1e0::1")};

HttpRequest request(std::string authority, std::string target = "/") {
    HttpRequest out;
    out.authority = std::move(authority);
    out.target = std::move(target);
    return out;
}

TEST(PeerApiTest, TakesThePortThatFollowsFromTheAddress) {
    // zlib's crc32 of 65 66 67 ("ABC") is 0xa3830348.
    EXPECT_EQ(peer_api_port(*IpAddress::parse("100.65.66.67"), 0), 32768 | 0x0348);
    EXPECT_NE(peer_api_port(*IpAddress::parse("100.65.66.67"), 1), 32768 | 0x0348);
    EXPECT_EQ(peer_api_port(*IpAddress::parse("fd7a:115c:a1e0::41:4243"), 0), 32768 | 0x0348);
}

TEST(PeerApiTest, SaysHello) {
    for (const char* host : {"peer", "100.64.0.1:33000", "[fd7a:115c:a1e0::1]:33000"}) {
        HttpResponse response = answer_peer(request(host), {"bob.tail.lab.", "Bob <b>"}, kOwn);
        EXPECT_EQ(response.status, 200) << host;
        EXPECT_THAT(response.body, HasSubstr("Hello Bob &lt;b&gt;, you come from bob.tail.lab."));
    }
    EXPECT_EQ(answer_peer(request("peer", "/v0/env"), {}, kOwn).status, 404);
}

TEST(PeerApiTest, RefusesBrowsersThatWereLedHere) {
    EXPECT_EQ(answer_peer(request("evil.example:33000"), {}, kOwn).status, 403);
    EXPECT_EQ(answer_peer(request("100.64.0.2:33000"), {}, kOwn).status, 403);
    EXPECT_EQ(answer_peer(request(""), {}, kOwn).status, 403);
    HttpRequest led = request("peer");
    led.headers.add("Origin", "http://evil.example");
    EXPECT_EQ(answer_peer(led, {}, kOwn).status, 403);
    led = request("peer");
    led.headers.add("Referer", "http://evil.example/");
    EXPECT_EQ(answer_peer(led, {}, kOwn).status, 403);
}

TEST(PeerApiTest, AnswersPeersAndNobodyElse) {
    run_task([](Reactor& reactor) -> Task<void> {
        IpAddress loopback = *IpAddress::parse("127.0.0.1");
        bool known = true;
        PeerApi api{reactor,
                    [&](const IpAddress&) -> std::optional<PeerApiCaller> {
                        if (!known) return std::nullopt;
                        return PeerApiCaller{"bob", "Bob"};
                    },
                    [](const IpAddress&) { return false; },
                    [](Bytes query) -> Task<Result<Bytes>> { co_return query; }};
        EXPECT_TRUE(api.set_addresses({loopback}));
        EXPECT_FALSE(api.set_addresses({loopback}));
        EXPECT_NE(api.port4(), 0);
        EXPECT_EQ(api.port6(), 0);
        Endpoint at{loopback, api.port4()};
        auto answered = co_await ask_peer_api(reactor, at, std::chrono::seconds{10});
        EXPECT_TRUE(answered) << answered.error().message();
        known = false;
        EXPECT_FALSE(co_await ask_peer_api(reactor, at, std::chrono::seconds{10}));
        EXPECT_TRUE(api.set_addresses({}));
        EXPECT_EQ(api.port4(), 0);
        EXPECT_FALSE(co_await ask_peer_api(reactor, at, std::chrono::seconds{10}));
    });
}

/// "www.example.com" A, recursion desired, ID 0, as in RFC 8484 4.1.1.
constexpr const char* kQuery64 = "AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";

HttpRequest dns_request(const char* query = kQuery64) {
    return request("peer", std::string{"/dns-query?dns="} + query);
}

TEST(DnsProxy, TakesQuestionsInBothForms) {
    auto got = dns_message_of(dns_request());
    ASSERT_TRUE(std::holds_alternative<Bytes>(got));
    Bytes message = std::get<Bytes>(got);
    EXPECT_EQ(message.size(), 33u);
    EXPECT_EQ(parse_dns_query(message)->name, "www.example.com");
    HttpRequest post = request("peer", "/dns-query");
    post.method = "POST";
    post.body = as_chars(message);
    EXPECT_EQ(std::get<HttpResponse>(dns_message_of(post)).status, 400) << "without the type";
    post.headers.add("Content-Type", "application/dns-message");
    EXPECT_EQ(std::get<Bytes>(dns_message_of(post)), message);
    EXPECT_TRUE(is_dns_request(post));
    EXPECT_FALSE(is_dns_request(request("peer", "/dns-query/x")));
}

TEST(DnsProxy, RefusesWhatIsNoQuestion) {
    HttpRequest put = dns_request();
    put.method = "PUT";
    for (const HttpRequest& bad : {put, request("peer", "/dns-query"), dns_request("A+/="), dns_request("AAAA"),
                                   dns_request("AACBAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB")}) // a response
        EXPECT_EQ(std::get<HttpResponse>(dns_message_of(bad)).status, 400) << bad.method << " " << bad.target;
}

TEST(DnsProxy, FindsTheResolversOfTheHost) {
    const char* text =
        "# nameserver 192.0.2.1\nsearch lan\nnameserver 100.100.100.100\n nameserver\t192.0.2.53 \n"
        "nameservers 192.0.2.2\nnameserver fe80::1%eth0\nnameserver 2001:db8::53\nnameserver 192.0.2.54\n"
        "nameserver 192.0.2.55\nnameserver\n";
    EXPECT_THAT(nameservers_in(text), testing::ElementsAre("100.100.100.100", "192.0.2.53", "fe80::1%eth0",
                                                           "2001:db8::53", "192.0.2.54", "192.0.2.55"));
    std::vector<std::string> asked;
    for (const Endpoint& one : resolvers_in(text)) asked.push_back(one.text());
    EXPECT_THAT(asked, testing::ElementsAre("192.0.2.53:53", "[2001:db8::53]:53", "192.0.2.54:53"));
}

} // namespace
