// relay/server/serve.cpp - puts the parts together, and takes them apart without losing a packet.
#include "relay/server/serve.hpp"

#include "base/file.hpp"
#include "base/io/watchdog.hpp"
#include "base/service.hpp"
#include "base/text.hpp"
#include "relay/core/core.hpp"
#include "relay/net/certificate.hpp"
#include "relay/net/listen.hpp"
#include "relay/server/mesh_dialer.hpp"
#include "relay/server/metrics.hpp"
#include "relay/server/state_files.hpp"
#include "relay/server/verifier.hpp"

#include <sched.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>

namespace tailrace::relay {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kReconnectTryForMs = 10'000;
constexpr Duration kQuietAtMost = 3s;   // for the last packets to be taken by slow clients
constexpr Duration kGoodbyeAtMost = 1s; // for the clients to close
constexpr Duration kLook = 10ms;

std::uint32_t usable_cpus() {
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    return static_cast<std::uint32_t>(std::max(1, CPU_COUNT(&set)));
}

void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit); // best effort: fewer clients then
}

RateLimit rate_limit_of(const RelayConfig& config) {
    double rate = config.rate_bytes_per_second;
    return {rate, config.rate_burst_bytes > 0 ? config.rate_burst_bytes : std::max(kLeastBurstBytes, rate)};
}

class Relay {
public:
    Relay(const RelayConfig& config, ReadConfig read_again) : config_(config), read_again_(std::move(read_again)) {}
    ~Relay() { stop_cores(); }

    Result<void> prepare();
    void run();

private:
    Result<void> load();
    Result<void> make_cores();
    Result<void> listen();
    void print_derp_node(const std::string& pin) const;
    Task<void> follow_signals();
    void reload();
    bool reload_config();
    Task<void> drain();
    void stop_cores();
    void on_all_cores(const std::function<void(Core&)>& job);
    template <typename Look>
    Task<bool> ask_all_cores(Look look);

    RelayConfig config_;
    ReadConfig read_again_;
    Shared shared_; // outlives the reactor, whose coroutines post to the cores
    Reactor reactor_;
    std::optional<TlsContext> tls_;
    std::string pin_;
    std::shared_ptr<const KeyList> key_list_;
    std::unique_ptr<Verifier> verifier_;
    std::unique_ptr<MeshDialer> mesh_;
};

Result<void> Relay::load() {
    if (auto made = make_directories(config_.state_dir, 0700); !made) return made.error().with("state_dir");
    auto key = load_relay_key(config_.state_dir);
    if (!key) return key.error();
    CoreSettings& settings = shared_.settings;
    settings.key = *key;
    settings.public_key = key->public_key();
    settings.hostname = config_.hostname;
    settings.write_timeout = config_.write_timeout;
    settings.mesh_write_timeout = std::max<Duration>(settings.mesh_write_timeout, config_.write_timeout);
    if (!config_.mesh_key_file.empty()) {
        auto mesh_key = load_mesh_key(config_.mesh_key_file);
        if (!mesh_key) return mesh_key.error().with("the mesh key");
        settings.mesh_key = *mesh_key;
    }
    if (!config_.verify_key_file.empty()) {
        auto list = load_key_list(config_.verify_key_file);
        if (!list) return list.error().with("the list of clients");
        key_list_ = std::make_shared<const KeyList>(std::move(*list));
    }
    if (config_.cert_mode == CertMode::Plain) return {};
    auto identity = load_identity(config_);
    if (!identity) return identity.error().with("the TLS certificate");
    auto tls = relay_tls(*identity, settings.public_key);
    if (!tls) return tls.error();
    tls_ = *tls;
    auto pin = certificate_pin(identity->certificate);
    if (!pin) return pin.error();
    pin_ = *pin;
    return {};
}

Result<void> Relay::make_cores() {
    std::uint32_t count = config_.cores > 0 ? static_cast<std::uint32_t>(config_.cores) : usable_cpus();
    shared_.rings.resize(count);
    for (std::uint32_t from = 0; from < count; ++from)
        for (std::uint32_t to = 0; to < count; ++to)
            shared_.rings[from].push_back(from == to ? nullptr : std::make_unique<BatchRing>());
    for (std::uint32_t number = 0; number < count; ++number) {
        auto core = Core::create(shared_, number);
        if (!core) return core.error();
        (*core)->set_tls(tls_);
        (*core)->set_key_list(key_list_);
        (*core)->set_rate_limit(rate_limit_of(config_));
        shared_.cores.push_back(std::move(*core));
    }
    shared_.metrics = [this] {
        std::vector<const Counters*> counters;
        for (const auto& core : shared_.cores) counters.push_back(&core->counters());
        return write_metrics(counters);
    };
    if (config_.verify_url.empty()) return {};
    auto url = Url::parse(config_.verify_url);
    if (!url) return url.error();
    if (url->target == "/") url->target = "/verify";
    Verifier::Options options;
    options.url = *url;
    options.fail_open = config_.verify_fail_open;
    options.pin = config_.verify_pin;
    auto verifier = Verifier::create(reactor_, options);
    if (!verifier) return verifier.error();
    verifier_ = std::move(*verifier);
    shared_.settings.ask_control = true;
    shared_.ask_control = [this](const NodeKey& key, const IpAddress& from, std::function<void(bool)> answer) {
        verifier_->ask(key, from, std::move(answer));
    };
    return {};
}

// Before the cores' threads start: nobody else uses core 0 yet.
Result<void> Relay::listen() {
    Core& front = *shared_.cores.front();
    auto inherited = take_inherited_sockets();
    if (inherited.size() > 1)
        return Error::make("{} sockets were passed to the relay, which takes one, for DERP", inherited.size());
    struct Wanted {
        const std::optional<Endpoint>& at;
        Door door;
        bool tls;
    };
    for (const Wanted& wanted :
         {Wanted{config_.listen, Door::Derp, tls_.has_value()}, Wanted{config_.listen_http, Door::HttpOnly, false},
          Wanted{config_.metrics_listen, Door::Metrics, false}}) {
        if (!wanted.at) continue;
        auto socket = wanted.door == Door::Derp && !inherited.empty() ? Result<Fd>{std::move(inherited.front())}
                                                                      : listen_tcp(*wanted.at);
        if (!socket) return socket.error();
        Endpoint at = local_endpoint(socket->get());
        if (auto added = front.add_listener(std::move(*socket), wanted.door, wanted.tls); !added) return added;
        log::info("listening", {{"for", wanted.door == Door::Derp       ? "DERP"
                                        : wanted.door == Door::HttpOnly ? "HTTP"
                                                                        : "metrics"},
                                {"at", at.valid() ? at.text() : "a Unix socket"},
                                {"tls", wanted.tls ? "yes" : "no"}});
    }
    if (config_.stun_port < 0) return {};
    auto socket = bind_udp({config_.listen->address, static_cast<std::uint16_t>(config_.stun_port)});
    if (!socket) return socket.error().with("STUN");
    Endpoint at = local_endpoint(socket->get());
    if (auto added = front.add_stun(std::move(*socket)); !added) return added;
    log::info("listening", {{"for", "STUN"}, {"at", at}});
    return {};
}

// What the operator puts into the DERP map.
void Relay::print_derp_node(const std::string& pin) const {
    fmt::print("Clients reach this relay with this node in the DERP map:\n"
               "  {{\"Name\":\"900a\",\"RegionID\":900,\"HostName\":\"{}\",\"DERPPort\":{},\"STUNPort\":{},"
               "\"CertName\":\"{}\"{}}}\n",
               config_.hostname, config_.listen->port, config_.stun_port, pin,
               config_.listen_http && config_.listen_http->port == 80 ? ",\"CanPort80\":true" : "");
    std::fflush(stdout);
}

Result<void> Relay::prepare() {
    if (auto loaded = load(); !loaded) return loaded;
    raise_descriptor_limit();
    if (auto made = make_cores(); !made) return made;
    if (auto listening = listen(); !listening) return listening;
    if (config_.cert_mode == CertMode::SelfSigned) print_derp_node(pin_);
    return {};
}

void Relay::run() {
    reactor_.catch_signals({SIGTERM, SIGINT, SIGHUP});
    for (auto& core : shared_.cores) core->start();
    if (!config_.mesh_with.empty()) mesh_ = std::make_unique<MeshDialer>(reactor_, shared_, config_.mesh_with);
    spawn(reactor_, "signals", follow_signals());
    log::info("ready", {{"cores", shared_.cores.size()}, {"key", shared_.settings.public_key.short_text()}});
    feed_watchdog(reactor_);
    notify_service_manager("READY=1");
    reactor_.run();
    stop_cores();
}

Task<void> Relay::follow_signals() {
    for (;;) {
        int signal = co_await reactor_.wait_for_signal();
        if (signal != SIGHUP) break;
        notify_service_manager(reloading_state());
        reload();
        notify_service_manager("READY=1");
    }
    notify_service_manager("STOPPING=1");
    co_await drain();
    reactor_.stop();
}

/// False when the file is not in order: then nothing changes.
bool Relay::reload_config() {
    if (!read_again_) return true; // all was said by flags
    auto fresh = read_again_();
    if (!fresh) {
        log::error("the configuration is not in order: what is in force stays", {{"error", fresh.error()}});
        return false;
    }
    auto differed = keep_what_is_fixed(config_, *fresh);
    if (!differed.empty())
        log::warn("some changes need \"systemctl restart tailrace-relay\"", {{"keys", join(differed, ", ")}});
    config_ = std::move(*fresh);
    log::set_level(config_.log_level);
    on_all_cores([limit = rate_limit_of(config_)](Core& core) { core.set_rate_limit(limit); });
    return true;
}

// The configuration, and the files that it names. Of those, one that is wrong leaves the old one in force, and not the
// other: a certificate that was not renewed well must not keep a client in who should be out.
void Relay::reload() {
    if (!reload_config()) return;
    bool good = true;
    if (tls_) {
        auto identity = load_identity(config_);
        auto tls = identity ? relay_tls(*identity, shared_.settings.public_key) : Result<TlsContext>{identity.error()};
        if (tls)
            on_all_cores([context = *tls](Core& core) { core.set_tls(context); });
        else
            log::error("the old certificate stays in force", {{"error", tls.error()}});
        good = good && tls;
    }
    if (!config_.verify_key_file.empty()) {
        auto list = load_key_list(config_.verify_key_file);
        if (list)
            key_list_ = std::make_shared<const KeyList>(std::move(*list));
        else
            log::error("the old list of clients stays in force", {{"error", list.error()}});
        good = good && list;
    } else {
        key_list_ = nullptr;
    }
    on_all_cores([keys = key_list_](Core& core) { core.set_key_list(keys); });
    if (good) log::info("reloaded");
}

void Relay::on_all_cores(const std::function<void(Core&)>& job) {
    for (auto& core : shared_.cores) core->post(job);
}

/// True when look(core) holds on every core.
template <typename Look>
Task<bool> Relay::ask_all_cores(Look look) {
    struct Answers {
        std::atomic<std::size_t> given{0}, yes{0};
    };
    auto answers = std::make_shared<Answers>();
    on_all_cores([answers, look](Core& core) {
        if (look(core)) answers->yes.fetch_add(1);
        answers->given.fetch_add(1);
    });
    while (answers->given.load() < shared_.cores.size()) co_await reactor_.sleep(1ms);
    co_return answers->yes.load() == shared_.cores.size();
}

// Clients are told first, so that those who understand come back without a gap. Whatever has been read by then goes
// out; only then the streams end, in order.
Task<void> Relay::drain() {
    log::info("draining", {{"seconds", std::chrono::duration<double>(config_.drain).count()}});
    auto reconnect_ms = static_cast<std::uint32_t>(std::chrono::ceil<std::chrono::milliseconds>(config_.drain).count());
    on_all_cores([reconnect_ms](Core& core) {
        core.close_listeners();
        core.announce_restart({reconnect_ms, kReconnectTryForMs});
    });
    auto is_empty = [](Core& core) { return core.counters().clients.get() == 0; };
    for (TimePoint until = reactor_.now() + config_.drain; reactor_.now() < until;) {
        bool empty = co_await ask_all_cores(is_empty);
        if (empty) break;
        co_await reactor_.sleep(kLook);
    }
    on_all_cores([](Core& core) { core.stop_reading(); });
    // A packet crosses two rings at most: to the home of its key, and from there to a mesh link.
    auto is_quiet = [](Core& core) { return core.is_quiet(); };
    int quiet_rounds = 0;
    for (TimePoint until = reactor_.now() + kQuietAtMost; quiet_rounds < 3 && reactor_.now() < until;) {
        bool quiet = co_await ask_all_cores(is_quiet);
        quiet_rounds = quiet ? quiet_rounds + 1 : 0;
        if (!quiet) co_await reactor_.sleep(kLook);
    }
    on_all_cores([](Core& core) { core.say_goodbye(); });
    for (TimePoint until = reactor_.now() + kGoodbyeAtMost; reactor_.now() < until;) {
        bool empty = co_await ask_all_cores(is_empty);
        if (empty) break;
        co_await reactor_.sleep(kLook);
    }
    log::info("stopped");
}

void Relay::stop_cores() {
    on_all_cores([](Core& core) { core.stop(); });
    for (auto& core : shared_.cores) core->join();
}

} // namespace

int serve(const RelayConfig& config, ReadConfig read_again) {
    log::set_level(config.log_level);
    log::set_format(config.log_format);
    Relay relay{config, std::move(read_again)};
    if (auto ready = relay.prepare(); !ready) {
        std::fprintf(stderr, "tailrace-relay: %s\n", ready.error().message().c_str());
        return 1;
    }
    relay.run();
    return 0;
}

} // namespace tailrace::relay
