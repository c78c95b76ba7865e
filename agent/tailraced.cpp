// tailraced - the agent.
#include "agent/backend.hpp"
#include "agent/dataplane/other_schemas.hpp"
#include "agent/local/server.hpp"
#include "agent/version.hpp"
#include "base/cli/docs.hpp"
#include "base/file.hpp"
#include "base/io/reactor.hpp"
#include "base/log.hpp"
#include "base/service.hpp"

#include <CLI/CLI.hpp>

#include <cerrno>
#include <csignal>
#include <cstdio>
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

Task<void> wait_for_end(Reactor& reactor, Backend& backend) {
    int signal = co_await reactor.wait_for_signal();
    log::info("stopping; traffic stays as it is", {{"signal", signal}});
    notify_service_manager("STOPPING=1");
    backend.park();
    backend.stop();
    reactor.stop();
}

int fail(const Error& error) {
    fmt::print(stderr, "tailraced: {}\n", error.message());
    return 1;
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"The agent of a tailnet node: WireGuard in the kernel, policy in eBPF.", "tailraced"};
    BackendOptions options;
    options.state_dir = "/var/lib/tailrace";
    std::string socket = "/run/tailrace/tailraced.sock", wireguard = "auto", steering = "auto", log_format = "auto",
                log_level = "info";
    bool version = false, no_port_mapping = false;
    app.add_option("--state-dir", options.state_dir, "directory of the state, kept between starts")
        ->capture_default_str();
    app.add_option("--socket", socket, "path of the socket for tailrace")->capture_default_str();
    app.add_option("--device", options.engine.device, "name of the WireGuard device")->capture_default_str();
    app.add_option("--port", options.engine.port, "UDP port for WireGuard and path discovery")->capture_default_str();
    app.add_flag("--no-port-mapping", no_port_mapping,
                 "do not ask the gateway to forward the port (NAT-PMP, PCP, UPnP)");
    app.add_option("--wireguard", wireguard, "auto, kernel, or uapi (a userspace implementation)")
        ->capture_default_str();
    app.add_option(
           "--steering", steering,
           "how path discovery hears on WireGuard's port: auto (a packet program), or socket (raw sockets, slower)")
        ->capture_default_str();
    app.add_option("--log-format", log_format, "auto, text, json or journal")->capture_default_str();
    app.add_option("--log-level", log_level, "debug, info, warning or error")->capture_default_str();
    // For tests only, and so not in the help: the same program as its own predecessor or successor in an upgrade of the
    // packet programs.
    app.add_option("--schema", options.engine.schema)->group("");
    app.add_flag("--version", version, "print the version");
    if (wants_command_docs(argc, argv)) {
        fmt::print("{}\n", command_docs(app));
        return 0;
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const CLI::ParseError& error) {
        fmt::print(stderr, "tailraced: {}\n", error.what());
        return 2;
    }
    if (version) {
        fmt::print("{}\n", kVersion);
        return 0;
    }
    auto format = log::parse_format(log_format);
    auto level = log::parse_level(log_level);
    if (!format || !level) return fail(format ? level.error() : format.error());
    log::set_format(*format);
    log::set_level(*level);
    auto choice = parse_wireguard_choice(wireguard);
    if (!choice) return fail(choice.error().with("--wireguard"));
    options.engine.wireguard = *choice;
    if (steering != "auto" && steering != "socket")
        return fail(Error::make("--steering \"{}\": want auto or socket", steering));
    if (steering == "socket") options.engine.steering = SteeringChoice::Socket;
    options.port_mapping = !no_port_mapping;
    if (options.engine.device.empty() || options.engine.device.size() >= IFNAMSIZ)
        return fail(Error::make("--device \"{}\": an interface name has 1 to {} characters", options.engine.device,
                                IFNAMSIZ - 1));

    if (auto allowed = check_privileges(); !allowed) return fail(allowed.error());
    if (auto newest = refuse_newer_schema(kBpffs, options.engine.device, options.engine.schema); !newest) {
        (void)fail(newest.error());
        return kExitStartAnother;
    }
    if (auto free = check_port(options.engine); !free) return fail(free.error());

    ::umask(022);
    Reactor reactor;
    reactor.catch_signals({SIGTERM, SIGINT});
    if (auto slash = socket.rfind('/'); slash != std::string::npos && slash > 0)
        if (auto made = make_directories(socket.substr(0, slash), 0755); !made) return fail(made.error());
    auto listener = Listener::unix_socket(reactor, socket, 0666);
    if (!listener) {
        if (listener.error().code() == EADDRINUSE)
            return fail(
                Error::make("{}: another tailraced answers there; stop it, or choose another --socket", socket));
        return fail(listener.error());
    }
    auto backend = Backend::create(reactor, options);
    if (!backend) return fail(backend.error());
    LocalServer server{reactor, **backend};
    (*backend)->start();
    spawn(reactor, "local API", server.run(*listener));
    spawn(reactor, "signals", wait_for_end(reactor, **backend));
    notify_service_manager("READY=1");
    log::info("tailraced is ready", {{"version", kVersion}, {"socket", socket}, {"device", options.engine.device}});
    reactor.run();
    return 0;
}
