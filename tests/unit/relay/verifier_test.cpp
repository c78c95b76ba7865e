// The question to control, against a server of our own on loopback.
#include "base/io/http1.hpp"
#include "base/io/socket.hpp"
#include "relay/server/verifier.hpp"

#include <gtest/gtest.h>

namespace tailrace::relay {
namespace {

using namespace std::chrono_literals;

class VerifierTest : public ::testing::Test {
protected:
    Task<void> serve(std::shared_ptr<Listener> listener) {
        for (;;) {
            auto stream = co_await listener->accept();
            if (!stream) co_return;
            HttpHandler handler = [this](HttpRequest request) -> Task<HttpResponse> {
                asked.push_back(request.method + " " + request.target + " " + request.body);
                co_return answer;
            };
            if (tls)
                spawn(reactor, "serve", serve_tls(std::move(*stream), handler));
            else
                spawn(reactor, "serve", serve_http1(std::move(*stream), handler, {}));
        }
    }
    Task<void> serve_tls(std::unique_ptr<Stream> socket, HttpHandler handler) {
        auto stream = co_await tls_accept(*tls, std::move(socket), 5s);
        if (stream) co_await serve_http1(std::move(*stream), handler, {});
    }
    Url start_server() {
        auto made = Listener::tcp(reactor, *Endpoint::parse("127.0.0.1:0"));
        EXPECT_TRUE(made);
        listener = std::make_shared<Listener>(std::move(*made));
        spawn(reactor, "listen", serve(listener));
        return *Url::parse(fmt::format("{}://{}/verify", tls ? "https" : "http", listener->local().text()));
    }
    Task<bool> ask(Verifier& verifier) {
        auto answered = std::make_shared<Event>(reactor);
        auto out = std::make_shared<bool>(false);
        verifier.ask(key, *IpAddress::parse("192.0.2.7"), [answered, out](bool allowed) {
            *out = allowed;
            answered->notify();
        });
        bool in_time = co_await answered->wait_for(10s);
        EXPECT_TRUE(in_time);
        co_return *out;
    }
    void run(Task<void> story) {
        auto whole = [](Reactor& one, Task<void> told) -> Task<void> {
            co_await std::move(told);
            one.stop();
        };
        spawn(reactor, "story", whole(reactor, std::move(story)));
        reactor.run();
    }

    Reactor reactor;
    std::vector<std::unique_ptr<Verifier>> verifiers; // their lanes run as long as the reactor
    std::optional<TlsContext> tls;                    ///< of the server
    std::shared_ptr<Listener> listener;
    std::vector<std::string> asked;
    HttpResponse answer = HttpResponse::json(200, R"({"Allow":true})");
    NodeKey key = *NodeKey::parse("nodekey:" + std::string(64, 'a'));
};

TEST_F(VerifierTest, AsksAsTheReferenceDoesAndTakesTheAnswer) {
    Verifier::Options options;
    options.url = start_server();
    auto verifier = Verifier::create(reactor, options);
    ASSERT_TRUE(verifier);
    auto story = [&]() -> Task<void> {
        for (auto [status, body, expected] :
             {std::tuple{200, R"({"Allow":true})", true}, std::tuple{200, R"({"Allow":false})", false},
              std::tuple{500, R"({"Allow":true})", false}, std::tuple{200, "nonsense", false}}) {
            answer = HttpResponse::json(status, body);
            bool allowed = co_await ask(**verifier);
            EXPECT_EQ(allowed, expected) << status << body;
        }
    };
    run(story());
    ASSERT_EQ(asked.size(), 4U);
    EXPECT_EQ(asked[0],
              "POST /verify {\"NodePublic\":\"nodekey:" + std::string(64, 'a') + "\",\"Source\":\"192.0.2.7\"}");
}

TEST_F(VerifierTest, AnUnreachableServerMeansWhatTheOperatorSays) {
    auto story = [&]() -> Task<void> {
        for (bool fail_open : {true, false}) {
            Verifier::Options options;
            options.url = *Url::parse("http://127.0.0.1:1/verify");
            options.fail_open = fail_open;
            verifiers.push_back(std::move(*Verifier::create(reactor, options)));
            for (int i = 0; i < 2; ++i) { // the second time without trying
                bool allowed = co_await ask(*verifiers.back());
                EXPECT_EQ(allowed, fail_open);
            }
        }
    };
    run(story());
}

TEST_F(VerifierTest, WhoShowsAnotherCertificateLetsNobodyIn) {
    auto identity = make_self_signed({"127.0.0.1"}), other = make_self_signed({"127.0.0.1"});
    ASSERT_TRUE(identity && other);
    auto pin_of = [](const TlsIdentity& of) { return *parse_certificate_pin(*certificate_pin(of.certificate)); };
    tls = *TlsContext::server(*identity);
    Verifier::Options options;
    options.url = start_server();
    auto story = [&]() -> Task<void> {
        using Pin = std::optional<std::array<std::byte, 32>>;
        for (auto [pin, expected] : {std::pair{Pin{}, false}, std::pair{Pin{pin_of(*other)}, false},
                                     std::pair{Pin{pin_of(*identity)}, true}}) {
            options.pin = pin;
            verifiers.push_back(std::move(*Verifier::create(reactor, options)));
            for (int i = 0; i < 2; ++i) { // the second time without trying
                bool allowed = co_await ask(*verifiers.back());
                EXPECT_EQ(allowed, expected) << "though it fails open";
            }
        }
    };
    run(story());
    EXPECT_EQ(asked.size(), 2U);
    for (const char* bad : {"", "sha256-raw:", "sha256-raw:00", "md5:00"})
        EXPECT_FALSE(parse_certificate_pin(bad)) << bad;
}

} // namespace
} // namespace tailrace::relay
