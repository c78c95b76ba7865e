#include "relay/http/pages.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace::relay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

HttpHead head_of(std::string_view text) {
    auto head = parse_request_head(text);
    EXPECT_TRUE(head && *head) << text;
    return head && *head ? **head : HttpHead{};
}
HttpHead request(std::string_view method, std::string_view target, std::string_view fields = "") {
    return head_of(fmt::format("{} {} HTTP/1.1\r\nHost: relay.example.com\r\n{}\r\n", method, target, fields));
}
PageContext context(Door door = Door::Derp) {
    PageContext out;
    out.door = door;
    out.server_key = *NodeKey::parse("nodekey:" + std::string(64, 'a'));
    return out;
}
std::string response_to(std::string_view method, std::string_view target, std::string_view fields = "",
                        Door door = Door::Derp) {
    return answer(request(method, target, fields), context(door)).response;
}

TEST(RequestHead, WaitsForItsEndAndKnowsItsSize) {
    const std::string text = "GET /derp?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade:  DERP \r\n\r\n";
    for (std::size_t size = 0; size < text.size(); ++size) {
        auto head = parse_request_head(text.substr(0, size));
        ASSERT_TRUE(head);
        EXPECT_FALSE(*head);
    }
    HttpHead head = head_of(text + "\x02\x00");
    EXPECT_EQ(head.size, text.size());
    EXPECT_EQ(head.path(), "/derp");
    EXPECT_EQ(head.get("UPGRADE"), "DERP");
    EXPECT_EQ(head_of("GET http://host/robots.txt HTTP/1.1\n\n").path(), "/robots.txt");
}

TEST(RequestHead, RefusesWhatIsNone) {
    EXPECT_FALSE(parse_request_head("\x16\x03\x01 nonsense\r\n\r\n"));
    EXPECT_FALSE(parse_request_head("GET /\r\n\r\n"));
    EXPECT_FALSE(parse_request_head("GET / HTTP/2\r\n\r\n"));
    EXPECT_FALSE(parse_request_head("GET / HTTP/1.1\r\nno colon\r\n\r\n"));
    EXPECT_FALSE(parse_request_head("GET / HTTP/1.1\r\na b: c\r\n\r\n"));
    EXPECT_FALSE(parse_request_head("GET / HTTP/1.1\r\n folded: c\r\n\r\n"));
    EXPECT_FALSE(parse_request_head(std::string(kMaxHeadBytes, 'x')));
    std::string many = "GET / HTTP/1.1\r\n";
    for (int i = 0; i < 200; ++i) many += "a: b\r\n";
    EXPECT_FALSE(parse_request_head(many + "\r\n"));
}

TEST(ResponseHead, GivesTheStatus) {
    EXPECT_EQ((*parse_response_head("HTTP/1.1 101 Switching Protocols\r\n\r\n"))->status, 101);
    EXPECT_FALSE(parse_response_head("SSH-2.0-x\r\n\r\n"));
    EXPECT_FALSE(parse_response_head("HTTP/1.1 abc\r\n\r\n"));
}

TEST(Pages, DerpNeedsAnUpgrade) {
    EXPECT_THAT(response_to("GET", "/derp"),
                AllOf(StartsWith("HTTP/1.1 426 "), HasSubstr("DERP requires connection upgrade")));
    EXPECT_THAT(response_to("GET", "/derp", "Upgrade: h2c\r\n"), StartsWith("HTTP/1.1 426 "));
    Answer up = answer(request("POST", "/derp", "upgrade: derp\r\n"), context());
    ASSERT_TRUE(up.upgrade);
    EXPECT_THAT(up.upgrade->response,
                AllOf(StartsWith("HTTP/1.1 101 Switching Protocols\r\n"), HasSubstr("Derp-Version: 2\r\n"),
                      HasSubstr("Derp-Public-Key: " + std::string(64, 'a') + "\r\n"), HasSubstr("Upgrade: DERP\r\n")));
    EXPECT_TRUE(up.upgrade->ideal);
    for (const char* line : {"GET /derp HTTP/1.0", "PUT /derp?x HTTP/1.1"}) { // only the field counts
        up = answer(head_of(fmt::format("{}\r\nUpgrade: dErP\r\nConnection: close\r\n\r\n", line)), context());
        EXPECT_TRUE(up.upgrade) << line;
    }
    EXPECT_FALSE(answer(request("GET", "/derp", "Upgrade: DERP\r\nIdeal-Node: 900a\r\n"), context()).upgrade->ideal);
}

TEST(Pages, FastStartWritesNoHttpAtAll) {
    Answer up = answer(request("GET", "/derp", "Upgrade: DERP\r\nDerp-Fast-Start: 1\r\n"), context());
    ASSERT_TRUE(up.upgrade);
    EXPECT_EQ(up.upgrade->response, "");
    up = answer(request("GET", "/derp", "Upgrade: DERP\r\nDerp-Fast-Start: true\r\n"), context());
    EXPECT_THAT(up.upgrade->response, StartsWith("HTTP/1.1 101"));
}

TEST(Pages, WebSocketNeedsItsSubprotocol) {
    const char* fields =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: chat, derp\r\n";
    Answer up = answer(request("GET", "/derp", fields), context());
    ASSERT_TRUE(up.upgrade);
    EXPECT_TRUE(up.upgrade->websocket);
    EXPECT_THAT(up.upgrade->response,
                HasSubstr("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")); // RFC 6455 1.3
    EXPECT_THAT(up.upgrade->response, Not(HasSubstr("Derp-")));
    up = answer(request("GET", "/derp", "Upgrade: websocket\r\n"), context());
    ASSERT_TRUE(up.upgrade) << "very old clients wrote that word and meant DERP";
    EXPECT_FALSE(up.upgrade->websocket);
    EXPECT_THAT(response_to("GET", "/derp", "Upgrade: websocket\r\nSec-WebSocket-Protocol: derp\r\n"),
                StartsWith("HTTP/1.1 400 "));
}

TEST(Pages, ProbesAreEmptyAndOpenToAnyOrigin) {
    for (const char* path : {"/derp/probe", "/derp/latency-check"}) {
        EXPECT_THAT(response_to("GET", path), AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("Content-Length: 0\r\n"),
                                                    HasSubstr("Access-Control-Allow-Origin: *\r\n")));
        EXPECT_THAT(response_to("HEAD", path), StartsWith("HTTP/1.1 200 "));
        EXPECT_THAT(response_to("POST", path), StartsWith("HTTP/1.1 405 "));
    }
}

TEST(Pages, CaptivePortalChallengesAreEchoedWhenLegal) {
    auto with = [](const std::string& challenge, Door door) {
        return response_to("GET", "/generate_204", "X-Tailscale-Challenge: " + challenge + "\r\n", door);
    };
    for (Door door : {Door::Derp, Door::HttpOnly}) {
        EXPECT_THAT(
            with("ts_a.B-1:2", door),
            AllOf(StartsWith("HTTP/1.1 204 "), HasSubstr("X-Tailscale-Response: response ts_a.B-1:2\r\n"),
                  HasSubstr("Cache-Control: no-cache, no-store, must-revalidate, no-transform, max-age=0\r\n")));
        EXPECT_THAT(with(std::string(64, 'x'), door), HasSubstr("X-Tailscale-Response"));
        EXPECT_THAT(with(std::string(65, 'x'), door), Not(HasSubstr("X-Tailscale-Response")));
        EXPECT_THAT(with("a b", door), Not(HasSubstr("X-Tailscale-Response")));
    }
}

TEST(Pages, EverythingElse) {
    EXPECT_THAT(response_to("GET", "/robots.txt"), HasSubstr("User-agent: *\nDisallow: /\n"));
    EXPECT_THAT(response_to("GET", "/bootstrap-dns?q=x"),
                AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("application/json"), HasSubstr("Content-Length: 0\r\n")));
    EXPECT_THAT(response_to("GET", "/no/such/page"), AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("<h1>DERP</h1>")));
    EXPECT_THAT(response_to("GET", "/"), HasSubstr("Strict-Transport-Security"));
    EXPECT_THAT(response_to("CONNECT", "example.com:443"), StartsWith("HTTP/1.1 404 "));
    PageContext tls = context();
    tls.tls = true;
    EXPECT_THAT(answer(request("CONNECT", "example.com:443"), tls).response, StartsWith("HTTP/1.1 403 "));
}

TEST(Pages, MetricsAreForNeighbours) {
    EXPECT_THAT(response_to("GET", "/metrics"), StartsWith("HTTP/1.1 403 "));
    PageContext near = context();
    near.peer_may_debug = true;
    EXPECT_TRUE(answer(request("GET", "/metrics"), near).wants_metrics);
    EXPECT_TRUE(answer(request("GET", "/metrics"), context(Door::Metrics)).wants_metrics);
    EXPECT_THAT(response_to("GET", "/health", "", Door::Metrics), HasSubstr("ok"));
    EXPECT_THAT(response_to("GET", "/derp", "Upgrade: DERP\r\n", Door::Metrics), StartsWith("HTTP/1.1 404 "));
}

TEST(Pages, PlainHttpPointsToHttps) {
    EXPECT_THAT(response_to("GET", "/a?b", "", Door::HttpOnly),
                AllOf(StartsWith("HTTP/1.1 302 "), HasSubstr("Location: https://relay.example.com/a?b\r\n")));
    EXPECT_THAT(response_to("POST", "/a", "", Door::HttpOnly),
                AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("Use HTTPS")));
    EXPECT_FALSE(answer(request("GET", "/derp", "Upgrade: DERP\r\n"), context(Door::HttpOnly)).upgrade);
}

} // namespace
} // namespace tailrace::relay
