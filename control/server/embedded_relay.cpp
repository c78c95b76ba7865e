#include "control/server/embedded_relay.hpp"

#include "base/io/http1.hpp"
#include "base/io/socket.hpp"
#include "base/net.hpp"
#include "base/text.hpp"
#include "proto/derp.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

constexpr int kInherited = 3; // the first inherited socket, by sd_listen_fds(3)
constexpr int kBacklog = 4096;
constexpr std::size_t kPieceBytes = 16 * 1024;
constexpr Duration kStopAtMost = 8s;
constexpr const char* kLevels[] = {"debug", "info", "warning", "error"};

/// Nobody else uses the state directory, so what is there was left behind.
Result<Fd> listen_on_unix(const std::string& path) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    if (path.size() >= sizeof at.sun_path)
        return Error::make("{}: a socket's path has at most {} characters: set a shorter state_dir", path,
                           sizeof at.sun_path - 1);
    std::memcpy(at.sun_path, path.data(), path.size());
    (void)::unlink(path.c_str());
    Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
        ::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), kBacklog) != 0)
        return Error::from_errno(errno, "listen on {}", path);
    return fd;
}

/// Our environment without what the service manager meant for us alone.
std::vector<std::string> environment_of_child() {
    std::vector<std::string> kept;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        std::string_view text{*entry};
        bool ours = text.starts_with("LISTEN_") || text.starts_with("NOTIFY_SOCKET=") || text.starts_with("WATCHDOG_");
        if (!ours) kept.emplace_back(text);
    }
    return kept;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
    std::vector<char*> out;
    for (std::string& text : texts) out.push_back(text.data());
    out.push_back(nullptr);
    return out;
}

/// In a child of a process with threads: nothing here may allocate.
[[noreturn]] void become_relay(int listener, pid_t parent, char* pid_digits, char** arguments, char** environment) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127); // it died in between
    if (listener == kInherited)
        ::fcntl(listener, F_SETFD, 0);
    else
        ::dup2(listener, kInherited);
    for (pid_t rest = ::getpid(); rest != 0; rest /= 10) *pid_digits-- = static_cast<char>('0' + rest % 10);
    ::execve(arguments[0], arguments, environment);
    ::_exit(127);
}

/// Everything from one to the other, until either ends; then both are closed.
Task<void> carry(std::shared_ptr<Stream> from, std::shared_ptr<Stream> to, std::shared_ptr<Event> done) {
    for (;;) {
        if (auto ready = co_await from->wait_readable(); !ready) break; // an idle connection holds no buffer
        Bytes piece(kPieceBytes);
        auto count = co_await from->read_some(piece);
        if (!count || *count == 0) break;
        auto sent = co_await to->write_all(BytesView{piece}.first(*count));
        if (!sent) break;
    }
    from->close();
    to->close();
    if (done) done->notify();
}

Task<void> splice(std::shared_ptr<Stream> client, std::shared_ptr<Stream> relay) {
    auto done = std::make_shared<Event>(client->reactor());
    spawn(client->reactor(), "relayed connection", carry(client, relay, done));
    co_await carry(relay, client, nullptr);
    co_await done->wait();
}

} // namespace

std::string find_relay_executable() {
    constexpr const char* kName = "tailrace-relay";
    std::error_code failed;
    std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failed);
    std::vector<std::filesystem::path> places{self.parent_path() / kName, self.parent_path() / "../relay" / kName};
    const char* path = std::getenv("PATH");
    for (std::string_view folder : split(path != nullptr ? path : "", ':'))
        if (!folder.empty()) places.emplace_back(std::filesystem::path{folder} / kName);
    for (const auto& place : places)
        if (::access(place.c_str(), X_OK) == 0) return place.lexically_normal();
    return "";
}

Result<std::unique_ptr<EmbeddedRelay>> EmbeddedRelay::start(Reactor& reactor, Options options) {
    auto listener = listen_on_unix(options.socket);
    if (!listener) return listener.error();
    std::unique_ptr<EmbeddedRelay> relay{new EmbeddedRelay{reactor, std::move(options), std::move(*listener)}};
    if (auto running = relay->spawn_child(); !running) return running.error();
    spawn(reactor, "embedded relay", relay->keep_alive());
    return relay;
}

EmbeddedRelay::~EmbeddedRelay() {
    if (child_ > 0) ::kill(child_, SIGTERM);
}

Result<void> EmbeddedRelay::spawn_child() {
    std::vector<std::string> arguments{options_.executable,
                                       "--cert-mode=plain",
                                       "--hostname=" + options_.hostname,
                                       fmt::format("--stun-port={}", options_.stun_port),
                                       "--state-dir=" + options_.state_dir,
                                       "--verify-clients=" + options_.verify_url,
                                       fmt::format("--log-level={}", kLevels[static_cast<int>(options_.log_level)])};
    std::vector<std::string> environment = environment_of_child();
    environment.emplace_back("LISTEN_FDS=1");
    environment.emplace_back("LISTEN_PID=0000000000"); // leading zeros are taken; the child fills its number in
    char* last_digit = &environment.back().back();
    std::vector<char*> argv = pointers_to(arguments), envp = pointers_to(environment);
    pid_t parent = ::getpid();
    pid_t child = ::fork();
    if (child < 0) return Error::from_errno(errno, "start {}", options_.executable);
    if (child == 0) become_relay(listener_.get(), parent, last_digit, argv.data(), envp.data());
    child_ = child;
    spawn(reactor_, "key of the embedded relay", ask_for_key());
    return {};
}

/// As a client that has not heard of it. The relay accepts it when it is ready.
Task<void> EmbeddedRelay::ask_for_key() {
    auto socket = co_await dial_unix(reactor_, options_.socket);
    if (!socket) co_return;
    Http1Client client{std::move(*socket)};
    HttpRequest request;
    request.target = "/derp";
    request.authority = options_.hostname;
    request.headers.add("Upgrade", "DERP");
    auto answer = co_await client.start(std::move(request));
    if (!answer) co_return; // it has ended; the next is asked again
    auto key = NodeKey::parse("nodekey:" + std::string{answer->headers.get("Derp-Public-Key")});
    if (key) options_.on_key(*key);
}

Task<int> EmbeddedRelay::wait_for_end() {
    Descriptor process{reactor_, Fd{static_cast<int>(::syscall(SYS_pidfd_open, child_, 0))}};
    (void)co_await process.readable(); // without a descriptor the look below has to do
    int status = 0;
    while (::waitpid(child_, &status, WNOHANG) == 0) co_await reactor_.sleep(100ms);
    child_ = -1;
    co_return status;
}

Task<void> EmbeddedRelay::keep_alive() {
    constexpr Duration kFirstPause = 500ms, kLongestPause = 30s, kGoodRun = 60s;
    Duration pause = kFirstPause;
    for (;;) {
        TimePoint began = reactor_.now();
        int status = co_await wait_for_end();
        if (stopping_) break;
        if (reactor_.now() - began > kGoodRun) pause = kFirstPause;
        log::error("the embedded relay ended, it is started again",
                   {{"status", WIFEXITED(status) ? fmt::format("exit {}", WEXITSTATUS(status))
                                                 : fmt::format("signal {}", WTERMSIG(status))},
                    {"in", std::chrono::duration<double>(pause).count()}});
        co_await reactor_.sleep(pause);
        pause = std::min(2 * pause, kLongestPause);
        if (stopping_) break;
        if (auto running = spawn_child(); !running) {
            log::error("no embedded relay", {{"error", running.error()}});
            break;
        }
    }
    ended_.notify();
}

Task<void> EmbeddedRelay::stop() {
    stopping_ = true;
    listener_.reset();
    if (child_ <= 0) co_return;
    ::kill(child_, SIGTERM);
    bool ended = co_await ended_.wait_for(kStopAtMost);
    if (ended || child_ <= 0) co_return;
    log::warn("the embedded relay does not end and is killed");
    ::kill(child_, SIGKILL);
}

bool EmbeddedRelay::is_for_relay(const HttpRequest& request) {
    std::string path = request.path();
    return path == "/derp" || path.starts_with("/derp/") || path == "/generate_204";
}

Task<HttpResponse> EmbeddedRelay::forward(HttpRequest request) {
    auto socket = co_await dial_unix(reactor_, options_.socket);
    if (!socket) co_return HttpResponse::text(503, "the relay is not running\n");
    std::shared_ptr<Stream> relay = std::move(*socket);
    std::string head = fmt::format("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (const auto& [name, value] : request.headers.all()) {
        bool ours = equals_ignoring_case(name, derp::kClientField);
        if (!ours) head += fmt::format("{}: {}\r\n", name, value);
    }
    head += fmt::format("{}: {}\r\n\r\n", derp::kClientField, request.peer.text());
    if (auto sent = co_await relay->write_all(as_bytes(head)); !sent)
        co_return HttpResponse::text(503, "the relay is not running\n");
    HttpResponse response;
    response.status = 0;
    response.upgrade = [relay](std::unique_ptr<Stream> stream) {
        return splice(std::shared_ptr<Stream>{std::move(stream)}, relay);
    };
    co_return response;
}

} // namespace tailrace
