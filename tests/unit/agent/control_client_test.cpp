#include "agent/coordination/control_client.hpp"

#include "proto/map_frame.hpp"
#include "tests/fakes/run_task.hpp"
#include "tests/fakes/scripted_control.hpp"

#include <gmock/gmock.h>

#include <deque>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

struct Told final : ControlEvents {
    explicit Told(Reactor& reactor) : changed(reactor) {}
    Event changed;
    std::vector<std::string> urls, refusals, troubles;
    std::vector<NodeKey> logins;
    int expired = 0, frames = 0;

    void on_login_url(const std::string& url) override { urls.push_back(url), changed.notify(); }
    void on_logged_in(const NodePrivateKey& key, const NodePrivateKey&, const wire::RegisterResponse&) override {
        logins.push_back(key.public_key()), changed.notify();
    }
    void on_login_refused(const std::string& text) override { refusals.push_back(text), changed.notify(); }
    void on_key_expired() override { ++expired, changed.notify(); }
    void on_map_frame(wire::MapResponse) override { ++frames, changed.notify(); }
    void on_connected(bool, const std::string& trouble) override {
        if (!trouble.empty()) troubles.push_back(trouble);
        changed.notify();
    }
    Task<wire::PingResponse> on_ping_wanted(std::string, IpAddress) override { co_return wire::PingResponse{}; }
};

/// A client, its server, and what the server was asked. Register requests are answered by `script`, in order; map
/// streams by `stream`.
struct Conversation {
    struct Answer {
        int status = 200;
        wire::RegisterResponse response;
        std::string retry_after;
        bool hang_up = false;
    };

    explicit Conversation(Reactor& r) : reactor(r), control(r), told(r) {
        control.on_request = [this](std::shared_ptr<Http2Exchange> exchange) {
            return on_request(std::move(exchange));
        };
    }
    void start(Duration watchdog = ControlClient::kWatchdog) {
        ControlClient::Settings settings;
        settings.server = control.url();
        settings.machine = MachinePrivateKey::generate();
        settings.node_key = first_key;
        settings.watchdog = watchdog;
        client = std::make_unique<ControlClient>(reactor, std::move(settings), told, SelfReport{});
    }
    Task<void> on_request(std::shared_ptr<Http2Exchange> exchange) {
        const std::string path = exchange->request().path();
        if (path == "/machine/register") {
            auto request = wire::parse_register_request(exchange->request().body);
            EXPECT_TRUE(request);
            if (!request) co_return;
            registrations.push_back(std::move(*request));
            asked_at.push_back(reactor.now());
            Answer answer;
            if (!script.empty()) {
                answer = script.front();
                script.pop_front();
            }
            told.changed.notify();
            if (answer.hang_up) co_return; // the exchange is reset
            HttpResponse response;
            response.status = answer.status;
            response.body = answer.status == 200 ? wire::write_register_response(answer.response) : "not now\n";
            if (!answer.retry_after.empty()) response.headers.add("retry-after", answer.retry_after);
            (void)co_await exchange->respond(std::move(response));
            co_return;
        }
        auto request = wire::parse_map_request(exchange->request().body);
        if (path == "/machine/map" && request && request->stream && stream) {
            ++streams;
            told.changed.notify();
            auto task = stream(exchange);
            co_await std::move(task);
            co_return;
        }
        if (exchange->request().method == "HEAD") heads.push_back(exchange->request().target);
        told.changed.notify();
        HttpResponse response;
        (void)co_await exchange->respond(std::move(response));
    }
    template <typename Condition>
    Task<void> until(Condition condition) {
        TimePoint end = reactor.now() + 15s;
        while (!condition() && reactor.now() < end) (void)co_await told.changed.wait_for(100ms);
        EXPECT_TRUE(condition());
    }
    Task<void> stop() {
        client.reset();
        control.close();
        co_await reactor.sleep(20ms); // the server sees its client go
    }
    static Answer expired() {
        Answer answer;
        answer.response.node_key_expired = true;
        return answer;
    }
    static Answer visit(const char* url) {
        Answer answer;
        answer.response.auth_url = url;
        return answer;
    }

    Reactor& reactor;
    ScriptedControl control;
    Told told;
    NodePrivateKey first_key = NodePrivateKey::generate();
    std::unique_ptr<ControlClient> client;
    std::deque<Answer> script;
    std::function<Task<void>(std::shared_ptr<Http2Exchange>)> stream;
    std::vector<wire::RegisterRequest> registrations;
    std::vector<TimePoint> asked_at;
    std::vector<std::string> heads;
    int streams = 0;
};

template <typename Body>
void converse(Body body) {
    run_task([&body](Reactor& reactor) -> Task<void> {
        Conversation talk{reactor};
        co_await body(talk);
        co_await talk.stop();
    });
}

std::shared_ptr<const std::string> frame(const wire::MapResponse& response) {
    auto bytes = write_map_frame(wire::write_map_response(response), MapCompression::Zstd);
    return std::make_shared<const std::string>(as_chars(*bytes));
}
std::shared_ptr<const std::string> keep_alive() {
    return std::make_shared<const std::string>(as_chars(keep_alive_frame(MapCompression::Zstd)));
}

TEST(ControlClient, DoesNothingBeforeALogin) {
    converse([](Conversation& talk) -> Task<void> {
        talk.start();
        co_await talk.reactor.sleep(100ms);
        EXPECT_EQ(talk.control.links, 0);
        auto out = co_await talk.client->logout(); // but it can log out
        EXPECT_TRUE(out) << out.error().message();
        EXPECT_EQ(talk.registrations.size(), 1u);
        EXPECT_EQ(talk.registrations.at(0).node_key, talk.first_key.public_key());
        EXPECT_EQ(talk.registrations.at(0).expiry.text().substr(0, 4), "1970");
        EXPECT_TRUE(talk.told.logins.empty());
    });
}

TEST(ControlClient, MakesOneNewKeyWhenItsOwnHasExpired) {
    converse([](Conversation& talk) -> Task<void> {
        talk.script = {Conversation::expired(), {}};
        talk.start();
        talk.client->login(ControlClient::Login::Restore, "");
        co_await talk.until([&] { return !talk.told.logins.empty(); });
        EXPECT_EQ(talk.told.expired, 1);
        EXPECT_EQ(talk.registrations.size(), 2u);
        EXPECT_EQ(talk.registrations.at(0).node_key, talk.first_key.public_key());
        EXPECT_EQ(talk.registrations.at(1).old_node_key, talk.first_key.public_key());
        EXPECT_NE(talk.registrations.at(1).node_key, talk.first_key.public_key());
        EXPECT_THAT(talk.told.logins, ElementsAre(talk.registrations.at(1).node_key));
    });
}

TEST(ControlClient, BacksOffWhenTheNewKeyHasExpiredToo) {
    converse([](Conversation& talk) -> Task<void> {
        talk.script = {Conversation::expired(), Conversation::expired(), {}};
        talk.start();
        talk.client->login(ControlClient::Login::Restore, "");
        co_await talk.until([&] { return !talk.told.logins.empty(); });
        EXPECT_EQ(talk.told.expired, 1);
        EXPECT_EQ(talk.registrations.size(), 3u);
        EXPECT_EQ(talk.told.troubles.size(), 1u);
        EXPECT_THAT(talk.told.troubles.front(), HasSubstr("made just now has expired"));
    });
}

TEST(ControlClient, AsksOnForTheSameLoginWhateverBreaks) {
    converse([](Conversation& talk) -> Task<void> {
        constexpr const char* kUrl = "http://control.example/register/1";
        Conversation::Answer hang_up, bad_gateway;
        hang_up.hang_up = true;
        bad_gateway.status = 502;
        talk.script = {Conversation::visit(kUrl), hang_up, bad_gateway, {}};
        talk.start();
        talk.client->login(ControlClient::Login::Interactive, "");
        co_await talk.until([&] { return !talk.told.logins.empty(); });
        EXPECT_THAT(talk.told.urls, ElementsAre(kUrl));
        EXPECT_EQ(talk.registrations.size(), 4u);
        for (std::size_t i = 1; i < talk.registrations.size(); ++i) {
            EXPECT_EQ(talk.registrations[i].followup, kUrl);
            EXPECT_EQ(talk.registrations[i].node_key, talk.registrations[0].node_key);
        }
        EXPECT_EQ(talk.registrations.at(0).followup, "");
        EXPECT_THAT(talk.told.logins, ElementsAre(talk.registrations.at(0).node_key));
        EXPECT_EQ(talk.told.troubles.size(), 2u);
    });
}

TEST(ControlClient, ShowsAnotherPageWhenControlHasAnother) {
    converse([](Conversation& talk) -> Task<void> {
        talk.script = {Conversation::visit("http://c/register/1"), Conversation::visit("http://c/register/2"), {}};
        talk.start();
        talk.client->login(ControlClient::Login::Interactive, "");
        co_await talk.until([&] { return !talk.told.logins.empty(); });
        EXPECT_THAT(talk.told.urls, ElementsAre("http://c/register/1", "http://c/register/2"));
        EXPECT_EQ(talk.registrations.at(2).followup, "http://c/register/2");
    });
}

TEST(ControlClient, WaitsAsLongAsControlAsks) {
    converse([](Conversation& talk) -> Task<void> {
        Conversation::Answer later;
        later.status = 429;
        later.retry_after = "1";
        talk.script = {later, {}};
        talk.start();
        talk.client->login(ControlClient::Login::Restore, "");
        co_await talk.until([&] { return !talk.told.logins.empty(); });
        EXPECT_GE(talk.asked_at.at(1) - talk.asked_at.at(0), 990ms); // its own first wait would be 15 ms at most
        EXPECT_THAT(talk.told.troubles.at(0), HasSubstr("rate limiting"));
    });
}

TEST(ControlClient, TakesSilenceForDeathAndAKeepAliveForLife) {
    converse([](Conversation& talk) -> Task<void> {
        int sent = 0;
        talk.stream = [&](std::shared_ptr<Http2Exchange> exchange) -> Task<void> {
            (void)exchange->start(200, {});
            for (; talk.streams == 1 && sent < 8; ++sent) {
                (void)co_await exchange->write(keep_alive());
                co_await talk.reactor.sleep(300ms);
            }
            while (!exchange->closed()) co_await talk.reactor.sleep(10ms);
        };
        talk.start(1500ms);
        talk.client->login(ControlClient::Login::Restore, "");
        co_await talk.until([&] { return talk.streams == 2; });
        EXPECT_EQ(sent, 8) << "the stream was given up before it was silent"; // 2.4 s of it
        EXPECT_EQ(talk.told.frames, 0) << "a keep-alive is no news";
        EXPECT_EQ(talk.control.links, 2);
    });
}

TEST(ControlClient, AnswersEachPingOnce) {
    converse([](Conversation& talk) -> Task<void> {
        std::string base = talk.control.url().authority() + "/machine/ping-response?id=";
        talk.stream = [&talk, base](std::shared_ptr<Http2Exchange> exchange) -> Task<void> {
            (void)exchange->start(200, {});
            for (const char* id : {"1", "1", "2", "2", "3", "plain"}) {
                wire::MapResponse asks;
                wire::PingRequest& ping = asks.ping_request.emplace();
                ping.url_is_noise = id != std::string_view{"plain"};
                ping.url = (ping.url_is_noise ? "https://" : "http://") + base + id;
                asks.keep_alive = true;
                (void)co_await exchange->write(frame(asks));
            }
            while (!exchange->closed()) co_await talk.reactor.sleep(10ms);
        };
        talk.start();
        talk.client->login(ControlClient::Login::Restore, "");
        co_await talk.until([&] { return talk.heads.size() >= 3 && !talk.control.plain_heads.empty(); });
        EXPECT_THAT(talk.heads,
                    testing::UnorderedElementsAre("/machine/ping-response?id=1", "/machine/ping-response?id=2",
                                                  "/machine/ping-response?id=3"));
        EXPECT_THAT(talk.control.plain_heads, testing::ElementsAre("/machine/ping-response?id=plain"))
            << "as it is asked, so it is answered";
    });
}

TEST(ControlDialer, TrustsNoAnswerWithoutAKey) {
    run_task([](Reactor& reactor) -> Task<void> {
        ScriptedControl control{reactor};
        ControlDialer dialer{reactor, control.url(), ControlDialer::Options{}};
        auto key = co_await dialer.fetch_key();
        EXPECT_TRUE(key && *key == control.key());
        const std::string zero = "mkey:" + std::string(64, '0');
        for (const std::string& answer : {"{\"publicKey\":\"" + zero + "\"}", std::string{"{}"},
                                          std::string{"{\"publicKey\":\"mkey:ab"}, std::string{"<html>"}}) {
            control.key_answer = answer;
            auto refused = co_await dialer.fetch_key();
            EXPECT_FALSE(refused) << answer;
            if (!refused) EXPECT_THAT(refused.error().message(), HasSubstr(control.url().authority()));
        }
        // Noise proves who answers: another server's key is of no use here.
        MachineKey other = MachinePrivateKey::generate().public_key();
        auto link = co_await dialer.link(other, MachinePrivateKey::generate());
        EXPECT_FALSE(link);
        EXPECT_EQ(control.links, 0);
        control.close();
        co_await reactor.sleep(10ms);
    });
}

} // namespace
} // namespace tailrace
