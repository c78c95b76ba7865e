#include "agent/command_line.hpp"

#include "base/cli/docs.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <net/if.h>
#include <unistd.h>

namespace tailrace {
namespace {

/// To try again is no use; debian/tailraced.service names it.
constexpr int kExitBadConfig = 78; // EX_CONFIG of sysexits.h

template <typename T, typename Parse>
void parsed(CLI::App& app, const std::string& name, T& into, Parse parse, const std::string& help) {
    app.add_option_function<std::string>(
        name,
        [&into, parse, name](const std::string& text) {
            auto value = parse(text);
            if (!value) throw CLI::ValidationError(name, value.error().message());
            into = *value;
        },
        help);
}

void declare(CLI::App& app, CommandLine& line) {
    DaemonOptions& daemon = line.config.daemon;
    app.add_option("--config", line.config_file,
                   "configuration file; flags stand above it. \"optional:FILE\" may be missing");
    app.add_option("--state-dir", daemon.state_dir, "directory of the state, kept between starts")
        ->capture_default_str();
    app.add_option("--socket", daemon.socket, "path of the socket for tailrace")->capture_default_str();
    app.add_option("--device", daemon.device, "name of the WireGuard device")->capture_default_str();
    app.add_option("--port", daemon.port, "UDP port for WireGuard and path discovery")
        ->capture_default_str()
        ->envname("PORT");
    app.add_flag_callback(
        "--no-port-mapping", [&daemon] { daemon.port_mapping = false; },
        "do not ask the gateway to forward the port (NAT-PMP, PCP, UPnP)");
    parsed(app, "--static-endpoints", daemon.static_endpoints, parse_static_endpoints,
           "addresses at which peers reach the port besides those that tailraced finds, as by a forward on a router: "
           "ADDRESS:PORT, commas between them");
    app.add_option("--probe-path-mtu", daemon.probe_path_mtu,
                   "whether path discovery finds out how large packets to peers may be, for \"tailrace debug paths\": "
                   "auto (where control asks for it), on, or off")
        ->check(CLI::IsMember({"auto", "on", "off"}))
        ->capture_default_str();
    app.add_flag_callback(
        "--no-fast-path", [&daemon] { daemon.fast_path = false; },
        "forwarded flows always take the host's whole way, none is kept in a flow table of nftables");
    app.add_flag_callback(
        "--guard", [&daemon] { daemon.guard = true; },
        "drop what cannot be WireGuard, and floods of handshakes, in the network drivers (XDP)");
    app.add_option("--guard-rate", daemon.guard_rate,
                   "with --guard: handshakes a second from unknown sources, all together")
        ->check(CLI::Range(1, 1'000'000))
        ->capture_default_str();
    app.add_option("--guard-burst", daemon.guard_burst, "with --guard: as many of them may come at once")
        ->check(CLI::Range(1, 1'000'000))
        ->capture_default_str();
    parsed(app, "--metrics-listen", daemon.metrics_listen, parse_metrics_address,
           "serve metrics for Prometheus by HTTP at this ADDRESS:PORT, path /metrics; off when not given");
    app.add_option("--wireguard", daemon.wireguard, "auto, kernel, or uapi (a userspace implementation)")
        ->check(CLI::IsMember({"auto", "kernel", "uapi"}))
        ->capture_default_str();
    app.add_option(
           "--steering", daemon.steering,
           "how path discovery hears on WireGuard's port: auto (a packet program), or socket (raw sockets, slower)")
        ->check(CLI::IsMember({"auto", "socket"}))
        ->capture_default_str();
    parsed(app, "--on-stop", daemon.on_stop, parse_on_stop,
           "what an orderly stop does with traffic: keep (it goes on in the kernel), or down");
    parsed(app, "--log-format", daemon.log_format, log::parse_format, "auto, text, json or journal");
    parsed(app, "--log-level", daemon.log_level, log::parse_level, "debug, info, warning or error");
    app.add_flag("--cleanup", line.cleanup,
                 "take back everything that tailraced has put into the kernel and /etc/resolv.conf, and end; no "
                 "tailraced may be running");
    app.add_flag(
        "--close", line.close,
        "put what keeps traffic from leaving past the chosen exit node into the kernel, and end; for the boot, "
        "before there is a network");
    app.add_flag("--restore-dns", line.restore_dns,
                 "put back what /etc/resolv.conf said without tailraced, and end; for when it has ended, however");
    // For tests only, and so not in the help: the same program as its own predecessor or successor in an upgrade of the
    // packet programs; the way of older kernels to attach them.
    app.add_option("--schema", line.schema)->group("");
    app.add_flag("--clsact", line.clsact)->group("");
    app.add_flag("--version", line.version, "print the version");
}

/// FILE of "--config FILE" or "--config=FILE", whatever the order of the words.
std::string config_argument(int argc, char** argv) {
    std::string file;
    for (int i = 1; i < argc; ++i) {
        std::string word = argv[i];
        if (word == "--config" && i + 1 < argc) file = argv[i + 1];
        if (word.starts_with("--config=")) file = word.substr(9);
    }
    constexpr std::string_view kOptional = "optional:";
    if (!file.starts_with(kOptional)) return file;
    file.erase(0, kOptional.size());
    return ::access(file.c_str(), F_OK) == 0 ? file : "";
}

constexpr const char* kAbout = "The agent of a tailnet node: WireGuard in the kernel, policy in eBPF.";

} // namespace

ParsedCommandLine parse_command_line(int argc, char** argv) {
    CommandLine line;
    CLI::App app{kAbout, "tailraced"};
    if (wants_command_docs(argc, argv)) {
        declare(app, line);
        fmt::print("{}\n", command_docs(app));
        return {};
    }
    std::string file = config_argument(argc, argv);
    if (!file.empty()) {
        auto loaded = load_agent_config(file);
        if (!loaded) {
            fmt::print(stderr, "tailraced: {}\n", loaded.error().message());
            return {std::nullopt, kExitBadConfig};
        }
        line.config = std::move(*loaded);
    }
    declare(app, line);
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& help) {
        return {std::nullopt, app.exit(help)};
    } catch (const CLI::ParseError& error) {
        fmt::print(stderr, "tailraced: {}\n", error.what());
        return {std::nullopt, 2};
    }
    line.config_file = std::move(file);
    const std::string& device = line.config.daemon.device;
    if (device.empty() || device.size() >= IFNAMSIZ) {
        fmt::print(stderr, "tailraced: --device \"{}\": an interface name has 1 to {} characters\n", device,
                   IFNAMSIZ - 1);
        return {std::nullopt, 1};
    }
    return {std::move(line), 0};
}

Result<AgentConfig> reread_config(int argc, char** argv) {
    CommandLine line;
    if (std::string file = config_argument(argc, argv); !file.empty()) {
        auto loaded = load_agent_config(file);
        if (!loaded) return loaded.error();
        line.config = std::move(*loaded);
    }
    CLI::App app{kAbout, "tailraced"};
    declare(app, line);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return Error::make("{}", error.what()); // they were good at the start
    }
    return std::move(line.config);
}

} // namespace tailrace
