// tailraced - the agent.
#include "agent/backend.hpp"
#include "agent/command_line.hpp"
#include "agent/config/follow.hpp"
#include "agent/dataplane/other_schemas.hpp"
#include "agent/local/metrics_server.hpp"
#include "agent/local/server.hpp"
#include "agent/version.hpp"
#include "base/file.hpp"
#include "base/io/reactor.hpp"
#include "base/io/socket.hpp"
#include "base/io/watchdog.hpp"
#include "base/log.hpp"
#include "base/service.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <malloc.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using namespace tailrace;

constexpr const char* kBpffs = "/sys/fs/bpf";
/// To try again is no use; debian/tailraced.service names it.
constexpr int kExitStartAnother = 78; // EX_CONFIG of sysexits.h

/// Whether this process may do what a data plane needs. One sentence when not.
Result<void> check_privileges() {
    std::uint32_t mark = Engine::kMark;
    Fd udp{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    if (!udp || ::setsockopt(udp.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0)
        return Error::make(
            "tailraced needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF; start it as root or with \"sudo systemctl "
            "start tailraced\"");
    Fd raw{::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)};
    if (!raw) return Error::make("tailraced needs CAP_NET_RAW for path discovery; start it as root or with systemd");
    return {};
}

/// The device that we will adopt holds the port itself.
Result<void> check_port(const EngineOptions& options) {
    if (::if_nametoindex(options.device.c_str()) != 0 || options.port == 0) return {};
    Fd udp{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    sockaddr_storage address{};
    socklen_t length = Endpoint{IpAddress::v4(0), options.port}.to_sockaddr(address);
    if (udp && ::bind(udp.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 && errno == EADDRINUSE)
        return Error::make(
            "UDP port {} is in use by another program; choose another one with --port, or stop that program",
            options.port);
    return {};
}

Task<void> follow_signals(Reactor& reactor, Backend& backend, ConfigFollower& config) {
    int signal = 0;
    for (;;) {
        signal = co_await reactor.wait_for_signal();
        if (signal != SIGHUP) break;
        notify_service_manager(reloading_state());
        config.reload();
        notify_service_manager("READY=1");
    }
    notify_service_manager("STOPPING=1");
    if (config.on_stop() == OnStop::Down) {
        log::info("stopping; traffic ends", {{"signal", signal}});
        if (auto down = co_await backend.take_down(); !down)
            log::error("not everything was taken back; \"tailraced --cleanup\" tries again", {{"error", down.error()}});
    } else {
        log::info("stopping; traffic stays as it is", {{"signal", signal}});
        backend.park();
        co_await backend.announce_restart();
        backend.stop();
    }
    // Nobody answers for a while. Names of the tailnet are not known then, and all others are.
    auto restored = config.on_stop() == OnStop::Down ? backend.restore_dns(Prefs{}) : backend.restore_dns();
    if (!restored) log::error("names are still asked of tailraced", {{"error", restored.error()}});
    reactor.stop();
}

int fail(const Error& error) {
    fmt::print(stderr, "tailraced: {}\n", error.message());
    return 1;
}

/// What `systemctl stop` leaves in the kernel goes: for the removal of the package, and for who wants a clean slate.
int clean_up(const DaemonOptions& daemon, const BackendOptions& options) {
    Reactor reactor;
    Result<void> outcome;
    auto body = [](Reactor& loop, BackendOptions backend, std::string socket, Result<void>& out) -> Task<void> {
        if (auto answered = co_await dial_unix(loop, socket)) {
            out = Error::make("a tailraced answers at {}: stop it first, or run \"tailrace down\"", socket);
        } else {
            auto restored = resolv_conf_of(backend).restore();
            out = co_await Engine{loop, std::move(backend.engine)}.down(std::nullopt);
            if (out) out = restored;
        }
        loop.stop();
    };
    spawn(reactor, "clean up", body(reactor, options, daemon.socket, outcome));
    reactor.run();
    return outcome ? 0 : fail(outcome.error().with("--cleanup"));
}

/// What an agent that starts now will go by.
Result<Prefs> prefs_to_be(const Backend& backend, const AgentConfig& config) {
    return config.declares_prefs ? declared_prefs(config, backend.prefs()) : backend.prefs();
}

/// At boot, from what state and configuration say, so that no service sends past an exit node before the agent is there
/// (debian/tailrace.tailraced-close.service). What an agent that runs has made stays as it is.
int close_way(BackendOptions options, const AgentConfig& config) {
    Reactor reactor;
    auto backend = Backend::create(reactor, std::move(options));
    if (!backend) return fail(backend.error().with("--close"));
    auto prefs = prefs_to_be(**backend, config);
    auto closed = prefs ? (*backend)->close_before_start(*prefs) : prefs.error();
    return closed ? 0 : fail(closed.error().with("--close"));
}

/// After an end that was not orderly. Without a state that can be read there is no exit node past which names could
/// leak.
int restore_dns(const BackendOptions& options, const AgentConfig& config) {
    Reactor reactor;
    auto backend = Backend::create(reactor, options);
    auto prefs = backend ? prefs_to_be(**backend, config) : backend.error();
    auto restored = prefs ? (*backend)->restore_dns(*prefs) : resolv_conf_of(options).restore();
    return restored ? 0 : fail(restored.error().with("--restore-dns"));
}

/// From the service manager, which keeps it over restarts, or one of our own.
Result<Listener> listen(Reactor& reactor, const std::string& socket) {
    if (auto inherited = take_inherited_sockets(); !inherited.empty())
        return Listener::adopt(reactor, std::move(inherited.front()));
    if (auto slash = socket.rfind('/'); slash != std::string::npos && slash > 0)
        if (auto made = make_directories(socket.substr(0, slash), 0755); !made) return made.error();
    auto listener = Listener::unix_socket(reactor, socket, 0666);
    if (!listener && listener.error().code() == EADDRINUSE)
        return Error::make("{}: another tailraced answers there; stop it, or choose another --socket", socket);
    return listener;
}

} // namespace

int main(int argc, char** argv) {
    ParsedCommandLine parsed = parse_command_line(argc, argv);
    if (!parsed.line) return parsed.exit_status;
    CommandLine& line = *parsed.line;
    if (line.version) {
        fmt::print("{}\n", kVersion);
        return 0;
    }
    const DaemonOptions& daemon = line.config.daemon;
    log::set_format(daemon.log_format);
    log::set_level(daemon.log_level);
    BackendOptions options;
    options.state_dir = daemon.state_dir;
    options.port_mapping = daemon.port_mapping;
    options.static_endpoints = daemon.static_endpoints;
    if (daemon.probe_path_mtu != "auto") options.probe_path_mtu = daemon.probe_path_mtu == "on";
    options.engine.device = daemon.device;
    options.engine.port = daemon.port;
    if (line.schema) options.engine.schema = *line.schema;
    if (line.clsact) options.engine.attach = AttachMethod::Clsact;
    auto choice = parse_wireguard_choice(daemon.wireguard);
    if (!choice) return fail(choice.error().with("--wireguard"));
    options.engine.wireguard = *choice;
    if (daemon.steering == "socket") options.engine.steering = SteeringChoice::Socket;
    options.engine.fast_path = daemon.fast_path;
    if (daemon.guard) options.engine.guard = GuardBudget{daemon.guard_rate, daemon.guard_burst};

    if (line.restore_dns) return restore_dns(options, line.config);
    if (auto allowed = check_privileges(); !allowed) return fail(allowed.error());
    if (line.cleanup) return clean_up(daemon, options);
    if (line.close) return close_way(options, line.config);
    if (auto newest = refuse_newer_schema(kBpffs, options.engine.device, options.engine.schema); !newest) {
        int status = fail(newest.error());
        return newest.error().code() == 0 ? kExitStartAnother : status; // else it is worth another try
    }
    if (auto free = check_port(options.engine); !free) return fail(free.error());

    // One heap for all threads, and what is large beside it for good, so that what has been freed can be given back.
    (void)::mallopt(M_ARENA_MAX, 1);
    (void)::mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    ::umask(022);
    Reactor reactor;
    reactor.catch_signals({SIGTERM, SIGINT, SIGHUP});
    auto listener = listen(reactor, daemon.socket);
    if (!listener) return fail(listener.error());
    std::optional<Listener> metrics_listener;
    if (daemon.metrics_listen) {
        auto listening = Listener::tcp(reactor, *daemon.metrics_listen);
        if (!listening) return fail(listening.error().with("metrics-listen {}", daemon.metrics_listen->text()));
        metrics_listener.emplace(std::move(*listening));
    }
    auto backend = Backend::create(reactor, options);
    if (!backend) return fail(backend.error());
    LocalServer server{reactor, **backend};
    auto read = [argc, argv] { return reread_config(argc, argv); };
    ConfigFollower config{line.config_file, line.config, read, **backend, server};
    (*backend)->start();
    config.apply();
    spawn(reactor, "local API", server.run(*listener));
    MetricsServer metrics_server{reactor, **backend};
    if (metrics_listener) spawn(reactor, "metrics", metrics_server.run(*metrics_listener));
    spawn(reactor, "signals", follow_signals(reactor, **backend, config));
    feed_watchdog(reactor);
    notify_service_manager("READY=1");
    log::info("tailraced is ready",
              {{"version", kVersion}, {"socket", daemon.socket}, {"device", options.engine.device}});
    reactor.run();
    return 0;
}
