#include "relay/server/verifier.hpp"

#include "base/io/socket.hpp"
#include "base/text.hpp"
#include "proto/control/requests.hpp"

namespace tailrace::relay {
namespace {

constexpr std::size_t kLongestAnswer = 4096;
constexpr Duration kUnreachable = std::chrono::seconds{2};

} // namespace

Result<std::unique_ptr<Verifier>> Verifier::create(Reactor& reactor, Options options) {
    std::optional<TlsContext> tls;
    if (options.url.scheme == "https") {
        auto context = options.pin ? TlsContext::pinned(*options.pin) : TlsContext::client(TlsContext::Verify::Strict);
        if (!context) return context.error();
        tls = *context;
    }
    std::size_t lanes = options.lanes;
    std::unique_ptr<Verifier> verifier{new Verifier(reactor, std::move(options), std::move(tls))};
    for (std::size_t i = 0; i < lanes; ++i) spawn(reactor, "verify", verifier->run_lane());
    return verifier;
}

void Verifier::ask(const NodeKey& key, const IpAddress& from, std::function<void(bool)> answer) {
    reactor_.post([this, key, from, answer = std::move(answer)] {
        questions_.push_back({key, from, answer, reactor_.now()});
        more_.notify();
    });
}

Task<void> Verifier::run_lane() {
    std::unique_ptr<Http1Client> client;
    for (;;) {
        while (questions_.empty()) co_await more_.wait();
        Question question = std::move(questions_.front());
        questions_.pop_front();
        if (!questions_.empty()) more_.notify();
        bool waited_long = reactor_.now() - question.asked > options_.timeout;
        if (waited_long || reactor_.now() < unreachable_until_) {
            question.answer(without_an_answer());
            continue;
        }
        bool allowed = co_await decide(client, question);
        question.answer(allowed);
    }
}

// A connection that was kept may have died: then one more, fresh.
Task<bool> Verifier::decide(std::unique_ptr<Http1Client>& client, const Question& question) {
    bool was_kept = client != nullptr;
    for (int attempt = 0; attempt < 2; ++attempt) {
        if (client == nullptr) {
            auto connected = co_await connect();
            if (!connected) {
                log::warn("control cannot be asked about a client",
                          {{"url", options_.url.authority()}, {"error", connected.error()}});
                if (is_another_)
                    log::error(
                        "nobody is let in: control does not show the certificate that it should; \"certificate\" "
                        "of verify_clients takes one that no authority vouches for",
                        {{"url", options_.url.authority()}});
                unreachable_until_ = reactor_.now() + kUnreachable;
                co_return without_an_answer();
            }
            client = std::move(*connected);
        }
        auto response = co_await exchange(*client, question);
        if (!response) {
            client.reset();
            if (was_kept && attempt == 0) continue;
            log::warn("control does not answer about a client",
                      {{"url", options_.url.authority()}, {"error", response.error()}});
            unreachable_until_ = reactor_.now() + kUnreachable;
            co_return without_an_answer();
        }
        if (equals_ignoring_case(response->headers.get("Connection"), "close")) client.reset();
        if (response->status != 200) {
            log::warn("control refuses to judge a client",
                      {{"url", options_.url.authority()}, {"status", response->status}});
            co_return false;
        }
        auto verdict = wire::parse_derp_admit_response(response->body);
        co_return verdict && verdict->allow;
    }
    co_return without_an_answer();
}

Task<Result<std::unique_ptr<Http1Client>>> Verifier::connect() {
    DialOptions dial;
    dial.timeout = options_.timeout;
    auto socket = co_await dial_tcp(reactor_, options_.url.host, options_.url.port, dial);
    if (!socket) co_return socket.error();
    if (!tls_) co_return std::make_unique<Http1Client>(std::move(*socket));
    auto stream = co_await tls_connect(*tls_, std::move(*socket), options_.url.host, options_.timeout);
    is_another_ = !stream && stream.error().code() == 0; // no error of the network
    if (!stream) co_return stream.error();
    co_return std::make_unique<Http1Client>(std::move(*stream));
}

Task<Result<HttpResponse>> Verifier::exchange(Http1Client& client, const Question& question) {
    HttpRequest request;
    request.method = "POST";
    request.target = options_.url.target;
    request.authority = options_.url.authority();
    wire::DerpAdmitClientRequest asked;
    asked.node_public = question.key;
    asked.source = question.from;
    request.body = wire::write_derp_admit_request(asked);
    Timer timer{reactor_};
    bool late = false;
    Stream& stream = client.stream();
    timer.after(options_.timeout, [&stream, &late] {
        late = true;
        stream.close();
    });
    auto response = co_await client.request(std::move(request), kLongestAnswer);
    if (late)
        co_return Error::make("no answer within {} s",
                              std::chrono::duration_cast<std::chrono::seconds>(options_.timeout).count());
    co_return response;
}

} // namespace tailrace::relay
