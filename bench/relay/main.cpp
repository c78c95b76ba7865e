// bench/relay/main.cpp - loads a DERP relay of any make: many idle clients, a flood between pairs, a steady trickle.
//
// relay_load --url URL --hello                      one login, and whether it is let in
// relay_load --url URL --pid PID --idle N           memory for each of N idle clients
// relay_load --url URL --pid PID --pairs N          packets for each CPU-second of the server, at full load
// relay_load --url URL --pid PID --pairs N --rate R latency at R packets a second
#include "bench/relay/load_client.hpp"
#include "bench/relay/server_process.hpp"

#include "base/io/http.hpp"

#include <CLI/CLI.hpp>

#include <sys/epoll.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>

namespace tailrace::bench {
namespace {

using namespace std::chrono_literals;

struct Settings {
    std::string url;
    int pid = 0;
    bool hello = false, json = false;
    int idle = 0, pairs = 0, rate = 0;
    int size = 1000, window = 16;
    double seconds = 5, settle = 1;
};

constexpr int kLoginsAtOnce = 100;
constexpr Duration kLoginLimit = 120s;

TimePoint now() {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now());
}
double seconds_of(Duration duration) {
    return std::chrono::duration<double>(duration).count();
}

class Load {
public:
    Load(const RelayAddress& relay, const Settings& settings)
        : relay_(relay), settings_(settings), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

    Result<void> log_in(std::size_t count);
    void rest(Duration duration) {
        for (TimePoint until = now() + duration; now() < until;) turn(until, [](LoadClient&, BytesView) {});
    }
    /// Seconds that it took to log all in.
    double login_seconds() const { return login_seconds_; }
    std::size_t failed() const { return failed_; }

    struct Traffic {
        std::uint64_t sent = 0, received = 0;
        double seconds = 0, cpu_seconds = 0;
        std::vector<float> latency_us; // sorted
        double latency(double part) const {
            if (latency_us.empty()) return 0;
            return latency_us[std::min(latency_us.size() - 1,
                                       static_cast<std::size_t>(part * static_cast<double>(latency_us.size())))];
        }
    };
    Traffic run_pairs();

private:
    template <typename OnPacket>
    void turn(TimePoint until, OnPacket on_packet) {
        epoll_event events[256];
        auto ms = std::chrono::ceil<std::chrono::milliseconds>(until - now()).count();
        int count = ::epoll_wait(epoll_.get(), events, 256, static_cast<int>(std::clamp<std::int64_t>(ms, 0, 1000)));
        for (int i = 0; i < count; ++i) {
            LoadClient& client = *clients_[events[i].data.u64];
            client.on_event([&](BytesView packet) { on_packet(client, packet); });
            watch(client);
        }
    }
    void watch(LoadClient& client) {
        std::uint32_t wanted = client.wanted();
        if (wanted == client.watched) return;
        epoll_event event{};
        event.events = wanted;
        event.data.u64 = client.number();
        if (wanted == 0) {
            (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, client.fd(), nullptr); // it failed
            ++failed_;
            if (first_problem_.empty()) first_problem_ = client.problem();
        } else {
            (void)::epoll_ctl(epoll_.get(), client.watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client.fd(), &event);
        }
        client.watched = wanted;
    }
    void send_one(std::size_t pair, Bytes& packet) {
        auto stamp = static_cast<std::uint64_t>(now().time_since_epoch().count());
        std::memcpy(packet.data(), &stamp, sizeof stamp);
        clients_[2 * pair]->send(clients_[2 * pair + 1]->key(), packet);
        ++outstanding_[pair];
    }

    const RelayAddress& relay_;
    const Settings& settings_;
    Fd epoll_;
    std::vector<std::unique_ptr<LoadClient>> clients_;
    std::vector<int> outstanding_; // by pair: sent and not yet received
    std::size_t failed_ = 0;
    std::string first_problem_;
    double login_seconds_ = 0;
};

Result<void> Load::log_in(std::size_t count) {
    TimePoint start = now();
    std::size_t ready = 0, started = 0;
    while (ready < count) {
        while (started < count && started - ready < kLoginsAtOnce) {
            clients_.push_back(std::make_unique<LoadClient>(relay_, started++));
            if (clients_.back()->state() == LoadClient::State::Failed)
                return Error::make("client {}: {}", started, clients_.back()->problem());
            watch(*clients_.back());
        }
        turn(now() + 100ms, [](LoadClient&, BytesView) {});
        if (failed_ > 0) return Error::make("login: {}", first_problem_);
        for (; ready < started && clients_[ready]->state() == LoadClient::State::Ready; ++ready) {
        }
        if (now() - start > kLoginLimit)
            return Error::make("only {} of {} clients are in after two minutes", ready, count);
    }
    login_seconds_ = seconds_of(now() - start);
    return {};
}

// The first of each pair sends to the second. Without a rate: as much as the window allows.
Load::Traffic Load::run_pairs() {
    auto pairs = static_cast<std::size_t>(settings_.pairs);
    Bytes packet(static_cast<std::size_t>(settings_.size));
    outstanding_.assign(pairs, 0);
    Traffic traffic;
    bool counting = false;
    auto on_packet = [&](LoadClient& client, BytesView arrived) {
        std::uint64_t stamp = 0;
        if (arrived.size() < sizeof stamp) return;
        --outstanding_[client.number() / 2];
        if (!counting) return;
        std::memcpy(&stamp, arrived.data(), sizeof stamp);
        auto age = static_cast<std::uint64_t>(now().time_since_epoch().count()) - stamp;
        ++traffic.received;
        traffic.latency_us.push_back(static_cast<float>(static_cast<double>(age) / 1000));
    };
    TimePoint start = now();
    TimePoint count_from =
        start + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(settings_.settle));
    TimePoint until =
        count_from + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(settings_.seconds));
    TimePoint counted_from{};
    double cpu_before = 0;
    std::uint64_t due_sent = 0;
    while (now() < until) {
        if (!counting && now() >= count_from) {
            counting = true;
            counted_from = now();
            cpu_before = cpu_seconds(settings_.pid);
            traffic = Traffic{};
        }
        if (settings_.rate == 0) {
            for (std::size_t pair = 0; pair < pairs; ++pair) {
                bool any = false;
                // Half a window at a time: what a busy sender does, and the same for every relay.
                if (outstanding_[pair] > settings_.window / 2) continue;
                for (; outstanding_[pair] < settings_.window; any = true, ++traffic.sent) send_one(pair, packet);
                if (any) clients_[2 * pair]->flush();
                watch(*clients_[2 * pair]);
            }
            turn(now() + 10ms, on_packet);
        } else {
            auto due = static_cast<std::uint64_t>(seconds_of(now() - start) * settings_.rate);
            for (; due_sent < due; ++due_sent, ++traffic.sent) {
                std::size_t pair = due_sent % pairs;
                send_one(pair, packet);
                clients_[2 * pair]->flush();
                watch(*clients_[2 * pair]);
            }
            turn(now() + 1ms, on_packet);
        }
        if (failed_ > 0) break;
    }
    traffic.seconds = seconds_of(now() - counted_from);
    traffic.cpu_seconds = cpu_seconds(settings_.pid) - cpu_before;
    std::sort(traffic.latency_us.begin(), traffic.latency_us.end());
    return traffic;
}

Result<RelayAddress> address_of(const std::string& text) {
    auto url = Url::parse(text);
    if (!url) return url.error();
    auto address = IpAddress::parse(url->host);
    if (!address) return Error::make("{}: give the relay's address, not its name", text);
    RelayAddress relay{url->host, {*address, url->port}, {}};
    if (url->scheme == "https") {
        auto tls = TlsContext::client(TlsContext::Verify::None); // a benchmark of a relay, not of authorities
        if (!tls) return tls.error();
        relay.tls = *tls;
    }
    return relay;
}

Result<void> measure(const Settings& settings) {
    auto relay = address_of(settings.url);
    if (!relay) return relay.error();
    Load load{*relay, settings};
    if (settings.hello) {
        if (auto in = load.log_in(1); !in) return in;
        fmt::print("logged in\n");
        return {};
    }
    if (settings.idle > 0) {
        double before = anonymous_kb(settings.pid), cpu_before = cpu_seconds(settings.pid);
        if (auto in = load.log_in(static_cast<std::size_t>(settings.idle)); !in) return in;
        double cpu = cpu_seconds(settings.pid) - cpu_before;
        load.rest(2s);
        double each = (anonymous_kb(settings.pid) - before) / settings.idle;
        if (load.failed() > 0) return Error::make("{} clients were lost while idle", load.failed());
        if (settings.json)
            fmt::print("{{\"idle_clients\":{},\"memory_kb_each\":{:.2f},\"logins_per_second\":{:.0f},\"login_cpu_us\":{"
                       ":.0f}}}\n",
                       settings.idle, each, settings.idle / load.login_seconds(), cpu / settings.idle * 1e6);
        else
            fmt::print("{:40} {:>12}\n{:40} {:>12.2f}\n{:40} {:>12.0f}\n{:40} {:>12.0f}\n", "idle clients",
                       settings.idle, "memory for each, KB", each, "logins a second",
                       settings.idle / load.login_seconds(), "server CPU for a login, us", cpu / settings.idle * 1e6);
        return {};
    }
    if (auto in = load.log_in(2 * static_cast<std::size_t>(settings.pairs)); !in) return in;
    auto traffic = load.run_pairs();
    if (load.failed() > 0) return Error::make("{} clients were thrown out under load", load.failed());
    double lost = traffic.sent > traffic.received ? static_cast<double>(traffic.sent - traffic.received) : 0;
    lost = std::max(0.0, lost - settings.pairs * settings.window); // still on their way at the end
    double per_second = static_cast<double>(traffic.received) / traffic.seconds;
    double per_cpu = traffic.cpu_seconds > 0 ? static_cast<double>(traffic.received) / traffic.cpu_seconds : 0;
    if (settings.json) {
        fmt::print(
            "{{\"pairs\":{},\"size\":{},\"rate\":{},\"packets_per_second\":{:.0f},\"packets_per_cpu_second\":{:.0f},"
            "\"cpu_seconds\":{:.2f},\"lost\":{:.0f},\"latency_us_p50\":{:.0f},\"latency_us_p99\":{:.0f},"
            "\"latency_us_p999\":{:.0f}}}\n",
            settings.pairs, settings.size, settings.rate, per_second, per_cpu, traffic.cpu_seconds, lost,
            traffic.latency(0.5), traffic.latency(0.99), traffic.latency(0.999));
        return {};
    }
    fmt::print("{:40} {:>12}\n", "pairs", settings.pairs);
    fmt::print("{:40} {:>12}\n", "packet size, bytes", settings.size);
    fmt::print("{:40} {:>12.0f}\n", "packets a second", per_second);
    fmt::print("{:40} {:>12.0f}\n", "packets a CPU-second of the server", per_cpu);
    fmt::print("{:40} {:>12.0f}\n", "lost", lost);
    fmt::print("{:40} {:>12.0f}\n", "latency, us, median", traffic.latency(0.5));
    fmt::print("{:40} {:>12.0f}\n", "99 %", traffic.latency(0.99));
    fmt::print("{:40} {:>12.0f}\n", "99.9 %", traffic.latency(0.999));
    return {};
}

} // namespace
} // namespace tailrace::bench

int main(int argc, char** argv) {
    using namespace tailrace::bench;
    Settings settings;
    CLI::App app{"Loads a DERP relay."};
    app.add_option("--url", settings.url, "the relay, http(s)://ADDRESS:PORT")->required();
    app.add_option("--pid", settings.pid, "the server's process, for CPU and memory");
    app.add_flag("--hello", settings.hello, "log in once and say whether it was allowed");
    app.add_option("--idle", settings.idle, "this many clients that say nothing")->check(CLI::Range(1, 100000));
    app.add_option("--pairs", settings.pairs, "this many clients that each send to another")
        ->check(CLI::Range(1, 10000));
    app.add_option("--rate", settings.rate, "packets a second of all pairs; 0: as many as the window allows");
    app.add_option("--size", settings.size, "bytes of a packet")->check(CLI::Range(8, 65536));
    app.add_option("--window", settings.window, "packets of a pair under way")->check(CLI::Range(1, 1000));
    app.add_option("--seconds", settings.seconds, "how long to measure");
    app.add_flag("--json", settings.json, "print JSON instead of a table");
    CLI11_PARSE(app, argc, argv);
    if (settings.idle + settings.pairs == 0 && !settings.hello) {
        std::fprintf(stderr, "relay_load: say --hello, --idle N or --pairs N\n");
        return 2;
    }
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)::setrlimit(RLIMIT_NOFILE, &limit); // best effort: fewer clients then
    }
    ::signal(SIGPIPE, SIG_IGN); // a relay that closes is an error of write()
    auto done = measure(settings);
    if (done) return 0;
    std::fprintf(stderr, "relay_load: %s\n", done.error().message().c_str());
    return 1;
}
