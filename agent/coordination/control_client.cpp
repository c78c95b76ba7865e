#include "agent/coordination/control_client.hpp"
#include "agent/coordination/c2n.hpp"
#include "agent/coordination/oauth_client.hpp"
#include "agent/version.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "proto/map_frame.hpp"

#include <cerrno>

namespace tailrace {

using Login = ControlClient::Login;

struct ControlClient::Shared : std::enable_shared_from_this<ControlClient::Shared> {
    Shared(Reactor& r, Settings s, ControlEvents& e, SelfReport first)
        : reactor(r), settings(std::move(s)), events(&e), report(std::move(first)),
          dialer(r, settings.server, dial_options(settings)), wake(r), report_changed(r) {}

    static ControlDialer::Options dial_options(const Settings& settings) {
        ControlDialer::Options options;
        options.mark = settings.mark;
        options.capability_version = kCapabilityVersion;
        return options;
    }

    Reactor& reactor;
    Settings settings;
    ControlEvents* events; ///< null after stop()
    SelfReport report;
    ControlDialer dialer;
    std::optional<MachineKey> server_key;
    std::shared_ptr<Http2Client> link;
    Event wake, report_changed;

    bool registered = false; ///< in this run, with settings.node_key
    bool at_rest = true;     ///< nothing to do until login()
    bool wants_new_key = false, wants_other_tags = false;
    std::string auth_key, followup;
    NodePrivateKey pending_key; ///< the key of an interactive attempt
    std::string last_ping_url;
    int generation = 0; ///< of login(): what began under an older one gives up

    bool stopped() const { return events == nullptr; }
    Kept<wire::Hostinfo> kept_hostinfo() const {
        Kept<wire::Hostinfo> kept;
        kept.value = report.hostinfo;
        return kept;
    }

    HttpRequest post(std::string path, std::string body) const;
    HttpRequest lite_update(std::vector<std::string> flags) const;
    Task<Result<std::shared_ptr<Http2Client>>> connected();
    Task<Result<wire::RegisterResponse>> send_register(wire::RegisterRequest request);
    Task<Result<OAuthAnswer>> auth_key_of_client(OAuthClientSecret client);
    void refuse(const std::string& why);
    Task<Result<void>> do_register();
    Task<Result<void>> poll();
    Task<void> run();
    Task<void> run_reports();
    Task<void> answer_ping(wire::PingRequest ping);
    void handle_frame(wire::MapResponse frame);
    Duration retry_after{};
    bool in_poll = false; ///< the last poll got as far as a frame
};

HttpRequest ControlClient::Shared::post(std::string path, std::string body) const {
    HttpRequest request;
    request.method = "POST";
    request.target = std::move(path);
    request.scheme = "https";
    request.authority = settings.server.authority();
    request.body = std::move(body);
    return request;
}

Task<Result<std::shared_ptr<Http2Client>>> ControlClient::Shared::connected() {
    if (link && !link->closed()) co_return link;
    if (!server_key) {
        auto key = co_await dialer.fetch_key();
        if (!key) co_return key.error();
        server_key = *key;
    }
    auto fresh = co_await dialer.link(*server_key, settings.machine);
    if (!fresh) {
        server_key.reset(); // perhaps another server lives there now: ask again
        co_return fresh.error();
    }
    link = *fresh;
    co_return link;
}

Task<Result<wire::RegisterResponse>> ControlClient::Shared::send_register(wire::RegisterRequest request) {
    auto to = co_await connected();
    if (!to) co_return to.error();
    HttpRequest message = post("/machine/register", wire::write_register_request(request));
    message.headers.add("ts-lb", request.node_key.text());
    auto answer = co_await (*to)->request(std::move(message));
    if (!answer) co_return answer.error().with("register");
    auto body = co_await (*answer)->read_all(1 << 20);
    if (!body) co_return body.error().with("register");
    if ((*answer)->status() == 429) {
        auto seconds = parse_number<int>((*answer)->headers().get("retry-after"));
        retry_after = std::chrono::seconds{
            seconds && *seconds > 0 && *seconds <= 3600 ? *seconds : 5 + static_cast<int>(random_below(6))};
        co_return Error::make("control is rate limiting registrations; trying again in {} s",
                              std::chrono::duration_cast<std::chrono::seconds>(retry_after).count());
    }
    if ((*answer)->status() != 200)
        co_return Error::make("register: control answered {}: {}", (*answer)->status(),
                              std::string{trim(*body)}.substr(0, 200));
    auto parsed = wire::parse_register_response(*body);
    if (!parsed) co_return parsed.error().with("register: the answer makes no sense");
    co_return std::move(*parsed);
}

/// An OAuth client is asked for a key each time: one whose use was not heard of may be spent.
Task<Result<OAuthAnswer>> ControlClient::Shared::auth_key_of_client(OAuthClientSecret client) {
    auto self = shared_from_this();
    Url server = settings.server;
    if (!client.base_url.empty()) {
        auto other = Url::parse(client.base_url);
        if (!other) co_return other.error();
        server = std::move(*other);
    }
    ControlDialer api{reactor, std::move(server), dial_options(settings)};
    auto answer = co_await make_auth_key(api, std::move(client), report.hostinfo.request_tags);
    co_return std::move(answer);
}

void ControlClient::Shared::refuse(const std::string& why) {
    at_rest = true;
    followup.clear();
    events->on_login_refused(why);
}

Task<Result<void>> ControlClient::Shared::do_register() {
    int mine = generation;
    bool renewed = false;
    bool is_client = OAuthClientSecret::is_one(auth_key);
    bool was_turned_away = false;
    for (;;) {
        NodePrivateKey key = settings.node_key;
        if (!followup.empty())
            key = pending_key;
        else if (wants_new_key || key.is_zero())
            key = NodePrivateKey::generate();
        bool rotating = !(key == settings.node_key);
        wire::RegisterRequest request;
        request.version = kCapabilityVersion;
        request.node_key = key.public_key();
        if (rotating && !settings.node_key.is_zero())
            request.old_node_key = settings.node_key.public_key();
        else if (!rotating && !settings.old_node_key.is_zero())
            request.old_node_key = settings.old_node_key.public_key();
        request.nl_key = settings.lock_key.public_key();
        std::string with_key = auth_key;
        // Who is known needs no new key: a machine that starts again must not depend on the OAuth client.
        const bool as_we_are = is_client && !rotating && !wants_other_tags && !was_turned_away;
        if (is_client) with_key.clear();
        if (is_client && !as_we_are) {
            auto client = OAuthClientSecret::parse(auth_key);
            if (!client) {
                refuse(client.error().message());
                co_return Result<void>{};
            }
            auto made = co_await auth_key_of_client(std::move(*client));
            if (stopped() || mine != generation) co_return Result<void>{};
            if (!made) co_return made.error().with("the OAuth client's auth key");
            if (!made->refusal.empty()) {
                refuse("no auth key was made: " + made->refusal);
                co_return Result<void>{};
            }
            with_key = std::move(made->text);
        }
        if (!with_key.empty()) request.auth = wire::RegisterAuth{with_key};
        request.followup = followup;
        request.hostinfo = kept_hostinfo();
        auto answer = co_await send_register(std::move(request));
        if (stopped() || mine != generation) co_return Result<void>{};
        if (!answer) co_return answer.error();
        if (as_we_are && (!answer->error.empty() || !answer->auth_url.empty())) {
            was_turned_away = true;
            continue;
        }
        if (!answer->error.empty()) {
            refuse(answer->error);
            co_return Result<void>{};
        }
        if (answer->node_key_expired) {
            if (renewed || rotating) co_return Error::make("control says that a key made just now has expired");
            renewed = true;
            wants_new_key = true;
            events->on_key_expired();
            continue;
        }
        if (!answer->auth_url.empty()) {
            bool same = followup == answer->auth_url;
            followup = answer->auth_url;
            pending_key = key;
            if (!same) events->on_login_url(followup);
            if (same) co_return Error::make("control still waits for the login");
            continue;
        }
        if (rotating) settings.old_node_key = settings.node_key;
        settings.node_key = key;
        followup.clear();
        auth_key.clear();
        wants_new_key = wants_other_tags = false;
        registered = true;
        events->on_logged_in(settings.node_key, settings.old_node_key, *answer);
        co_return Result<void>{};
    }
}

Task<Result<void>> ControlClient::Shared::poll() {
    auto to = co_await connected();
    if (!to) co_return to.error();
    wire::MapRequest request;
    request.version = kCapabilityVersion;
    request.compress = "zstd";
    request.keep_alive = true;
    request.node_key = settings.node_key.public_key();
    request.disco_key = report.disco_key;
    request.stream = true;
    request.debug_flags = {std::string{wire::kPolicyLinesFlag}};
    request.hostinfo = kept_hostinfo();
    request.endpoints = report.endpoints;
    request.endpoint_types = report.endpoint_types;
    HttpRequest message = post("/machine/map", wire::write_map_request(request));
    message.headers.add("ts-lb", request.node_key.text());

    auto connection = *to;
    Timer watchdog{reactor};
    auto arm = [&] { watchdog.after(settings.watchdog, [connection] { connection->close(); }); };
    arm();
    auto answer = co_await connection->request(std::move(message));
    if (stopped()) co_return Result<void>{};
    if (!answer) co_return answer.error().with("map poll");
    if ((*answer)->status() != 200) {
        auto body = co_await (*answer)->read_all(64 << 10);
        int status = (*answer)->status();
        // A server that does not know our key any more would say so for ever: ask it to let us in again.
        if (status == 401 || status == 403 || status == 404) registered = false;
        co_return Error::make("map poll: control answered {}: {}", status,
                              body ? std::string{trim(*body)}.substr(0, 200) : "");
    }
    report_changed.notify();
    MapFrameReader frames{MapCompression::Zstd, 256 << 20};
    int mine = generation;
    for (;;) {
        auto piece = co_await (*answer)->read_some();
        if (stopped() || mine != generation) co_return Result<void>{};
        if (!piece) co_return piece.error().with("map poll");
        if (piece->empty()) co_return Error::make("map poll: control ended it");
        frames.feed(as_bytes(*piece));
        for (;;) {
            auto frame = frames.next();
            if (!frame) co_return frame.error().with("map poll");
            if (!*frame) break;
            watchdog.cancel();
            auto parsed = wire::parse_map_response(**frame);
            if (!parsed) co_return parsed.error().with("map poll");
            handle_frame(std::move(*parsed));
            if (stopped() || mine != generation) co_return Result<void>{};
            arm();
        }
    }
}

void ControlClient::Shared::handle_frame(wire::MapResponse frame) {
    if (frame.ping_request && !frame.ping_request->url.empty() && frame.ping_request->url != last_ping_url) {
        last_ping_url = frame.ping_request->url;
        spawn(reactor, "control's ping", answer_ping(*frame.ping_request));
    }
    in_poll = true;
    events->on_connected(true, "");
    if (!frame.keep_alive) events->on_map_frame(std::move(frame));
}

/// Proves to control that we live (5.7). Failures are control's to notice.
Task<void> ControlClient::Shared::answer_ping(wire::PingRequest ping) {
    auto self = shared_from_this();
    auto url = Url::parse(ping.url);
    if (!url) co_return;
    HttpRequest request = post(url->target, "");
    request.authority = url->authority();
    if (ping.types.empty()) {
        request.method = "HEAD";
    } else if (ping.types == "c2n") {
        request.body = answer_c2n(as_chars(ping.payload), {[&] { return events->on_connector_routes_wanted(); },
                                                           [&] { return events->on_services_wanted(); }});
    } else {
        for (std::string_view type : split(ping.types, ',')) {
            if (stopped()) co_return;
            auto result = co_await events->on_ping_wanted(std::string{type}, ping.ip);
            request.body += wire::write_ping_response(result);
        }
    }
    auto not_answered = [](const Error& error) { log::debug("control's ping was not answered", {{"error", error}}); };
    if (stopped()) co_return;
    if (!ping.url_is_noise && ping.types != "c2n") { // Headscale's questions to routers that share a route
        Url origin = *url;
        origin.target = "/";
        ControlDialer plain{reactor, std::move(origin), dial_options(settings)};
        auto answer = co_await plain.ask(std::move(request), 64 << 10);
        if (!answer) not_answered(answer.error());
        co_return;
    }
    auto to = link;
    if (!to) co_return;
    auto answer = co_await to->request(std::move(request));
    if (!answer) not_answered(answer.error());
}

Task<void> ControlClient::Shared::run() {
    auto self = shared_from_this();
    Backoff backoff;
    while (!stopped()) {
        if (at_rest || (settings.node_key.is_zero() && followup.empty() && auth_key.empty() && !wants_new_key)) {
            co_await wake.wait();
            continue;
        }
        in_poll = false;
        int mine = generation;
        Result<void> outcome;
        if (!registered)
            outcome = co_await do_register();
        else
            outcome = co_await poll();
        if (stopped()) co_return;
        if (mine != generation) continue;
        if (outcome) {
            backoff.reset();
            continue;
        }
        if (in_poll) backoff.reset(); // it worked for a while: a new story
        Duration wait = retry_after > Duration{} ? std::exchange(retry_after, Duration{}) : backoff.next();
        events->on_connected(false, outcome.error().message());
        log::info("control is away",
                  {{"error", outcome.error()},
                   {"retry_ms", std::chrono::duration_cast<std::chrono::milliseconds>(wait).count()}});
        // An older wake-up may be left over from the login that began this.
        TimePoint until = reactor.now() + wait;
        while (!stopped() && mine == generation && reactor.now() < until)
            (void)co_await wake.wait_for(until - reactor.now());
    }
}

/// All about ourselves as it is now.
HttpRequest ControlClient::Shared::lite_update(std::vector<std::string> flags) const {
    wire::MapRequest request;
    request.version = kCapabilityVersion;
    request.compress = "zstd";
    request.keep_alive = true;
    request.node_key = settings.node_key.public_key();
    request.disco_key = report.disco_key;
    request.hostinfo = kept_hostinfo();
    request.endpoints = report.endpoints;
    request.endpoint_types = report.endpoint_types;
    request.omit_peers = true;
    request.debug_flags = std::move(flags);
    HttpRequest message = post("/machine/map", wire::write_map_request(request));
    message.headers.add("ts-lb", request.node_key.text());
    return message;
}

/// Sends what changed about ourselves until control has it.
Task<void> ControlClient::Shared::run_reports() {
    auto self = shared_from_this();
    Backoff backoff;
    std::optional<SelfReport> told;
    std::shared_ptr<Http2Client> told_over;
    for (;;) {
        co_await report_changed.wait();
        if (stopped()) co_return;
        while (registered && link && !link->closed() && (told != report || told_over != link)) {
            SelfReport now = report;
            auto over = link;
            HttpRequest message = lite_update({});
            auto answer = co_await over->request(std::move(message));
            if (stopped()) co_return;
            if (answer && (*answer)->status() == 200) {
                (void)co_await (*answer)->read_all(1 << 20); // the body says nothing
                if (stopped()) co_return;
                told = now;
                told_over = over;
                backoff.reset();
                continue;
            }
            co_await reactor.sleep(backoff.next());
            if (stopped()) co_return;
        }
    }
}

ControlClient::ControlClient(Reactor& reactor, Settings settings, ControlEvents& events, SelfReport report)
    : shared_(std::make_shared<Shared>(reactor, std::move(settings), events, std::move(report))) {
    spawn(reactor, "control", shared_->run());
    spawn(reactor, "control reports", shared_->run_reports());
}

ControlClient::~ControlClient() {
    stop();
}

void ControlClient::login(Login how, std::string auth_key) {
    Shared& s = *shared_;
    ++s.generation;
    s.registered = false;
    s.at_rest = false;
    s.followup.clear();
    s.auth_key = std::move(auth_key);
    s.wants_new_key = how == Login::Interactive;
    s.wants_other_tags = how == Login::Readmit;
    if (s.link) s.link->close();
    s.link.reset();
    s.wake.notify();
}

void ControlClient::report(SelfReport report) {
    if (shared_->report == report) return;
    shared_->report = std::move(report);
    shared_->report_changed.notify();
}

Task<void> ControlClient::announce_restart() {
    auto shared = shared_;
    if (!shared->registered || !shared->link || shared->link->closed()) co_return;
    auto told = std::make_shared<Event>(shared->reactor);
    auto tell = [](std::shared_ptr<Shared> self, std::shared_ptr<Event> done) -> Task<void> {
        HttpRequest message = self->lite_update({std::string{wire::kRestartingFlag}});
        auto over = self->link;
        auto answer = co_await over->request(std::move(message));
        if (!answer) log::debug("control was not told that we restart", {{"error", answer.error()}});
        done->notify();
    };
    spawn(shared->reactor, "announce", tell(shared, told));
    (void)co_await told->wait_for(kGoodbye); // control may be away: we end all the same
}

Task<Result<void>> ControlClient::logout() {
    auto shared = shared_;
    struct Telling {
        explicit Telling(Reactor& reactor) : done(reactor) {}
        Event done;
        Result<void> outcome = Error::make("no answer in {} s", kLogoutPatience.count());
    };
    auto telling = std::make_shared<Telling>(shared->reactor);
    auto tell = [](std::shared_ptr<Shared> self, std::shared_ptr<Telling> to) -> Task<void> {
        wire::RegisterRequest request;
        request.version = kCapabilityVersion;
        request.node_key = self->settings.node_key.public_key();
        request.nl_key = self->settings.lock_key.public_key();
        request.expiry = WallTime::from_unix(123);
        request.hostinfo = self->kept_hostinfo();
        auto answer = co_await self->send_register(std::move(request));
        if (!answer)
            to->outcome = answer.error();
        else
            to->outcome = answer->error.empty() ? Result<void>{} : Error::make("{}", answer->error);
        to->done.notify();
    };
    spawn(shared->reactor, "logout", tell(shared, telling));
    (void)co_await telling->done.wait_for(kLogoutPatience);
    co_return telling->outcome;
}

void ControlClient::reconnect() {
    if (shared_->link) shared_->link->close();
}

const std::string& ControlClient::auth_key() const {
    return shared_->auth_key;
}

void ControlClient::stop() {
    Shared& s = *shared_;
    s.events = nullptr;
    ++s.generation;
    if (s.link) s.link->close();
    s.wake.notify();
    s.report_changed.notify();
}

} // namespace tailrace
