#include "control/server/serve.hpp"

#include "base/file.hpp"
#include "base/io/http1.hpp"
#include "base/io/name_certificate.hpp"
#include "base/io/socket.hpp"
#include "base/io/watchdog.hpp"
#include "base/service.hpp"
#include "control/admin/admin_api.hpp"
#include "control/server/coordinator.hpp"
#include "control/server/public_api.hpp"
#include "control/server/state_files.hpp"
#include "control/store/sqlite_store.hpp"
#include "proto/derp.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <optional>
#include <sys/file.h>
#include <sys/resource.h>

namespace tailrace {

namespace {

class Server final : public AdminBackend {
public:
    Server(Reactor& reactor, std::unique_ptr<Coordinator> coordinator, const MachinePrivateKey& key,
           std::string config_file)
        : reactor_(reactor), coordinator_(std::move(coordinator)), noise_(key), config_file_(std::move(config_file)) {}

    Result<void> listen();
    Task<void> run_until_signal();

    TailnetState& tailnet() override { return coordinator_->tailnet(); }
    const TailnetState& tailnet() const override { return coordinator_->tailnet(); }
    std::optional<RouteHealth::State> route_state(NodeId id) const override { return coordinator_->route_state(id); }
    std::vector<std::string> carries_for(NodeId id, const IpPrefix& route) const override {
        return coordinator_->carries_for(id, route);
    }
    Task<void> settled() override { return coordinator_->settled(); }
    Task<Result<void>> commit() override { return coordinator_->commit_and_wake(); }
    std::string policy_text() const override { return coordinator_->policy_text(); }
    Task<Result<void>> set_policy(std::string text) override { return coordinator_->set_policy(std::move(text)); }

private:
    using Serve = std::function<Task<void>(std::unique_ptr<Stream>)>;
    Task<void> accept_loop(std::shared_ptr<Listener> listener, Serve serve);
    Result<void> listen_tcp(const std::string& name, const ListenAddress& at, Serve serve);
    Result<void> listen_admin();
    Result<void> start_relay();
    void show_relay_key(const NodeKey& key);
    HttpHandler public_api() { return public_handler(*coordinator_, noise_, api_, relay_.get()); }
    Task<void> serve_tls(std::unique_ptr<Stream> stream);
    void reload_config();

    Reactor& reactor_;
    std::unique_ptr<Coordinator> coordinator_;
    NoiseServer noise_;
    std::string config_file_; ///< "" for none
    Api api_;
    std::optional<TlsIdentity> identity_;
    std::optional<TlsContext> tls_;
    std::optional<NodeKey> relay_key_; ///< that tls_ shows
    std::unique_ptr<EmbeddedRelay> relay_;
    std::vector<std::shared_ptr<Listener>> listeners_;
};

Task<void> Server::accept_loop(std::shared_ptr<Listener> listener, Serve serve) {
    for (;;) {
        auto stream = co_await listener->accept();
        if (!stream) co_return; // closed
        auto task = serve(std::move(*stream));
        spawn(reactor_, "connection", std::move(task));
    }
}

Result<void> Server::listen_tcp(const std::string& name, const ListenAddress& at, Serve serve) {
    auto try_at = [this](const Endpoint& endpoint) { return Listener::tcp(reactor_, endpoint); };
    auto first = try_at(at.endpoint);
    bool no_ipv6 = !first && first.error().code() == EAFNOSUPPORT && at.text.starts_with(':');
    auto listener = no_ipv6 ? try_at(Endpoint{IpAddress::v4(0), at.endpoint.port}) : std::move(first);
    if (!listener && listener.error().code() == EADDRINUSE)
        return Error::make("another program listens on {}: stop it, or set another {} in the configuration", at.text,
                           name);
    if (!listener && listener.error().code() == EACCES)
        return Error::make("no permission to listen on {}: ports below 1024 need root or CAP_NET_BIND_SERVICE; or set "
                           "another {} in the configuration",
                           at.text, name);
    if (!listener) return listener.error().with("{}", name);
    auto shared = std::make_shared<Listener>(std::move(*listener));
    listeners_.push_back(shared);
    log::info("listening", {{"for", name}, {"at", shared->local()}});
    spawn(reactor_, name, accept_loop(shared, std::move(serve)));
    return {};
}

Task<void> Server::serve_tls(std::unique_ptr<Stream> stream) {
    auto secured = co_await tls_accept(*tls_, std::move(stream), std::chrono::seconds{10});
    if (!secured) co_return; // a port scan, or a client that went
    co_await serve_http1(std::move(*secured), public_api(), Http1ServerOptions{});
}

Result<void> Server::listen_admin() {
    const std::string& path = coordinator_->config().socket;
    std::string directory = path.substr(0, path.rfind('/'));
    if (auto made = make_directories(directory.empty() ? "/" : directory, 0755); !made)
        return made.error().with("directory of the socket");
    auto listener = Listener::unix_socket(reactor_, path, 0666); // who may ask is decided by credentials
    if (!listener)
        return listener.error().code() == EADDRINUSE
                   ? Error::make("another tailrace-control answers at {}: stop it, or set another socket in the "
                                 "configuration",
                                 path)
                   : listener.error().with("socket {}", path);
    auto shared = std::make_shared<Listener>(std::move(*listener));
    listeners_.push_back(shared);
    auto serve = [this](std::unique_ptr<Stream> stream) -> Task<void> {
        auto who = peer_credentials(stream->descriptor().fd());
        bool trusted = who && (who->uid == 0 || who->uid == ::geteuid());
        HttpHandler handler = [this, trusted](HttpRequest request) -> Task<HttpResponse> {
            if (trusted) return answer_admin(*this, std::move(request));
            return [](int) -> Task<HttpResponse> {
                co_return HttpResponse::json(403,
                                             R"({"error":"only root and the server's own user may administer it"})");
            }(0);
        };
        Http1ServerOptions options;
        options.body_limit_bytes = kMostPolicyBytes;
        return serve_http1(std::move(stream), std::move(handler), options);
    };
    spawn(reactor_, "admin socket", accept_loop(shared, std::move(serve)));
    return {};
}

Result<void> Server::start_relay() {
    const ControlConfig& config = coordinator_->config();
    auto verify = Listener::tcp(reactor_, Endpoint{IpAddress::v4(0x7f000001), 0});
    if (!verify) return verify.error().with("relay: embedded");
    auto shared = std::make_shared<Listener>(std::move(*verify));
    listeners_.push_back(shared);
    spawn(reactor_, "questions of the relay", accept_loop(shared, [this](std::unique_ptr<Stream> stream) {
              return serve_http1(std::move(stream), verify_handler(*coordinator_), Http1ServerOptions{});
          }));
    EmbeddedRelay::Options options;
    options.executable = find_relay_executable();
    if (options.executable.empty())
        return Error::make(
            "relay: embedded: there is no tailrace-relay beside tailrace-control or in the PATH: install "
            "it, or set relay: none");
    options.state_dir = config.state_dir + "/relay";
    options.socket = config.state_dir + "/relay.sock";
    options.hostname = config.server_host();
    options.stun_port = config.relay_stun_port;
    options.verify_url = fmt::format("http://{}/verify", shared->local().text());
    options.log_level = config.log_level;
    options.on_key = [this](const NodeKey& key) { show_relay_key(key); };
    auto relay = EmbeddedRelay::start(reactor_, std::move(options));
    if (!relay) return relay.error().with("relay: embedded");
    relay_ = std::move(*relay);
    return {};
}

/// Clients that see it in our TLS need not wait for the relay's answer (derp-disco-paths.md 1.2).
void Server::show_relay_key(const NodeKey& key) {
    if (!identity_ || relay_key_ == key) return;
    auto context = TlsContext::server(*identity_);
    auto added = context ? add_name_certificate(*context, derp::name_of_key(key), derp::kVersion)
                         : Result<void>{context.error()};
    if (!added) return log::warn("clients of the embedded relay start slower", {{"error", added.error()}});
    tls_ = std::move(*context);
    relay_key_ = key;
}

Result<void> Server::listen() {
    const ControlConfig& config = coordinator_->config();
    auto serve_plain = [](HttpHandler handler) -> Serve {
        return [handler = std::move(handler)](std::unique_ptr<Stream> stream) {
            return serve_http1(std::move(stream), handler, Http1ServerOptions{});
        };
    };
    if (auto done = listen_admin(); !done) return done;
    if (auto done = config.embedded_relay ? start_relay() : Result<void>{}; !done) return done;
    if (config.listen.enabled) {
        auto done = listen_tcp("listen", config.listen, serve_plain(public_api()));
        if (!done) return done;
    }
    if (config.metrics_listen.enabled) {
        auto done = listen_tcp("metrics_listen", config.metrics_listen, serve_plain(metrics_handler(*coordinator_)));
        if (!done) return done;
    }
    if (!config.listen_tls.enabled) return {};
    auto identity = load_tls_identity(config);
    if (!identity) return identity.error();
    auto context = TlsContext::server(*identity);
    if (!context) return context.error().with("TLS certificate {}", config.tls_certificate);
    tls_ = std::move(*context);
    identity_ = std::move(*identity);
    auto done = listen_tcp("listen_tls", config.listen_tls,
                           [this](std::unique_ptr<Stream> stream) { return serve_tls(std::move(stream)); });
    if (done || !config.listen_tls_is_default || config.embedded_relay) return done;
    log::warn("not serving TLS: clients of a public http:// address will not find back after a restart",
              {{"error", done.error()}});
    return {};
}

/// Of the file, what can change while we run.
void Server::reload_config() {
    if (config_file_.empty()) return;
    auto config = load_config(config_file_);
    if (!config)
        return log::error("the configuration is not in order: what is in force stays", {{"error", config.error()}});
    coordinator_->set_dns(config->dns);
}

Task<void> Server::run_until_signal() {
    for (;;) {
        int signal = co_await reactor_.wait_for_signal();
        if (signal != SIGHUP) break;
        notify_service_manager(reloading_state());
        reload_config();
        co_await coordinator_->reload_policy_file();
        notify_service_manager("READY=1");
    }
    notify_service_manager("STOPPING=1");
    for (auto& listener : listeners_) listener->close();
    if (relay_) co_await relay_->stop();
    co_await coordinator_->stop();
    reactor_.stop();
}

/// One server a state directory: the lock goes with the process.
Result<Fd> lock_state_directory(const std::string& directory) {
    std::string path = directory + "/lock";
    Fd lock{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (!lock) return Error::from_errno(errno, "open {}", path);
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
        return Error::make("another tailrace-control uses the state directory {}: stop it, or set another state_dir in "
                           "the configuration",
                           directory);
    return lock;
}

/// The policy in force: the configured file, else the store, else the empty one, which allows everything.
Result<std::shared_ptr<const Document>> load_policy(const ControlConfig& config, const StoredTailnet& stored) {
    std::string text = stored.policy.value_or("");
    std::string where = "the stored policy";
    if (!config.policy_file.empty()) {
        auto file = read_policy_file(config.policy_file);
        if (!file)
            return Error::make("policy_file: {}: name a file that can be read, or take the setting away",
                               file.error().message());
        text = std::move(*file);
        where = config.policy_file;
    }
    auto document = Document::parse(text);
    if (!document && config.policy_file.empty()) { // is changed by asking this server: that must be up
        auto refusal = document.error();
        document = Document::parse(text, nullptr, PolicyIs::InForce);
        if (document) log::warn("the stored policy would be refused now: it stays in force", {{"error", refusal}});
    }
    if (!document) return document.error().with("{}", where);
    return std::make_shared<const Document>(std::move(*document));
}

void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit); // best effort: fewer clients then
}

Result<void> run(const std::string& config_file) {
    ControlConfig config = default_config();
    if (!config_file.empty()) {
        auto loaded = load_config(config_file);
        if (!loaded) return loaded.error();
        config = std::move(*loaded);
    }
    log::set_level(config.log_level);
    log::set_format(config.log_format);
    if (auto made = make_directories(config.state_dir, 0700); !made) return made.error().with("state_dir");
    auto lock = lock_state_directory(config.state_dir);
    if (!lock) return lock.error();
    auto key = load_noise_key(config.state_dir);
    if (!key) return key.error();
    auto fixed = load_fixed_parts(config);
    if (!fixed) return fixed.error();
    auto store = SqliteStore::open(config.state_dir + "/control.db");
    if (!store) return store.error();
    auto stored = (*store)->load();
    if (!stored) return stored.error();
    auto policy = load_policy(config, *stored);
    if (!policy) return policy.error();

    raise_descriptor_limit();
    Reactor reactor;
    reactor.catch_signals({SIGTERM, SIGINT, SIGHUP});
    std::size_t nodes = stored->nodes.size();
    auto coordinator = std::make_unique<Coordinator>(reactor, std::move(config), std::move(*store), std::move(*stored),
                                                     std::move(*policy), std::move(*fixed));
    if (auto good = coordinator->check_policy_in_force(); !good) {
        // A stored policy was good when it was set, and is changed by asking this server: that must be up.
        if (const auto& file = coordinator->config().policy_file; !file.empty()) return good.error().with("{}", file);
        log::warn("the stored policy is no longer in order: it stays in force", {{"error", good.error()}});
    }
    Server server{reactor, std::move(coordinator), *key, config_file};
    if (auto listening = server.listen(); !listening) return listening;
    spawn(reactor, "signals", server.run_until_signal());
    log::info("ready", {{"url", server.tailnet().settings().server_url}, {"nodes", nodes}});
    feed_watchdog(reactor);
    notify_service_manager("READY=1");
    reactor.run();
    return {};
}

} // namespace

int serve(const std::string& config_file) {
    auto done = run(config_file);
    if (done) return 0;
    std::fprintf(stderr, "tailrace-control: %s\n", done.error().message().c_str());
    return 1;
}

} // namespace tailrace
