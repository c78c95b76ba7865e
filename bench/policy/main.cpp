// bench/policy: how long does a policy take from its text to every node's filter and view, and how long when one node
// has changed? One core, one process, no server.
#include "bench/policy/company.hpp"
#include "policy/compile.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <sys/resource.h>

using namespace tailrace;

namespace {

/// Of this process, on a core: others may use the machine too.
struct Clock {
    using time_point = std::chrono::nanoseconds;
    static time_point now() {
        timespec time{};
        ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
        return std::chrono::seconds{time.tv_sec} + std::chrono::nanoseconds{time.tv_nsec};
    }
};

double milliseconds_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

/// Of this process, at its highest.
double peak_megabytes() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) / 1024;
}

/// What a server asks after each compilation: what every node's filter is like, and its view.
struct Answers {
    std::vector<ContentHash> filters;
    std::vector<CompiledPolicy::NodeList> views;
};

Answers ask_everything(const CompiledPolicy& policy) {
    Answers answers;
    for (const auto& node : policy.tailnet().nodes) {
        answers.filters.push_back(policy.filter_id(node.id));
        answers.views.push_back(policy.view_of(node.id));
    }
    return answers;
}

struct Row {
    std::string what;
    double milliseconds = 0;            ///< until it is decided who may what and who sees whom
    double writing = 0;                 ///< until the filters of the nodes concerned are made as well
    std::size_t filters = 0, views = 0; ///< how many nodes have others than before
};

Row change_one(const char* what, const std::shared_ptr<const CompiledPolicy>& before,
               const std::function<void(Tailnet&)>& change) {
    const auto last = ask_everything(*before);
    Row row{what, 1e9, 1e9, 0, 0};
    for (int round = 0; round < 3; ++round) { // others use this machine too: the best counts
        Tailnet tailnet = before->tailnet();
        change(tailnet);
        choose_primaries(tailnet);
        const auto begin = Clock::now();
        const auto after = CompiledPolicy::compile(before->shared_document(), std::move(tailnet), before.get());
        const auto now = ask_everything(*after);
        row.milliseconds = std::min(row.milliseconds, milliseconds_since(begin));
        const auto decided = Clock::now();
        row.filters = row.views = 0;
        std::size_t old = 0;
        const auto& nodes = before->tailnet().nodes;
        for (std::size_t i = 0; i < now.filters.size(); ++i) {
            const auto id = after->tailnet().nodes[i].id;
            while (old < nodes.size() && nodes[old].id < id) ++old;
            const bool known = old < nodes.size() && nodes[old].id == id;
            if (!known || now.views[i] != last.views[old]) ++row.views;
            if (known && now.filters[i] == last.filters[old]) continue;
            ++row.filters;
            (void)after->rules_for(id); // this node is sent its new filter
        }
        row.writing = std::min(row.writing, milliseconds_since(decided));
    }
    return row;
}

} // namespace

int main(int argc, char** argv) {
    std::size_t nodes = 10'000;
    std::size_t rules = 5'000;
    bool json = false;
    CLI::App app{"How long does a policy take to compile?"};
    app.add_option("--nodes", nodes, "devices in the tailnet")->capture_default_str()->check(CLI::Range(100, 100'000));
    app.add_option("--rules", rules, "acls and grants in the policy")
        ->capture_default_str()
        ->check(CLI::Range(4, 100'000));
    app.add_flag("--json", json, "print JSON");
    CLI11_PARSE(app, argc, argv);

    auto tailnet = bench_tailnet(nodes);
    const auto text = bench_policy(nodes, rules);
    std::vector<Row> rows;
    auto begin = Clock::now();
    auto parsed = Document::parse(text);
    if (!parsed) {
        fmt::print(stderr, "bench/policy: {}\n", parsed.error());
        return 1;
    }
    Row all{"from nothing", milliseconds_since(begin), 0, nodes, nodes};
    rows.push_back({"  read the text", all.milliseconds, 0, 0, 0});
    const auto step = [&](const char* what, const std::function<void()>& work) {
        const auto from = Clock::now();
        work();
        rows.push_back({what, milliseconds_since(from), 0, 0, 0});
        all.milliseconds += rows.back().milliseconds;
    };
    auto document = std::make_shared<const Document>(std::move(*parsed));
    std::shared_ptr<const CompiledPolicy> policy;
    step("  resolve the rules", [&] { policy = CompiledPolicy::compile(document, tailnet); });
    step("  who sees whom", [&] {
        for (const auto& node : tailnet.nodes) (void)policy->view_of(node.id);
    });
    step("  who may send what to whom", [&] {
        for (const auto& node : tailnet.nodes) (void)policy->filter_id(node.id);
    });
    const auto writing = Clock::now();
    for (const auto& node : tailnet.nodes) (void)policy->rules_for(node.id);
    all.writing = milliseconds_since(writing);
    rows.insert(rows.begin(), all);
    const auto peak = peak_megabytes();

    rows.push_back(
        change_one("a server gets a tag", policy, [](Tailnet& all) { all.nodes[600].tags.push_back("tag:t7"); }));
    rows.push_back(change_one("a person's device is new", policy, [](Tailnet& all) {
        auto node = all.nodes[100];
        node.id = all.nodes.back().id + 1;
        node.addresses = {*IpAddress::parse("100.99.0.1"), *IpAddress::parse("fd7a:115c:a1e0::9999")};
        all.nodes.push_back(std::move(node));
    }));
    rows.push_back(
        change_one("a device is gone", policy, [](Tailnet& all) { all.nodes.erase(all.nodes.begin() + 5000); }));
    rows.push_back(change_one("a router goes offline", policy, [](Tailnet& all) { all.nodes[0].online = false; }));
    rows.push_back(change_one("a router gets a route", policy,
                              [](Tailnet& all) { all.nodes[0].routes.push_back(*IpPrefix::parse("10.200.0.0/24")); }));

    if (json) {
        fmt::print("{{\"nodes\":{},\"rules\":{},\"peak_mb\":{:.1f},\"rows\":[", nodes, rules, peak);
        for (const auto& row : rows)
            fmt::print("{}{{\"what\":\"{}\",\"compile_ms\":{:.2f},\"write_ms\":{:.2f},\"filters\":{},\"views\":{}}}",
                       &row == &rows.front() ? "" : ",", row.what.substr(row.what.find_first_not_of(' ')),
                       row.milliseconds, row.writing, row.filters, row.views);
        fmt::print("]}}\n");
        return 0;
    }
    fmt::print("{} nodes, {} rules, {} KB of policy\n", nodes, rules, text.size() / 1024);
    fmt::print("{:<30} {:>12} {:>12} {:>9} {:>9}\n", "", "compile ms", "+ write ms", "filters", "views");
    for (const auto& row : rows)
        fmt::print("{:<30} {:>12.2f} {:>12.2f} {:>9} {:>9}\n", row.what, row.milliseconds, row.writing, row.filters,
                   row.views);
    fmt::print("{:<30} {:>12.1f} MB\n", "memory at its highest", peak);
    return 0;
}
