#include "control/server/public_api.hpp"

#include "base/io/http1.hpp"
#include "base/io/sealed_stream.hpp"
#include "base/io/websocket.hpp"
#include "control/server/noise_api.hpp"
#include "tests/fakes/run_task.hpp"
#include "tests/unit/io/stream_pair.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr const char* kProtocol = "tailscale-control-protocol";

struct StoreInMemory final : Store {
    bool* full;
    explicit StoreInMemory(bool* is_full) : full(is_full) {}
    Result<StoredTailnet> load() override { return StoredTailnet{}; }
    Result<void> commit(const std::vector<StoreOperations>&) override {
        if (*full) return Error::make("the disk is full");
        return {};
    }
};

struct Answered {
    int status = 0;
    std::string body;
};

/// All that clients reach, without a network.
class PublicServer {
public:
    explicit PublicServer(Reactor& reactor) : reactor_(reactor) {}

    std::unique_ptr<Stream> connect() {
        auto [ours, theirs] = stream_pair(reactor_);
        auto serve = [](PublicServer* self, std::unique_ptr<Stream> stream) -> Task<void> {
            ++self->open_;
            co_await serve_http1(std::move(stream), self->handler_, Http1ServerOptions{});
            --self->open_;
        };
        spawn(reactor_, "connection", serve(this, std::move(theirs)));
        return std::move(ours);
    }
    Task<HttpResponse> ask(HttpRequest request) { co_return co_await ask(connect(), std::move(request)); }
    /// `target` by GET.
    Task<HttpResponse> get(std::string target) {
        HttpRequest request;
        request.target = std::move(target);
        co_return co_await ask(std::move(request));
    }
    static Task<HttpResponse> ask(std::unique_ptr<Stream> stream, HttpRequest request) {
        Http1Client client{std::move(stream)};
        if (request.authority.empty()) request.authority = "control";
        auto response = co_await client.request(std::move(request), 1 << 20);
        EXPECT_TRUE(response) << response.error().message();
        co_return response ? std::move(*response) : HttpResponse{};
    }

    enum class Form { Upgrade, WebSocket };
    /// HTTP/2 inside Noise.
    Task<std::shared_ptr<Http2Client>> link(MachinePrivateKey machine, Form form = Form::Upgrade) {
        auto noise = NoiseClient::begin(131, machine, noise_.public_key());
        EXPECT_TRUE(noise);
        std::string handshake = base64_encode(noise->initiation());
        HttpRequest request;
        request.method = form == Form::Upgrade ? "POST" : "GET";
        request.target = "/ts2021";
        request.authority = "control";
        request.headers.add("Connection", "upgrade");
        if (form == Form::Upgrade) {
            request.headers.add("Upgrade", kProtocol);
            request.headers.add("X-Tailscale-Handshake", handshake);
        } else {
            request.target += "?X-Tailscale-Handshake=" + percent_encode(handshake);
            request.headers.add("Upgrade", "websocket");
            request.headers.add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
            request.headers.add("Sec-WebSocket-Version", "13");
            request.headers.add("Sec-WebSocket-Protocol", kProtocol);
        }
        Http1Client client{connect()};
        auto switched = co_await client.start(std::move(request));
        EXPECT_TRUE(switched && switched->status == 101);
        if (!switched || switched->status != 101) co_return nullptr;
        if (form == Form::Upgrade) {
            EXPECT_EQ(switched->headers.get("Upgrade"), kProtocol);
            EXPECT_TRUE(switched->headers.has_token("Connection", "upgrade"));
        }
        std::unique_ptr<Stream> channel = client.take_stream();
        if (form == Form::WebSocket)
            channel = std::make_unique<SealedStream>(std::move(channel),
                                                     std::make_unique<WebSocketCodec>(WebSocketCodec::Side::Client));
        Bytes response(kNoiseResponseSize);
        auto read = co_await channel->read_exactly(response);
        EXPECT_TRUE(read);
        auto session = noise->finish(response);
        EXPECT_TRUE(session);
        if (!session) co_return nullptr;
        channel = std::make_unique<SealedStream>(std::move(channel), std::move(*session));
        co_return Http2Client::start(std::move(channel), Http2Options{});
    }
    static Task<Answered> ask(std::shared_ptr<Http2Client> link, std::string method, std::string path,
                              std::string body = "", std::string authority = "control", std::string scheme = "https") {
        HttpRequest request;
        request.method = std::move(method);
        request.target = std::move(path);
        request.scheme = std::move(scheme);
        request.authority = std::move(authority);
        request.body = std::move(body);
        auto answer = co_await link->request(std::move(request));
        if (!answer) co_return Answered{0, answer.error().message()};
        auto text = co_await (*answer)->read_all(1 << 20);
        co_return Answered{(*answer)->status(), text ? *text : text.error().message()};
    }

    Task<std::string> auth_key() {
        if (!tailnet().user_named("alice")) EXPECT_TRUE(tailnet().create_user(WallTime::now(), "alice", ""));
        TailnetState::KeyWish wish;
        wish.user = "alice";
        wish.reusable = true;
        auto key = tailnet().create_auth_key(WallTime::now(), wish);
        EXPECT_TRUE(key);
        std::string text = key->text;
        EXPECT_TRUE(co_await coordinator_.commit());
        co_return text;
    }
    Task<void> stop() {
        co_await coordinator_.stop();
        while (open_ > 0) co_await reactor_.sleep(1ms);
    }

    TailnetState& tailnet() { return coordinator_.tailnet(); }
    Coordinator& coordinator() { return coordinator_; }
    const MachineKey& key() const { return noise_.public_key(); }
    void fill_disk() { full_ = true; }

private:
    static MapComposer::Fixed fixed() {
        MapComposer::Fixed fixed;
        fixed.domain = "tail.lab";
        fixed.derp_map.regions.emplace();
        return fixed;
    }

    Reactor& reactor_;
    bool full_ = false;
    int open_ = 0;
    NoiseServer noise_{MachinePrivateKey::generate()};
    Api api_;
    Coordinator coordinator_{reactor_,
                             default_config(),
                             std::make_unique<StoreInMemory>(&full_),
                             StoredTailnet{},
                             std::make_shared<const Document>(*Document::parse("")),
                             fixed()};
    HttpHandler handler_ = public_handler(coordinator_, noise_, api_, nullptr);
};

/// Runs `body` against a server, and ends both.
template <typename Body>
void with_server(Body body) {
    run_task([&body](Reactor& reactor) -> Task<void> {
        PublicServer server{reactor};
        co_await body(server);
        co_await server.stop();
    });
}

struct Client {
    MachinePrivateKey machine = MachinePrivateKey::generate();
    NodeKey node = NodePrivateKey::generate().public_key();

    std::string register_body(const std::string& auth_key, int version = 131) const {
        wire::RegisterRequest request;
        request.version = version;
        request.node_key = node;
        request.hostinfo.value.hostname = "host";
        if (!auth_key.empty()) request.auth = wire::RegisterAuth{auth_key};
        return wire::write_register_request(request);
    }
    /// A lite update, or a question for the whole map.
    static std::string map_body(const NodeKey& node, bool lite, int version = 131) {
        wire::MapRequest request;
        request.version = version;
        request.node_key = node;
        request.omit_peers = lite;
        if (lite) request.endpoints = {*Endpoint::parse("203.0.113.9:41641")};
        return wire::write_map_request(request);
    }
};

TEST(PublicApi, GivesItsKeyToWhoSaysAVersion) {
    with_server([](PublicServer& server) -> Task<void> {
        auto good = co_await server.get("/key?v=131");
        EXPECT_EQ(good.status, 200);
        auto keys = wire::parse_public_key_response(good.body);
        EXPECT_TRUE(keys) << good.body;
        if (keys) EXPECT_EQ(keys->public_key, server.key());
        EXPECT_THAT(good.body, HasSubstr("\"publicKey\":\"" + server.key().text() + "\""));
        for (const char* target : {"/key", "/key?v=", "/key?v=abc", "/key?v=13x"}) {
            auto bad = co_await server.get(target);
            EXPECT_EQ(bad.status, 400) << target;
            EXPECT_THAT(bad.body, HasSubstr("capability version")) << target;
        }
    });
}

TEST(PublicApi, RefusesEveryWrongUpgradeAtOnce) {
    struct Row {
        const char *method, *target, *upgrade, *handshake, *protocol;
        int status;
    };
    static constexpr Row kRows[] = {
        {"POST", "/ts2021", nullptr, "AAAA", nullptr, 400},
        {"POST", "/ts2021", "h2c", "AAAA", nullptr, 400},
        {"POST", "/ts2021", kProtocol, nullptr, nullptr, 400},
        {"POST", "/ts2021", kProtocol, "%%%", nullptr, 400},
        {"PUT", "/ts2021", kProtocol, "AAAA", nullptr, 405},
        {"GET", "/ts2021", nullptr, nullptr, nullptr, 405},
        {"GET", "/ts2021", "websocket", nullptr, kProtocol, 400},
        {"GET", "/ts2021?X-Tailscale-Handshake=%25%25", "websocket", nullptr, kProtocol, 400},
        {"GET", "/ts2021?X-Tailscale-Handshake=AAAA", "websocket", nullptr, "derp", 400},
    };
    with_server([](PublicServer& server) -> Task<void> {
        for (const Row& row : kRows) {
            HttpRequest request;
            request.method = row.method;
            request.target = row.target;
            request.headers.add("Connection", "upgrade");
            if (row.upgrade != nullptr) request.headers.add("Upgrade", row.upgrade);
            if (row.handshake != nullptr) request.headers.add("X-Tailscale-Handshake", row.handshake);
            if (row.protocol != nullptr) {
                request.headers.add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
                request.headers.add("Sec-WebSocket-Version", "13");
                request.headers.add("Sec-WebSocket-Protocol", row.protocol);
            }
            auto response = co_await server.ask(std::move(request));
            EXPECT_EQ(response.status, row.status) << row.method << " " << row.target << " " << response.body;
        }
    });
}

TEST(PublicApi, ClosesAfterTheUpgradeWhenTheHandshakeIsNone) {
    with_server([](PublicServer& server) -> Task<void> {
        HttpRequest request;
        request.method = "POST";
        request.target = "/ts2021";
        request.authority = "control";
        request.headers.add("Connection", "upgrade");
        request.headers.add("Upgrade", kProtocol);
        request.headers.add("X-Tailscale-Handshake", base64_encode(Bytes(kNoiseInitiationSize)));
        Http1Client client{server.connect()};
        auto switched = co_await client.start(std::move(request));
        EXPECT_TRUE(switched && switched->status == 101);
        auto channel = client.take_stream();
        Bytes byte(1);
        EXPECT_FALSE(co_await channel->read_exactly(byte));
    });
}

TEST(PublicApi, RoutesByPathAloneInBothForms) {
    with_server([](PublicServer& server) -> Task<void> {
        Client client;
        std::string itself = "machine " + client.machine.public_key().text() + "\n";
        for (auto form : {PublicServer::Form::Upgrade, PublicServer::Form::WebSocket}) {
            auto link = co_await server.link(client.machine, form);
            if (!link) co_return;
            for (const char* authority : {"unused", "control.example.com", "control.example.com:443"})
                for (const char* scheme : {"https", "http"}) {
                    auto answer = co_await server.ask(link, "GET", "/machine/whoami", "", authority, scheme);
                    EXPECT_EQ(answer.status, 200) << authority;
                    EXPECT_EQ(answer.body, itself);
                }
            // What a client asks at first, in either form.
            auto key = co_await server.auth_key();
            auto joined = co_await server.ask(link, "POST", "/machine/register", client.register_body(key));
            EXPECT_EQ(joined.status, 200) << joined.body;
            auto map = co_await server.ask(link, "POST", "/machine/map", Client::map_body(client.node, false));
            EXPECT_EQ(map.status, 200);
            EXPECT_THAT(map.body, HasSubstr(client.node.text()));
            link->close();
        }
    });
}

TEST(PublicApi, ServesTwoConnectionsOfOneMachine) {
    with_server([](PublicServer& server) -> Task<void> {
        Client client;
        auto one = co_await server.link(client.machine), two = co_await server.link(client.machine);
        if (!one || !two) co_return;
        auto key = co_await server.auth_key();
        auto joined = co_await server.ask(one, "POST", "/machine/register", client.register_body(key));
        EXPECT_EQ(joined.status, 200) << joined.body;
        auto map = co_await server.ask(two, "POST", "/machine/map", Client::map_body(client.node, false));
        EXPECT_EQ(map.status, 200) << map.body;
        auto still = co_await server.ask(one, "GET", "/machine/whoami");
        EXPECT_EQ(still.status, 200);
    });
}

TEST(PublicApi, RefusesAForeignNodeKeyAndChangesNothing) {
    with_server([](PublicServer& server) -> Task<void> {
        Client owner, thief;
        auto theirs = co_await server.link(owner.machine), its = co_await server.link(thief.machine);
        if (!theirs || !its) co_return;
        auto key = co_await server.auth_key();
        auto joined = co_await server.ask(theirs, "POST", "/machine/register", owner.register_body(key));
        EXPECT_EQ(joined.status, 200) << joined.body;
        NodePtr before = server.tailnet().node_by_key(owner.node);
        EXPECT_TRUE(before);
        for (bool lite : {true, false}) {
            auto refused = co_await server.ask(its, "POST", "/machine/map", Client::map_body(owner.node, lite));
            EXPECT_EQ(refused.status, 404) << refused.body;
        }
        thief.node = owner.node;
        auto refused = co_await server.ask(its, "POST", "/machine/register", thief.register_body(key));
        EXPECT_THAT(refused.body, HasSubstr("another machine"));
        wire::SetDnsRequest record;
        record.node_key = owner.node;
        record.name = "_acme-challenge.host.tail.lab";
        record.type = "TXT";
        auto foreign = co_await server.ask(its, "POST", "/machine/set-dns", wire::write_set_dns_request(record));
        EXPECT_EQ(foreign.status, 401);
        auto nonsense = co_await server.ask(its, "POST", "/machine/set-dns", "{");
        EXPECT_EQ(nonsense.status, 401);
        EXPECT_EQ(server.tailnet().node_by_key(owner.node), before);
        auto own = co_await server.ask(theirs, "POST", "/machine/set-dns", wire::write_set_dns_request(record));
        EXPECT_EQ(own.status, 501); // truthfully: it publishes nothing
        auto lite = co_await server.ask(theirs, "POST", "/machine/map", Client::map_body(owner.node, true));
        EXPECT_EQ(lite.status, 200);
        EXPECT_EQ(lite.body, "");
        EXPECT_NE(server.tailnet().node_by_key(owner.node), before);
    });
}

TEST(PublicApi, TellsAnOldClientToUpgrade) {
    with_server([](PublicServer& server) -> Task<void> {
        Client client;
        auto link = co_await server.link(client.machine);
        if (!link) co_return;
        auto key = co_await server.auth_key();
        int old = kMinimumClientVersion - 1;
        auto joined = co_await server.ask(link, "POST", "/machine/register", client.register_body(key, old));
        EXPECT_EQ(joined.status, 400);
        EXPECT_THAT(joined.body, HasSubstr("upgrade the client"));
        auto map = co_await server.ask(link, "POST", "/machine/map", Client::map_body(client.node, false, old));
        EXPECT_EQ(map.status, 400);
        EXPECT_THAT(map.body, HasSubstr("capability version 112 is below 113"));
        EXPECT_TRUE(server.tailnet().nodes().empty());
    });
}

TEST(PublicApi, AnswersTruthfullyWhatItDoesNotDo) {
    struct Row {
        const char *method, *path;
        int status;
    };
    static constexpr Row kNoise[] = {
        {"PATCH", "/machine/set-device-attr", 501}, {"POST", "/machine/audit-log", 501},
        {"POST", "/machine/id-token", 501},         {"POST", "/machine/feature/query", 501},
        {"GET", "/machine/tka/sync/offer", 404},    {"POST", "/machine/webclient/wait", 404},
        {"POST", "/machine/nonsense", 404},         {"GET", "/machine/register", 404},
        {"POST", "/machine/update-health", 200},    {"HEAD", "/machine/ping-response?id=x", 200},
        {"POST", "/machine/register", 400},         {"POST", "/machine/map", 400}};
    static constexpr Row kPublic[] = {
        {"POST", "/machine/map", 404}, {"POST", "/key?v=131", 405}, {"GET", "/verify", 405},
        {"POST", "/verify", 400},      {"GET", "/derp", 404},       {"GET", "/register/trkey-authreq-00", 404},
        {"GET", "/nonsense", 404},     {"GET", "/version", 200},    {"GET", "/", 200},
        {"GET", "/bootstrap-dns", 200}};
    with_server([](PublicServer& server) -> Task<void> {
        auto link = co_await server.link(MachinePrivateKey::generate());
        if (!link) co_return;
        for (const Row& row : kNoise) {
            auto answer = co_await server.ask(link, row.method, row.path, "[");
            EXPECT_EQ(answer.status, row.status) << row.method << " " << row.path << " " << answer.body;
        }
        for (const Row& row : kPublic) {
            HttpRequest request;
            request.method = row.method;
            request.target = row.path;
            auto answer = co_await server.ask(std::move(request));
            EXPECT_EQ(answer.status, row.status) << row.method << " " << row.path << " " << answer.body;
        }
        auto huge = co_await server.ask(link, "POST", "/machine/register", std::string(2 << 20, ' '));
        EXPECT_NE(huge.status, 200);
        auto other = co_await server.link(MachinePrivateKey::generate());
        if (!other) co_return;
        auto alive = co_await server.ask(other, "GET", "/machine/whoami");
        EXPECT_EQ(alive.status, 200);
    });
}

TEST(PublicApi, HealthFollowsTheStoreAndMetricsCount) {
    with_server([](PublicServer& server) -> Task<void> {
        HttpHandler metrics = metrics_handler(server.coordinator());
        auto ask = [&metrics](const char* path) {
            HttpRequest request;
            request.target = path;
            return metrics(std::move(request));
        };
        (void)co_await server.auth_key();
        auto text = co_await ask("/metrics");
        EXPECT_EQ(text.status, 200);
        EXPECT_THAT(text.body, HasSubstr("\ntailrace_control_users 1\n"));
        EXPECT_THAT(text.body, HasSubstr("\ntailrace_control_nodes 0\n"));
        auto nothing = co_await ask("/");
        EXPECT_EQ(nothing.status, 404);
        auto well = co_await ask("/health");
        EXPECT_EQ(well.status, 200);
        auto passes = co_await server.get("/health");
        EXPECT_EQ(passes.body, R"({"status":"pass"})");

        server.fill_disk();
        EXPECT_TRUE(server.tailnet().create_user(WallTime::now(), "bob", ""));
        EXPECT_FALSE(co_await server.coordinator().commit());
        auto ill = co_await ask("/health");
        EXPECT_EQ(ill.status, 500);
        auto fails = co_await server.get("/health");
        EXPECT_EQ(fails.status, 500);
        EXPECT_EQ(fails.body, R"({"status":"fail"})");
        EXPECT_FALSE(server.tailnet().user_named("bob"));
    });
}

} // namespace
} // namespace tailrace
