#include "base/io/http1.hpp"
#include "base/io/http2.hpp"
#include "tests/fakes/run_task.hpp"
#include "tests/unit/io/stream_pair.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

Task<HttpResponse> echo(HttpRequest request) {
    if (request.path() == "/upgrade" || request.path() == "/silent-upgrade") {
        HttpResponse response;
        response.status = request.path() == "/upgrade" ? 101 : 0;
        response.headers.add("Upgrade", "echo");
        response.headers.add("Connection", "upgrade");
        response.upgrade = [](std::unique_ptr<Stream> stream) -> Task<void> {
            std::byte buffer[5];
            auto got = co_await stream->read_exactly(buffer);
            EXPECT_TRUE(got);
            (void)co_await stream->write_all(buffer);
        };
        co_return response;
    }
    if (request.path() == "/stream") {
        HttpResponse response;
        response.stream = [](BodyWriter& writer) -> Task<void> {
            for (int i = 0; i < 3; ++i) (void)co_await writer.write("piece\n");
        };
        co_return response;
    }
    co_return HttpResponse::text(200,
                                 request.method + " " + request.path() + " " + request.query("v") + " " + request.body);
}

Task<std::string> raw_exchange(Reactor& reactor, std::string sent) {
    auto pair = stream_pair(reactor);
    Http1ServerOptions options;
    options.body_limit_bytes = 1000;
    spawn(reactor, "server", serve_http1(std::move(pair.first), echo, options));
    (void)co_await pair.second->write_all(as_bytes(sent));
    ::shutdown(pair.second->descriptor().fd(), SHUT_WR);
    std::string got;
    for (;;) {
        std::byte buffer[4096];
        auto count = co_await pair.second->read_some(buffer);
        if (!count || *count == 0) break;
        got += as_chars(BytesView{buffer}.first(*count));
    }
    co_return got;
}

TEST(Http1, AnswersAndKeepsTheConnection) {
    run_task([](Reactor& reactor) -> Task<void> {
        std::string sent =
            "GET /key?v=131 HTTP/1.1\r\nHost: a\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        auto got = co_await raw_exchange(reactor, sent);
        EXPECT_NE(got.find("GET /key 131 "), std::string::npos) << got;
        EXPECT_NE(got.find("POST /x  abc"), std::string::npos) << got;
    });
}

TEST(Http1, RefusesWhatIsMalformedOrTooLarge) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto bad = co_await raw_exchange(reactor, "NONSENSE\r\n\r\n");
        EXPECT_EQ(bad.substr(0, 12), "HTTP/1.1 400");
        auto large = co_await raw_exchange(reactor, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n");
        EXPECT_EQ(large.substr(0, 12), "HTTP/1.1 413");
        auto head = co_await raw_exchange(reactor, "GET / HTTP/1.1\r\nX: " + std::string(40000, 'x') + "\r\n\r\n");
        EXPECT_EQ(head.substr(0, 12), "HTTP/1.1 431");
    });
}

TEST(Http1, UpgradeKeepsBytesSentRightBehindTheHead) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto got = co_await raw_exchange(reactor, "POST /upgrade HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: "
                                                  "upgrade\r\nContent-Length: 0\r\n\r\nhello");
        EXPECT_EQ(got.substr(0, 12), "HTTP/1.1 101");
        EXPECT_EQ(got.substr(got.size() - 5), "hello");
    });
}

TEST(Http1, AnUpgradeMayDoWithoutAHead) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto got = co_await raw_exchange(reactor, "GET /silent-upgrade HTTP/1.1\r\nHost: a\r\n\r\nhello");
        EXPECT_EQ(got, "hello");
    });
}

TEST(Http1, ClientReadsChunksAndUpgrades) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto pair = stream_pair(reactor);
        Http1ServerOptions options;
        spawn(reactor, "server", serve_http1(std::move(pair.first), echo, options));
        Http1Client client{std::move(pair.second)};
        HttpRequest get;
        get.target = "/stream";
        get.authority = "a";
        auto streamed = co_await client.request(get, 1000);
        EXPECT_TRUE(streamed);
        if (streamed) EXPECT_EQ(streamed->body, "piece\npiece\npiece\n");
        HttpRequest upgrade;
        upgrade.method = "POST";
        upgrade.target = "/upgrade";
        upgrade.authority = "a";
        auto answer = co_await client.start(upgrade);
        EXPECT_TRUE(answer);
        EXPECT_EQ(answer->status, 101);
        auto stream = client.take_stream();
        (void)co_await stream->write_all(as_bytes("12345"));
        std::byte buffer[5];
        auto got = co_await stream->read_exactly(buffer);
        EXPECT_TRUE(got);
        EXPECT_EQ(as_chars(buffer), "12345");
    });
}

// ---- HTTP/2

Task<void> answer2(std::shared_ptr<Http2Exchange> exchange) {
    const auto& request = exchange->request();
    if (request.path() == "/stream") {
        (void)exchange->start(200, {});
        for (int i = 0; i < 20; ++i) {
            auto piece = std::make_shared<const std::string>(std::string(300'000, static_cast<char>('a' + i)));
            auto done = co_await exchange->write(piece);
            EXPECT_TRUE(done);
        }
        exchange->end();
        co_return;
    }
    auto response =
        HttpResponse::text(200, request.method + " " + request.path() + " " + request.authority + " " + request.body);
    (void)co_await exchange->respond(std::move(response));
}

std::shared_ptr<Http2Client> http2_pair(Reactor& reactor) {
    auto pair = stream_pair(reactor);
    Http2Options options;
    options.body_limit_bytes = 100'000;
    auto serve = [](std::unique_ptr<Stream> stream, Http2Options o) -> Task<void> {
        (void)co_await serve_http2(std::move(stream), answer2, o);
    };
    spawn(reactor, "server", serve(std::move(pair.first), options));
    return Http2Client::start(std::move(pair.second), Http2Options{});
}

TEST(Http2, AnswersGetWithABodyAndAnyAuthority) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto client = http2_pair(reactor);
        HttpRequest request;
        request.target = "/machine/tka/bootstrap";
        request.authority = "unused";
        request.scheme = "http";
        request.body = "{}";
        auto answer = co_await client->request(request);
        EXPECT_TRUE(answer);
        auto body = co_await (*answer)->read_all(1000);
        EXPECT_EQ(*body, "GET /machine/tka/bootstrap unused {}");
    });
}

TEST(Http2, StreamsBeyondTheWindowWithoutLosingAByte) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto client = http2_pair(reactor);
        HttpRequest request;
        request.target = "/stream";
        auto answer = co_await client->request(request);
        EXPECT_TRUE(answer);
        auto body = co_await (*answer)->read_all(10'000'000);
        EXPECT_TRUE(body);
        EXPECT_EQ(body->size(), 6'000'000U);
        EXPECT_EQ(body->back(), 'a' + 19);
    });
}

TEST(Http2, ServesManyStreamsAtOnceAndRefusesLargeBodies) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto client = http2_pair(reactor);
        std::vector<std::shared_ptr<Http2Answer>> answers;
        for (int i = 0; i < 150; ++i) {
            HttpRequest request;
            request.method = "POST";
            request.target = "/n";
            request.body = std::to_string(i);
            auto answer = co_await client->request(request);
            EXPECT_TRUE(answer);
            if (answer) answers.push_back(*answer);
        }
        auto last = co_await answers.back()->read_all(1000);
        EXPECT_EQ(*last, "POST /n  149");
        HttpRequest large;
        large.method = "POST";
        large.target = "/n";
        large.body = std::string(200'000, 'x');
        auto refused = co_await client->request(large);
        EXPECT_TRUE(refused);
        if (refused) EXPECT_EQ((*refused)->status(), 413);
    });
}

TEST(Http2, RequestsEndWhenTheConnectionDoes) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto pair = stream_pair(reactor);
        auto client = Http2Client::start(std::move(pair.second), Http2Options{});
        Stream& server = *pair.first;
        reactor.post([&server] { server.close(); });
        HttpRequest request;
        auto answer = co_await client->request(request);
        EXPECT_FALSE(answer);
    });
}

TEST(Url, ReadsHostsAndPorts) {
    auto url = Url::parse("http://203.0.113.1:8080");
    EXPECT_EQ(url->port, 8080);
    EXPECT_EQ(url->authority(), "203.0.113.1:8080");
    EXPECT_EQ(Url::parse("https://control.example/x?y#z")->target, "/x?y");
    EXPECT_EQ(Url::parse("https://[2001:db8::1]:8443/")->authority(), "[2001:db8::1]:8443");
    EXPECT_FALSE(Url::parse("control.example"));
    EXPECT_FALSE(Url::parse("ftp://a"));
    EXPECT_FALSE(Url::parse("http://"));
    EXPECT_FALSE(Url::parse("http://a:0"));
}

} // namespace
} // namespace tailrace
