#include "base/file.hpp"
#include "base/io/sealed_stream.hpp"
#include "base/io/socket.hpp"
#include "base/io/tls.hpp"
#include "base/text.hpp"
#include "tests/fakes/run_task.hpp"
#include "tests/unit/io/stream_pair.hpp"

#include <gmock/gmock.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

TEST(Reactor, RunsWorkOnTheWorkerAndComesBack) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto work = [] { return 42; };
        int answer = co_await reactor.worker(work);
        EXPECT_EQ(answer, 42);
    });
}

TEST(Event, IsRememberedAndTimesOut) {
    run_task([](Reactor& reactor) -> Task<void> {
        Event event{reactor};
        event.notify();
        bool first = co_await event.wait_for(1s);
        EXPECT_TRUE(first);
        bool second = co_await event.wait_for(1ms);
        EXPECT_FALSE(second);
        reactor.post([&event] { event.notify(); });
        bool third = co_await event.wait_for(10s);
        EXPECT_TRUE(third);
    });
}

TEST(Reactor, FreesCoroutinesThatNeverEnd) {
    Reactor reactor;
    auto wait_for_ever = [](Reactor& r) -> Task<void> {
        Event never{r};
        auto held = std::make_unique<int>(1); // a leak checker's bait
        co_await never.wait();
    };
    spawn(reactor, "waits", wait_for_ever(reactor));
    reactor.post([&] { reactor.stop(); });
    reactor.run();
}

TEST(Stream, CloseEndsAReader) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto pair = stream_pair(reactor);
        Stream& reading = *pair.first;
        reactor.post([&reading] { reading.close(); });
        std::byte buffer[10];
        auto count = co_await reading.read_some(buffer);
        EXPECT_FALSE(count);
        if (!count) EXPECT_EQ(count.error().code(), ECANCELED);
    });
}

// Every byte plus one, in records of a length byte and up to 100 bytes.
class PlusOne final : public RecordCodec {
public:
    Result<void> seal(BytesView plaintext, Bytes& out) override {
        while (!plaintext.empty()) {
            auto part = plaintext.first(std::min<std::size_t>(100, plaintext.size()));
            out.push_back(static_cast<std::byte>(part.size()));
            for (auto b : part) out.push_back(static_cast<std::byte>(std::to_integer<int>(b) + 1));
            plaintext = plaintext.subspan(part.size());
        }
        return {};
    }
    Result<void> open(BytesView arrived, Bytes& plaintext) override {
        held_.insert(held_.end(), arrived.begin(), arrived.end());
        while (!held_.empty() && held_.size() > std::to_integer<std::size_t>(held_[0])) {
            auto length = std::to_integer<long>(held_[0]);
            for (long i = 1; i <= length; ++i)
                plaintext.push_back(
                    static_cast<std::byte>(std::to_integer<int>(held_[static_cast<std::size_t>(i)]) - 1));
            held_.erase(held_.begin(), held_.begin() + length + 1);
        }
        return {};
    }

private:
    Bytes held_;
};

Task<void> write_then_close(std::unique_ptr<Stream> stream, std::string data) {
    auto done = co_await stream->write_all(as_bytes(data));
    EXPECT_TRUE(done);
}

Task<void> expect_data(Stream& stream, std::string expected) {
    std::string got;
    for (;;) {
        std::byte buffer[5000];
        auto count = co_await stream.read_some(buffer);
        if (!count || *count == 0) break;
        got += as_chars(BytesView{buffer}.first(*count));
    }
    EXPECT_EQ(got.size(), expected.size());
    EXPECT_TRUE(got == expected);
}

TEST(SealedStream, CarriesMegabytesThroughRecords) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto pair = stream_pair(reactor);
        std::unique_ptr<Stream> left =
            std::make_unique<SealedStream>(std::move(pair.first), std::make_unique<PlusOne>());
        std::unique_ptr<Stream> right =
            std::make_unique<SealedStream>(std::move(pair.second), std::make_unique<PlusOne>());
        std::string data;
        for (int i = 0; i < 3'000'000; ++i) data += static_cast<char>(i % 251);
        spawn(reactor, "writer", write_then_close(std::move(left), data));
        co_await expect_data(*right, data);
    });
}

TEST(Tcp, DialsAListenerAndSaysWhoIsThere) {
    run_task([](Reactor& reactor) -> Task<void> {
        Endpoint any{*IpAddress::parse("127.0.0.1"), 0};
        auto listener = Listener::tcp(reactor, any);
        EXPECT_TRUE(listener);
        DialOptions options;
        auto dialled = co_await dial_tcp(reactor, "127.0.0.1", listener->local().port, options);
        EXPECT_TRUE(dialled);
        auto accepted = co_await listener->accept();
        EXPECT_TRUE(accepted);
        EXPECT_EQ((*accepted)->peer().address.text(), "127.0.0.1");
    });
}

TEST(Tcp, SaysThatNobodyListens) {
    run_task([](Reactor& reactor) -> Task<void> {
        DialOptions options;
        auto dialled = co_await dial_tcp(reactor, "127.0.0.1", 1, options);
        EXPECT_FALSE(dialled);
        if (!dialled) EXPECT_EQ(dialled.error().message(), "connect to 127.0.0.1:1: Connection refused");
    });
}

TEST(UnixSocket, ReplacesADeadServersFileButNotALiveOnes) {
    std::string path = testing::TempDir() + "tailrace-io-test.sock";
    Reactor reactor;
    auto first = Listener::unix_socket(reactor, path, 0600);
    ASSERT_TRUE(first) << first.error().message();
    EXPECT_EQ(Listener::unix_socket(reactor, path, 0600).error().code(), EADDRINUSE);
    first->close(); // as if the server had been killed: the file stays
    EXPECT_TRUE(Listener::unix_socket(reactor, path, 0600));
}

Task<void> serve_tls_echo(TlsContext context, std::unique_ptr<Stream> socket) {
    auto stream = co_await tls_accept(context, std::move(socket), 5s);
    EXPECT_TRUE(stream) << stream.error().message();
    if (!stream) co_return;
    std::byte buffer[1000];
    auto count = co_await (*stream)->read_some(buffer);
    if (!count) co_return;
    (void)co_await (*stream)->write_all(BytesView{buffer}.first(*count));
}

TEST(Tls, TalksAndChecksCertificatesOnlyWhenStrict) {
    run_task([](Reactor& reactor) -> Task<void> {
        std::vector<std::string> names{"control.example", "127.0.0.1"};
        auto identity = make_self_signed(names);
        EXPECT_TRUE(identity);
        auto server = TlsContext::server(*identity);
        EXPECT_TRUE(server);
        auto lax = TlsContext::client(TlsContext::Verify::None);
        auto pair = stream_pair(reactor);
        spawn(reactor, "echo", serve_tls_echo(*server, std::move(pair.first)));
        auto client = co_await tls_connect(*lax, std::move(pair.second), "wrong.example", 5s);
        EXPECT_TRUE(client);
        auto sent = co_await (*client)->write_all(as_bytes("hello"));
        EXPECT_TRUE(sent);
        std::byte buffer[5];
        auto got = co_await (*client)->read_exactly(buffer);
        EXPECT_TRUE(got);
        EXPECT_EQ(as_chars(buffer), "hello");

        auto strict = TlsContext::client(TlsContext::Verify::Strict);
        auto other = stream_pair(reactor);
        auto hold = [](TlsContext context, std::unique_ptr<Stream> socket) -> Task<void> {
            auto refused = co_await tls_accept(context, std::move(socket), 5s);
            EXPECT_FALSE(refused);
        };
        spawn(reactor, "refused", hold(*server, std::move(other.first)));
        auto untrusted = co_await tls_connect(*strict, std::move(other.second), "control.example", 5s);
        EXPECT_FALSE(untrusted);
        if (!untrusted)
            EXPECT_EQ(untrusted.error().message(), "TLS: the certificate is not good: self-signed certificate");
    });
}

TEST(Tls, MayExpectAnotherNameThanTheHosts) {
    auto identity = make_self_signed({"certificate.example"});
    std::string authorities = ::testing::TempDir() + "tls-authorities.pem";
    ASSERT_TRUE(write_file_atomically(authorities, identity->certificate, 0600));
    ::setenv("SSL_CERT_FILE", authorities.c_str(), 1);
    auto outcome = [&](const std::string& name, const std::string& host) {
        std::string out;
        run_task([&](Reactor& reactor) -> Task<void> {
            auto accept = [](TlsContext context, std::unique_ptr<Stream> socket) -> Task<void> {
                (void)co_await tls_accept(context, std::move(socket), 5s); // the client says how it went
            };
            auto server = TlsContext::server(*identity);
            auto client = TlsContext::client(TlsContext::Verify::Strict, name);
            auto pair = stream_pair(reactor);
            spawn(reactor, "server", accept(*server, std::move(pair.first)));
            auto stream = co_await tls_connect(*client, std::move(pair.second), host, 5s);
            out = stream ? "taken" : stream.error().message();
        });
        return out;
    };
    EXPECT_EQ(outcome("", "certificate.example"), "taken");
    EXPECT_EQ(outcome("certificate.example", "relay.example"), "taken");
    EXPECT_THAT(outcome("", "relay.example"), testing::HasSubstr("hostname mismatch"));
    EXPECT_THAT(outcome("relay.example", "certificate.example"), testing::HasSubstr("hostname mismatch"));
    ::unsetenv("SSL_CERT_FILE");
    ::unlink(authorities.c_str());
}

/// What happens when a server shows `chain` and the client wants `pin` and calls it `host`.
std::string pinned_outcome(const TlsIdentity& chain, const std::string& pin, const std::string& host) {
    std::string outcome;
    run_task([&](Reactor& reactor) -> Task<void> {
        auto server = TlsContext::server(chain);
        EXPECT_TRUE(server);
        std::array<std::byte, 32> digest{};
        auto raw = hex_decode(std::string_view{pin}.substr(std::string_view{"sha256-raw:"}.size()));
        std::copy(raw->begin(), raw->end(), digest.begin());
        auto client = TlsContext::pinned(digest);
        auto pair = stream_pair(reactor);
        auto accept = [](TlsContext context, std::unique_ptr<Stream> socket) -> Task<void> {
            (void)co_await tls_accept(context, std::move(socket), 5s); // the client says how it went
        };
        spawn(reactor, "server", accept(*server, std::move(pair.first)));
        auto stream = co_await tls_connect(*client, std::move(pair.second), host, 5s);
        outcome = stream ? "taken" : stream.error().message();
    });
    return outcome;
}

TEST(TlsPin, TakesItsCertificateAndNoOther) { // derp-disco-paths.md 8, 36
    auto named = make_self_signed({"relay.example", "127.0.0.1"});
    auto other = make_self_signed({"relay.example"});
    auto derp_key = make_self_signed({"derpkey" + std::string(50, '0')});
    auto expired = make_self_signed({"relay.example"}, std::chrono::hours{-1});
    ASSERT_TRUE(named && other && derp_key && expired);
    std::string pin = *certificate_pin(named->certificate);
    using testing::HasSubstr;
    EXPECT_EQ(pinned_outcome(*named, pin, "relay.example"), "taken");
    EXPECT_EQ(pinned_outcome(*named, pin, "192.0.2.1"), "taken") << "an address sends no name, and none is checked";
    EXPECT_THAT(pinned_outcome(*named, pin, "other.example"), testing::HasSubstr("hostname mismatch"));
    EXPECT_THAT(pinned_outcome(*other, pin, "relay.example"), HasSubstr("rejected"));
    EXPECT_THAT(pinned_outcome(*expired, *certificate_pin(expired->certificate), "relay.example"),
                HasSubstr("certificate has expired"));
    TlsIdentity with_key{named->certificate + derp_key->certificate, named->key};
    EXPECT_EQ(pinned_outcome(with_key, pin, "relay.example"), "taken") << "a meta-certificate comes behind";
    TlsIdentity two{named->certificate + other->certificate, named->key};
    EXPECT_THAT(pinned_outcome(two, pin, "relay.example"), HasSubstr("chain too long"));
}

TEST(Listen, ReadsAddresses) {
    EXPECT_EQ(parse_listen_address(":8080")->text(), "[::]:8080");
    EXPECT_EQ(parse_listen_address("127.0.0.1:80")->text(), "127.0.0.1:80");
    EXPECT_FALSE(parse_listen_address("localhost:80"));
    EXPECT_FALSE(parse_listen_address(":99999"));
}

} // namespace
} // namespace tailrace
