#include "base/io/http1.hpp"
#include "base/io/proxy.hpp"
#include "tests/fakes/run_task.hpp"

#include <gtest/gtest.h>

#include <map>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

ProxySettings settings(std::map<std::string, std::string> environment) {
    return ProxySettings::read([&](const std::string& name) { return environment[name]; });
}
std::string way(const ProxySettings& settings, const std::string& host, std::uint16_t port = 443, bool tls = true) {
    auto proxy = settings.find(tls, host, port);
    if (!proxy) return proxy.error().message();
    return *proxy ? (*proxy)->text() : "directly";
}

TEST(ProxySettings, NameAProxyForEachScheme) {
    auto both = settings({{"HTTPS_PROXY", "http://p.example.com:3128"}, {"http_proxy", "p2.example.com"}});
    EXPECT_EQ(way(both, "derp.example.com"), "p.example.com:3128");
    EXPECT_EQ(way(both, "derp.example.com", 80, false), "p2.example.com:80");
    EXPECT_EQ(way(settings({}), "derp.example.com"), "directly");
    EXPECT_EQ(way(settings({{"HTTPS_PROXY", "[2001:db8::1]:8080/"}}), "derp.example.com"), "[2001:db8::1]:8080");
    for (const char* here : {"localhost", "127.0.0.1", "127.3.4.5", "::1", "LOCALHOST."})
        EXPECT_EQ(way(both, here), "directly") << here;
}

TEST(ProxySettings, ExceptNamesAddressesAndPrefixes) {
    auto some = settings({{"HTTPS_PROXY", "http://p:1"},
                          {"NO_PROXY", "a.example.com, .b.example.com,*.c.example.com ,d.example.com:8443,"
                                       "192.0.2.1,198.51.100.0/24,203.0.113.1:444,2001:db8::/32, x:y,,"}});
    for (const char* host : {"a.example.com", "A.Example.Com.", "sub.a.example.com", "sub.b.example.com",
                             "sub.c.example.com", "192.0.2.1", "198.51.100.77", "2001:db8::5"})
        EXPECT_EQ(way(some, host), "directly") << host;
    for (const char* host : {"xa.example.com", "b.example.com", "c.example.com", "d.example.com", "192.0.2.2",
                             "203.0.113.1", "2001:db9::5", "x"})
        EXPECT_EQ(way(some, host), "p:1") << host;
    EXPECT_EQ(way(some, "d.example.com", 8443), "directly");
    EXPECT_EQ(way(some, "203.0.113.1", 444), "directly");
    EXPECT_EQ(way(settings({{"HTTPS_PROXY", "http://p:1"}, {"no_proxy", "*"}}), "a"), "directly");
}

TEST(ProxySettings, SayWhatIsWrongAndNoPassword) {
    for (const char* value :
         {"socks5://p:1", "https://p:1", "http://", "http://me:secret@:x", "http://me:secret@p:0"}) {
        std::string told = way(settings({{"HTTPS_PROXY", value}}), "derp.example.com");
        EXPECT_TRUE(told.starts_with("HTTPS_PROXY ")) << told;
        EXPECT_EQ(told.find("secret"), std::string::npos) << told;
    }
    auto proxy = settings({{"HTTPS_PROXY", "HTTP://me:s%40cret@p:1"}}).find(true, "a", 1);
    ASSERT_TRUE(proxy && *proxy);
    EXPECT_EQ((*proxy)->authorization, "Basic bWU6c0BjcmV0");
    EXPECT_EQ((*proxy)->text(), "p:1");
}

/// A proxy that answers thus, and what it was asked.
struct Exchange {
    std::string answer, asked;
    bool hangs_up = false;
};
Task<void> serve_once(Listener& listener, Exchange* exchange) {
    auto stream = co_await listener.accept();
    if (!stream) co_return;
    std::byte buffer[4096];
    while (exchange->asked.find("\r\n\r\n") == std::string::npos) {
        auto got = co_await (*stream)->read_some(buffer);
        if (!got || *got == 0) co_return;
        exchange->asked += as_chars(BytesView{buffer}.first(*got));
    }
    (void)co_await (*stream)->write_all(as_bytes(exchange->answer));
    if (!exchange->hangs_up) (void)co_await (*stream)->read_some(buffer); // until the client has gone
}

std::string dial(Exchange& exchange, Duration timeout = 10s) {
    std::string out;
    run_task([&](Reactor& reactor) -> Task<void> {
        auto listener = Listener::tcp(reactor, *Endpoint::parse("127.0.0.1:0"));
        EXPECT_TRUE(listener);
        spawn(reactor, "proxy", serve_once(*listener, &exchange));
        DialOptions options;
        options.timeout = timeout;
        HttpProxy proxy{"127.0.0.1", listener->local().port, "Basic bWU6"};
        auto stream = co_await dial_through(reactor, proxy, "2001:db8::7", 443, options);
        if (stream) {
            std::byte first[5];
            auto got = co_await (*stream)->read_exactly(first);
            out = got ? std::string{as_chars(first)} : got.error().message();
        } else {
            out = stream.error().message();
            for (auto at = out.find(proxy.text()); at != std::string::npos; at = out.find(proxy.text()))
                out.replace(at, proxy.text().size(), "PROXY");
        }
    });
    return out;
}

TEST(DialThrough, ConnectsAndLosesNothingOfWhatComesBehindTheAnswer) {
    Exchange exchange{"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nhello", ""};
    EXPECT_EQ(dial(exchange), "hello");
    EXPECT_EQ(exchange.asked, "CONNECT [2001:db8::7]:443 HTTP/1.1\r\nHost: [2001:db8::7]:443\r\n"
                              "Proxy-Authorization: Basic bWU6\r\n\r\n");
}

TEST(DialThrough, SaysWhyNot) {
    const std::string asked = "proxy PROXY: CONNECT [2001:db8::7]:443: ";
    Exchange refuses{"HTTP/1.1 403 no\r\nContent-Length: 0\r\n\r\n", ""};
    EXPECT_EQ(dial(refuses), asked + "it answered 403 (Forbidden)");
    Exchange asks{"HTTP/1.1 407 who\r\n\r\n", ""};
    EXPECT_EQ(dial(asks),
              asked + "it wants another name and password, in the proxy's URL as http://NAME:PASSWORD@PROXY");
    Exchange babbles{"220 smtp.example.com\r\n\r\n", ""};
    EXPECT_TRUE(dial(babbles).starts_with(asked + "the answer is not HTTP"));
    Exchange floods{"HTTP/1.1 200 yes\r\nX: " + std::string(100'000, 'y'), ""};
    EXPECT_TRUE(dial(floods).starts_with(asked + "the answer is not HTTP"));
    Exchange leaves{"", "", true};
    EXPECT_EQ(dial(leaves), asked + "the server closed the connection without an answer");
    Exchange sleeps{"", ""};
    EXPECT_EQ(dial(sleeps, 200ms), asked + "Connection timed out");
}

} // namespace
} // namespace tailrace
