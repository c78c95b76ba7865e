// relay/main.cpp - the command line of tailrace-relay. Flags stand above the file.
#include "base/cli/docs.hpp"
#include "relay/server/serve.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>

namespace {

using namespace tailrace;
using namespace tailrace::relay;

// Runs `parse` on the text of a flag, in the words of CLI11 when it fails.
template <typename Parse>
auto flag(CLI::App& app, const std::string& name, auto& into, Parse parse, const std::string& help) {
    return app.add_option_function<std::string>(
        name,
        [&into, parse, name](const std::string& text) {
            auto parsed = parse(text);
            if (!parsed) throw CLI::ValidationError(name, parsed.error().message());
            into = *parsed;
        },
        help);
}

int fail(const Error& error) {
    std::fprintf(stderr, "tailrace-relay: %s\n", error.message().c_str());
    return 1;
}

void add_flags(CLI::App& app, RelayConfig& config) {
    app.set_version_flag("--version", TAILRACE_VERSION);
    app.add_option_function<std::string>(
        "--config", [](const std::string&) {}, "YAML file; flags stand above it"); // by config_file_of()
    flag(app, "--listen", config.listen, parse_listen, "where clients connect: HOST:PORT or :PORT (:443)");
    flag(app, "--listen-http", config.listen_http, parse_listen, "plain HTTP for captive portal checks, such as :80");
    flag(app, "--metrics-listen", config.metrics_listen, parse_listen, "where /metrics and /health are");
    app.add_option("--hostname", config.hostname, "the name or address that clients dial");
    app.add_option("--stun-port", config.stun_port, "UDP port of STUN; -1: none")->check(CLI::Range(-1, 65535));
    flag(app, "--cert-mode", config.cert_mode, parse_cert_mode, "self-signed, files or plain");
    app.add_option("--tls-certificate", config.tls_certificate, "PEM file, for --cert-mode files");
    app.add_option("--tls-key", config.tls_key, "PEM file, for --cert-mode files");
    app.add_option("--state-dir", config.state_dir, "where the relay keeps its keys");
    app.add_option_function<std::string>(
        "--verify-clients", [&config](const std::string& text) { set_verify(config, text); },
        "who may come in: the URL of a control server, or a file with a node key a line");
    app.add_option("--mesh-key", config.mesh_key_file, "file with the key that all relays of the region share");
    app.add_option_function<std::vector<std::string>>(
        "--mesh-with",
        [&config](const std::vector<std::string>& urls) {
            config.mesh_with.clear();
            for (const std::string& url : urls) {
                auto peer = parse_mesh_peer(url);
                if (!peer) throw CLI::ValidationError("--mesh-with", peer.error().message());
                config.mesh_with.push_back(*peer);
            }
        },
        "URLs of the other relays of the region");
    app.add_option("--cores", config.cores, "threads; 0: one for each CPU")->check(CLI::Range(0, 256));
    flag(app, "--log-level", config.log_level, log::parse_level, "debug, info, warning or error");
}

// The file first, whatever the order of the words: flags stand above it.
std::string config_file_of(int argc, char** argv) {
    std::string file;
    for (int i = 1; i < argc; ++i) {
        std::string word = argv[i];
        if (word == "--config" && i + 1 < argc) file = argv[i + 1];
        if (word.starts_with("--config=")) file = word.substr(9);
    }
    return file;
}

Result<void> check(const RelayConfig& config, const std::string& file) {
    auto good = check_config(config);
    if (!good && !file.empty()) return good.error().with("{}", file);
    return good;
}

// When the relay runs already, and the flags have been found good.
Result<RelayConfig> read_again(const std::string& file, int argc, char** argv) {
    auto config = load_config(file);
    if (!config) return config;
    CLI::App app;
    add_flags(app, *config);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Error& error) {
        return Error::make("{}", error.what());
    }
    if (auto good = check(*config, file); !good) return good.error();
    return config;
}

} // namespace

int main(int argc, char** argv) {
    std::string file = config_file_of(argc, argv);
    RelayConfig config = default_config();
    if (!file.empty()) {
        auto loaded = load_config(file);
        if (!loaded) return fail(loaded.error());
        config = std::move(*loaded);
    }
    CLI::App app{
        "A DERP relay with STUN: passes sealed packets between machines that cannot reach each other directly.",
        "tailrace-relay"};
    add_flags(app, config);
    if (wants_command_docs(argc, argv)) {
        std::puts(command_docs(app).c_str());
        return 0;
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2; // and not one of a hundred numbers
    }

    if (auto good = check(config, file); !good) return fail(good.error());
    if (file.empty()) return serve(config, nullptr);
    return serve(config, [=] { return read_again(file, argc, argv); });
}
