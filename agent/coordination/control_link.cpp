#include "agent/coordination/control_link.hpp"
#include "base/io/http1.hpp"
#include "base/io/proxy.hpp"
#include "base/io/sealed_stream.hpp"
#include "base/io/socket.hpp"
#include "base/io/tls.hpp"
#include "base/text.hpp"
#include "proto/noise.hpp"

#include <cerrno>

namespace tailrace {
namespace {

/// Takes the server's optional first words away; what follows is HTTP/2.
class AfterEarlyPayload final : public Stream {
public:
    explicit AfterEarlyPayload(std::unique_ptr<Stream> inner) : inner_(std::move(inner)) {}

    Result<std::size_t> try_read(std::span<std::byte> into) override {
        while (!decided_) {
            std::byte buffer[4096];
            auto got = inner_->try_read(buffer);
            if (!got || *got == 0) return got;
            auto decided = early_.feed(BytesView{buffer, *got});
            if (!decided) return decided.error();
            if (!*decided) continue;
            decided_ = true;
            rest_ = early_.take_rest();
        }
        if (at_ < rest_.size()) {
            std::size_t count = std::min(into.size(), rest_.size() - at_);
            std::copy_n(rest_.begin() + static_cast<std::ptrdiff_t>(at_), count, into.begin());
            at_ += count;
            return count;
        }
        return inner_->try_read(into);
    }
    Result<std::size_t> try_write(BytesView data) override { return inner_->try_write(data); }
    Result<void> try_flush() override { return inner_->try_flush(); }
    bool has_buffered() const override { return at_ < rest_.size() || inner_->has_buffered(); }
    Descriptor& descriptor() override { return inner_->descriptor(); }

private:
    std::unique_ptr<Stream> inner_;
    EarlyPayloadReader early_;
    bool decided_ = false;
    Bytes rest_;
    std::size_t at_ = 0;
};

/// Closes a stream when its time is over.
class Deadline {
public:
    Deadline(Reactor& reactor, Stream& stream, Duration duration)
        : timer_(reactor), passed_(std::make_shared<bool>(false)) {
        timer_.after(duration, [&stream, passed = passed_] {
            *passed = true;
            stream.close();
        });
    }
    Error explain(const Error& error) const {
        if (*passed_) return Error::from_errno(ETIMEDOUT, "wait for the answer");
        return error;
    }

private:
    Timer timer_;
    std::shared_ptr<bool> passed_;
};

} // namespace

Task<Result<std::unique_ptr<Stream>>> ControlDialer::connect(DialTarget target, bool check_certificate) {
    DialOptions options;
    options.timeout = options_.deadline;
    auto address = IpAddress::parse(target.host);
    bool loopback = target.host == "localhost" || (address && address->is_loopback());
    if (!loopback) options.mark = options_.mark;
    auto proxy = ProxySettings::of_environment().find(target.tls, target.host, target.port);
    if (!proxy) co_return proxy.error();
    auto dialling = *proxy ? dial_through(reactor_, **proxy, target.host, target.port, options)
                           : dial_tcp(reactor_, target.host, target.port, options);
    auto socket = co_await std::move(dialling);
    if (!socket || !target.tls) co_return std::move(socket);
    auto context = TlsContext::client(check_certificate ? TlsContext::Verify::Strict : TlsContext::Verify::None);
    if (!context) co_return context.error();
    co_return co_await tls_connect(*context, std::move(*socket), target.host, options_.deadline);
}

Task<Result<HttpResponse>> ControlDialer::ask(HttpRequest request, std::size_t body_limit_bytes) {
    DialTarget target{server_.scheme == "https", server_.host, server_.port};
    std::string asked = fmt::format("{} {}{}", request.method, target.text(), request.path());
    auto stream = co_await connect(target, true);
    if (!stream) co_return stream.error();
    Http1Client client{std::move(*stream)};
    Deadline deadline{reactor_, client.stream(), options_.deadline};
    std::string base = server_.target == "/" ? "" : server_.target;
    while (base.ends_with('/')) base.pop_back();
    request.target = base + request.target;
    request.authority = server_.authority();
    auto response = co_await client.request(std::move(request), body_limit_bytes);
    if (!response) co_return deadline.explain(response.error()).with("{}", asked);
    co_return std::move(*response);
}

Task<Result<MachineKey>> ControlDialer::fetch_key() {
    DialTarget target{server_.scheme == "https", server_.host, server_.port};
    HttpRequest request;
    request.target = fmt::format("/key?v={}", options_.capability_version);
    auto response = co_await ask(std::move(request), 64 << 10);
    if (!response) co_return response.error();
    if (response->status != 200)
        co_return Error::make("GET {}/key: the server answered {} ({}); is this a control server?", target.text(),
                              response->status, std::string{trim(response->body)}.substr(0, 200));
    auto keys = wire::parse_public_key_response(response->body);
    if (!keys)
        co_return Error::make("GET {}/key: {} is not a control server ({})", target.text(), server_.authority(),
                              keys.error().message());
    if (keys->public_key.is_zero())
        co_return Error::make("GET {}/key: the server gives no public key; it is too old or not a control server",
                              target.text());
    co_return keys->public_key;
}

Task<Result<std::shared_ptr<Http2Client>>> ControlDialer::upgrade(DialTarget target, MachineKey server_key,
                                                                  MachinePrivateKey machine) {
    auto noise = NoiseClient::begin(static_cast<std::uint16_t>(options_.capability_version), machine, server_key);
    if (!noise) co_return noise.error();
    auto stream = co_await connect(target, false);
    if (!stream) co_return stream.error();
    Http1Client client{std::move(*stream)};
    std::unique_ptr<Stream> channel;
    {
        Deadline deadline{reactor_, client.stream(), options_.deadline};
        HttpRequest request;
        request.method = "POST";
        request.target = "/ts2021";
        bool v6 = target.host.find(':') != std::string::npos;
        request.authority = fmt::format("{}{}{}:{}", v6 ? "[" : "", target.host, v6 ? "]" : "", target.port);
        request.headers.add("Upgrade", "tailscale-control-protocol");
        request.headers.add("Connection", "upgrade");
        request.headers.add("X-Tailscale-Handshake", base64_encode(noise->initiation()));
        auto response = co_await client.start(std::move(request));
        if (!response) co_return deadline.explain(response.error()).with("{}/ts2021", target.text());
        if (response->status != 101)
            co_return Error::make("{}/ts2021: the server answered {} instead of switching protocols", target.text(),
                                  response->status);
        if (response->headers.get("Upgrade") != "tailscale-control-protocol" ||
            !response->headers.has_token("Connection", "upgrade"))
            co_return Error::make("{}/ts2021: the server switched to something else", target.text());
        channel = client.take_stream();
        Bytes answer(3);
        auto head = co_await channel->read_exactly(answer);
        if (!head) co_return deadline.explain(head.error()).with("Noise handshake with {}", target.text());
        auto size = NoiseClient::answer_size(answer);
        if (!size) co_return size.error().with("Noise handshake with {}", target.text());
        answer.resize(*size);
        auto tail = co_await channel->read_exactly(std::span{answer}.subspan(3));
        if (!tail) co_return deadline.explain(tail.error()).with("Noise handshake with {}", target.text());
        auto session = noise->finish(answer);
        if (!session) co_return session.error().with("Noise handshake with {}", target.text());
        channel = std::make_unique<SealedStream>(std::move(channel), std::move(*session));
    }
    Http2Options options;
    options.window_bytes = 16 << 20;
    options.body_limit_bytes = 256 << 20;
    co_return Http2Client::start(std::make_unique<AfterEarlyPayload>(std::move(channel)), options);
}

struct ControlDialer::Race {
    explicit Race(Reactor& reactor) : changed(reactor) {}
    Event changed;
    int running = 0;
    std::shared_ptr<Http2Client> winner;
    std::vector<std::string> errors;
};

Task<void> ControlDialer::run_in_race(std::shared_ptr<Race> race, DialTarget target, MachineKey server_key,
                                      MachinePrivateKey machine) {
    auto outcome = co_await upgrade(target, server_key, machine);
    --race->running;
    if (!outcome)
        race->errors.push_back(outcome.error().message());
    else if (race->winner)
        (*outcome)->close();
    else
        race->winner = *outcome;
    race->changed.notify();
}

Task<Result<std::shared_ptr<Http2Client>>> ControlDialer::link(MachineKey server_key, MachinePrivateKey machine) {
    DialPlan plan = plan_dial(server_);
    std::vector<DialTarget> order{plan.cleartext};
    if (plan.tls) order.push_back(*plan.tls);
    // Some middleboxes break cleartext only after the connection stands: who comes back soon begins with TLS. (The
    // reference client then never tries cleartext again and is stranded where TLS is not served.)
    bool recent = last_dial_ && reactor_.now() - *last_dial_ < std::chrono::minutes{2};
    if (recent && plan.tls) std::swap(order[0], order[1]);
    last_dial_ = reactor_.now();

    auto race = std::make_shared<Race>(reactor_);
    TimePoint end = reactor_.now() + options_.deadline;
    for (std::size_t i = 0; i < order.size() && !race->winner; ++i) {
        ++race->running;
        spawn(reactor_, "dial control", run_in_race(race, order[i], server_key, machine));
        TimePoint until = i + 1 < order.size() ? reactor_.now() + std::chrono::milliseconds{500} : end;
        while (!race->winner && race->running > 0 && reactor_.now() < until)
            (void)co_await race->changed.wait_for(until - reactor_.now());
    }
    if (race->winner) co_return race->winner;
    if (race->errors.empty())
        co_return Error::make("{} does not answer within {} s", server_.authority(),
                              std::chrono::duration_cast<std::chrono::seconds>(options_.deadline).count());
    co_return Error::make("{}", join(race->errors, "; "));
}

} // namespace tailrace
