#include "agent/peerapi/peer_api.hpp"
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
        PeerApi api{reactor, [&](const IpAddress&) -> std::optional<PeerApiCaller> {
                        if (!known) return std::nullopt;
                        return PeerApiCaller{"bob", "Bob"};
                    }};
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

} // namespace
