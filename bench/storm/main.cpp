// bench/storm/main.cpp - what a control server does when a whole tailnet comes at once.
//
// N nodes register by auth key, then all open their map streams at once, then single nodes change their endpoint.
// Prints a table, and JSON with --json. Works against any server of the protocol.
#include "bench/storm/node.hpp"

#include "base/file.hpp"
#include "base/text.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace tailrace::bench {
namespace {

using namespace std::chrono_literals;

struct Settings {
    std::string url, key;
    int nodes = 1000;
    int at_once = 64; // registrations under way
    int changes = 11;
    int server_pid = 0;
    bool json = false;
};

struct Figures {
    double registrations_per_second = 0;
    double streams_complete_s = 0;
    std::vector<double> change_ms;
    double memory_mb = 0, memory_most_mb = 0, cpu_s = 0;
};

double seconds(Duration duration) {
    return std::chrono::duration<double>(duration).count();
}

// "VmRSS:   1234 kB" -> MB
double status_mb(const std::string& status, std::string_view name) {
    auto at = status.find(name);
    if (at == std::string::npos) return 0;
    return std::strtod(status.c_str() + at + name.size(), nullptr) / 1024;
}

void ask_the_process(int pid, Figures& figures) {
    if (pid == 0) return;
    auto status = read_file(fmt::format("/proc/{}/status", pid));
    if (status) {
        figures.memory_mb = status_mb(*status, "VmRSS:");
        figures.memory_most_mb = status_mb(*status, "VmHWM:");
    }
    auto stat = read_file(fmt::format("/proc/{}/stat", pid));
    if (!stat) return;
    auto fields = split(std::string_view{*stat}.substr(stat->rfind(')') + 2), ' ');
    double ticks = 0;
    for (std::size_t i : {11U, 12U}) // utime and stime, proc(5)
        if (i < fields.size()) ticks += static_cast<double>(parse_number<long>(fields[i]).value_or(0));
    figures.cpu_s = ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

class Storm {
public:
    Storm(Reactor& reactor, Settings settings, Server server)
        : reactor_(reactor), settings_(std::move(settings)), server_(std::move(server)), progress_(reactor) {
        for (int i = 0; i < settings_.nodes; ++i) nodes_.push_back(std::make_unique<Node>(reactor_, server_, ids_, i));
    }

    Task<Result<Figures>> run() {
        Figures figures;
        TimePoint start = reactor_.now();
        auto registering = [this](Node& node) -> Task<Result<void>> { return node.register_with(settings_.key); };
        auto registered = co_await for_all(registering, "registered");
        if (!registered) co_return registered.error();
        figures.registrations_per_second = settings_.nodes / seconds(reactor_.now() - start);
        note("{} nodes registered, {:.0f} a second", settings_.nodes, figures.registrations_per_second);

        auto announcing = [](Node& node) -> Task<Result<void>> {
            return node.announce(fmt::format("198.51.100.{}:{}", node.number() % 250 + 1, 10000 + node.number() / 250));
        };
        auto announced = co_await for_all(announcing, "announced");
        if (!announced) co_return announced.error();

        start = reactor_.now();
        for (auto& node : nodes_) spawn(reactor_, "stream", follow(*node));
        auto complete = [this] { return complete_ == nodes_.size(); };
        auto completed = co_await wait_until(complete, 300s);
        if (!completed) co_return completed.error().with("{} of {} streams know all nodes", complete_, nodes_.size());
        figures.streams_complete_s = seconds(reactor_.now() - start);
        note("all streams know all nodes after {:.2f} s", figures.streams_complete_s);
        co_await reactor_.sleep(2s); // what is still settling is not part of the next question

        for (int i = 0; i < settings_.changes; ++i) {
            awaited_ = fmt::format("203.0.113.{}:{}", i % 250 + 1, 40000 + i);
            have_seen_ = 0;
            start = reactor_.now();
            auto changed = co_await nodes_[static_cast<std::size_t>(i * 7919) % nodes_.size()]->announce(awaited_);
            if (!changed) co_return changed.error();
            auto everyone = [this] { return have_seen_ + 1 >= nodes_.size(); };
            auto seen = co_await wait_until(everyone, 60s);
            if (!seen) co_return seen.error().with("change {}: {} streams have it", i, have_seen_);
            figures.change_ms.push_back(seconds(reactor_.now() - start) * 1000);
            co_await reactor_.sleep(200ms);
        }
        ask_the_process(settings_.server_pid, figures);
        co_return figures;
    }

private:
    template <typename... Args>
    void note(fmt::format_string<Args...> text, Args&&... args) const {
        if (!settings_.json) fmt::print(stderr, "storm: {}\n", fmt::format(text, std::forward<Args>(args)...));
    }

    // Runs `what` for every node, at_once at a time.
    template <typename What>
    Task<Result<void>> for_all(What what, const char* name) {
        done_ = 0;
        failure_.clear();
        std::size_t next = 0;
        auto lane = [](Storm& storm, What job, std::size_t& at) -> Task<void> {
            while (at < storm.nodes_.size() && storm.failure_.empty()) {
                Node& node = *storm.nodes_[at++];
                auto outcome = co_await job(node);
                if (!outcome) storm.failure_ = fmt::format("node {}: {}", node.number(), outcome.error());
                ++storm.done_;
                storm.progress_.notify();
            }
        };
        for (int i = 0; i < settings_.at_once; ++i) spawn(reactor_, name, lane(*this, what, next));
        while (done_ < nodes_.size() && failure_.empty()) co_await progress_.wait();
        if (!failure_.empty()) co_return Error::make("{}", failure_);
        co_return Result<void>{};
    }

    Task<void> follow(Node& node) {
        bool was_complete = false;
        auto on_frame = [this, &was_complete](Node& me, std::string_view json) {
            if (!was_complete && me.nodes_seen() >= nodes_.size()) {
                was_complete = true;
                ++complete_;
            }
            if (!awaited_.empty() && find_text(json, awaited_) != std::string_view::npos) ++have_seen_;
            progress_.notify();
        };
        auto ended = co_await node.follow_map(on_frame);
        failure_ = fmt::format("stream of node {}: {}", node.number(), ended.error());
        progress_.notify();
    }

    template <typename Condition>
    Task<Result<void>> wait_until(Condition condition, Duration limit) {
        TimePoint deadline = reactor_.now() + limit;
        while (!condition()) {
            if (!failure_.empty()) co_return Error::make("{}", failure_);
            if (reactor_.now() > deadline) co_return Error::make("not within {} s", seconds(limit));
            (void)co_await progress_.wait_for(500ms);
        }
        co_return Result<void>{};
    }

    Reactor& reactor_;
    Settings settings_;
    Server server_;
    StableIds ids_;
    Event progress_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::size_t done_ = 0, complete_ = 0, have_seen_ = 0;
    std::string failure_, awaited_;
};

void print(const Settings& settings, Figures figures) {
    std::sort(figures.change_ms.begin(), figures.change_ms.end());
    double median = figures.change_ms.empty() ? 0 : figures.change_ms[figures.change_ms.size() / 2];
    double worst = figures.change_ms.empty() ? 0 : figures.change_ms.back();
    if (settings.json) {
        fmt::print("{{\"nodes\":{},\"registrations_per_second\":{:.1f},\"streams_complete_s\":{:.3f},\"change_median_"
                   "ms\":{:.1f},"
                   "\"change_worst_ms\":{:.1f},\"server_memory_mb\":{:.1f},\"server_memory_most_mb\":{:.1f},\"server_"
                   "cpu_s\":{:.2f}}}\n",
                   settings.nodes, figures.registrations_per_second, figures.streams_complete_s, median, worst,
                   figures.memory_mb, figures.memory_most_mb, figures.cpu_s);
        return;
    }
    fmt::print("{:44} {:>12}\n", "nodes", settings.nodes);
    fmt::print("{:44} {:>12.0f}\n", "registrations a second", figures.registrations_per_second);
    fmt::print("{:44} {:>12.2f}\n", "all streams know all nodes after, s", figures.streams_complete_s);
    fmt::print("{:44} {:>12.1f}\n", "a change at the last stream after, ms, median", median);
    fmt::print("{:44} {:>12.1f}\n", "the same, worst", worst);
    if (settings.server_pid == 0) return;
    fmt::print("{:44} {:>12.1f}\n", "server memory, MB", figures.memory_mb);
    fmt::print("{:44} {:>12.1f}\n", "the same at its most, MB", figures.memory_most_mb);
    fmt::print("{:44} {:>12.2f}\n", "server CPU seconds", figures.cpu_s);
}

Task<void> run(Reactor& reactor, Settings settings, int& status) {
    auto server = co_await find_server(reactor, settings.url);
    if (!server) {
        fmt::print(stderr, "storm: {}\n", server.error());
        reactor.stop();
        co_return;
    }
    Storm storm{reactor, settings, *server};
    auto figures = co_await storm.run();
    if (figures) {
        print(settings, *figures);
        status = 0;
    } else {
        fmt::print(stderr, "storm: {}\n", figures.error());
    }
    std::fflush(stdout);
    std::_Exit(status); // a thousand open streams need no farewell
}

} // namespace
} // namespace tailrace::bench

int main(int argc, char** argv) {
    using namespace tailrace::bench;
    Settings settings;
    CLI::App app{"Loads a control server with a whole tailnet at once."};
    app.add_option("--url", settings.url, "the server, http://HOST:PORT")->required();
    app.add_option("--key", settings.key, "a reusable auth key")->required();
    app.add_option("--nodes", settings.nodes, "how many nodes")->check(CLI::Range(2, 20000));
    app.add_option("--at-once", settings.at_once, "registrations under way at a time")->check(CLI::Range(1, 1000));
    app.add_option("--changes", settings.changes, "single changes to measure")->check(CLI::Range(0, 1000));
    app.add_option("--pid", settings.server_pid, "the server's process, for memory and CPU");
    app.add_flag("--json", settings.json, "print JSON instead of a table");
    CLI11_PARSE(app, argc, argv);
    tailrace::Reactor reactor;
    int status = 1;
    tailrace::spawn(reactor, "storm", run(reactor, settings, status));
    reactor.run();
    return status;
}
