// `tailrace bugreport`: everything that helps somebody else to see what is wrong, and nothing secret.
#include "agent/cli/commands.hpp"
#include "agent/cli/run_program.hpp"
#include "agent/cli/scrub.hpp"
#include "agent/config/config.hpp"
#include "agent/local/pretty_json.hpp"
#include "agent/version.hpp"
#include "base/file.hpp"
#include "base/text.hpp"

#include <limits.h>
#include <unistd.h>

#include <algorithm>

namespace tailrace::cli {
namespace {

constexpr std::size_t kSectionLimit = 1 << 20;
constexpr auto kPatience = std::chrono::seconds{10};

class Report {
public:
    void section(const std::string& title, std::string_view text) {
        text_ += fmt::format("\n===== {} =====\n{}{}", title, text, text.ends_with('\n') ? "" : "\n");
    }
    void program(const std::vector<std::string>& command) {
        auto output = run_program(command, Stderr::Merge, kSectionLimit, kPatience);
        std::string title = join(command, " ");
        if (!output) return section(title, output.error().message());
        section(title,
                output->status == 0 ? output->text : fmt::format("{}(ended with {})\n", output->text, output->status));
    }
    void file(const std::string& path) {
        auto text = read_file(path, kSectionLimit);
        section(path, text ? *text : text.error().message());
    }
    std::string text() const { return scrub_secrets(text_); }

private:
    std::string text_;
};

void add_machine(Report& report, const std::string& device) {
    report.program({"uname", "-a"});
    report.file("/etc/os-release");
    report.program({"uptime"});
    report.file(kAgentConfigFile);
    report.file("/etc/default/tailraced");
    report.program({"ip", "-details", "-statistics", "link", "show"});
    report.program({"ip", "address", "show"});
    for (const char* family : {"-4", "-6"}) {
        report.program({"ip", family, "rule", "show"});
        report.program({"ip", family, "route", "show", "table", "all"});
    }
    report.program({"wg", "show", device}); // prints "(hidden)" for secrets
    report.program({"nft", "-a", "list", "ruleset"});
    report.program({"tc", "filter", "show", "dev", device, "ingress"});
    report.program({"tc", "filter", "show", "dev", device, "egress"});
    report.program({"bpftool", "net", "show"});
    report.program({"sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter",
                    "net.ipv4.conf.all.src_valid_mark", "net.core.bpf_jit_enable"});
    report.program({"systemctl", "status", "--no-pager", "--full", "tailraced.service", "tailraced.socket"});
    report.program({"journalctl", "--unit", "tailraced", "--lines", "1000", "--no-pager", "--output", "short-iso"});
}

/// As a part of a file name.
std::string host_name() {
    char name[HOST_NAME_MAX + 1] = {};
    if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0' || name[0] == '.') return "host";
    std::string out = name;
    std::replace(out.begin(), out.end(), '/', '-');
    return out;
}

} // namespace

Task<int> bugreport(LocalClient& client, std::string output) {
    WallTime now = WallTime::now();
    std::string stamp;
    for (char c : now.text().substr(0, 19))
        if (c != '-' && c != ':') stamp += c;
    if (output.empty()) output = fmt::format("tailrace-bugreport-{}-{}Z.txt", host_name(), stamp);
    Report report;
    report.section("tailrace bugreport", fmt::format("version {}\nmade {}\n", kVersion, now.text()));
    DaemonOptions daemon;
    if (auto config = load_agent_config(kAgentConfigFile)) daemon = config->daemon;
    auto findings = co_await doctor_findings(client);
    report.section("tailrace doctor", findings_text(findings));
    struct Question {
        const char* title;
        const char* method;
        const char* target;
    };
    for (const Question& ask :
         {Question{"status", "GET", "/localapi/v0/status"}, Question{"preferences", "GET", "/localapi/v0/prefs"},
          Question{"paths", "GET", "/localapi/v0/debug-paths"},
          Question{"filter", "GET", "/localapi/v0/debug-packet-filter-rules"},
          Question{"drops", "GET", "/localapi/v0/debug-drops"}, Question{"relays", "GET", "/localapi/v0/derpmap"},
          Question{"netcheck", "POST", "/localapi/v0/netcheck"}}) {
        auto answer = co_await client.request(ask.method, ask.target, "");
        report.section(ask.title, answer ? pretty_json(*answer, "  ") : answer.error().message());
    }
    add_machine(report, daemon.device);
    if (output == "-") {
        fmt::print("{}", report.text());
        co_return 0;
    }
    if (auto written = write_file_atomically(output, report.text(), 0600); !written)
        co_return fail(written.error().message());
    fmt::print("{}\nIt has no keys in it, but names and addresses of this tailnet: look through it before you pass it "
               "on.\n",
               output);
    co_return 0;
}

} // namespace tailrace::cli
