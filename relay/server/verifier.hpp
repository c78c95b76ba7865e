// relay/server/verifier.hpp - asks the control server whether a client may come in (derp-disco-paths.md 1.8).
#pragma once
#include "base/io/http.hpp"
#include "base/io/http1.hpp"
#include "base/io/tls.hpp"
#include "proto/keys.hpp"

#include <deque>
#include <optional>

namespace tailrace::relay {

/// Lives on the reactor's thread; ask() may be called from any. Several questions at a time, each on a connection that
/// is kept for the next.
class Verifier {
public:
    struct Options {
        Url url;
        bool fail_open = true; ///< what an unreachable server means; another one in its place never admits anybody
        std::optional<std::array<std::byte, 32>> pin; ///< SHA-256 of its certificate; else an authority vouches for it
        std::size_t lanes = 8;
        Duration timeout = std::chrono::seconds{5}; // source: tailscale derp/derpserver/derpserver.go
    };
    static Result<std::unique_ptr<Verifier>> create(Reactor& reactor, Options options);

    void ask(const NodeKey& key, const IpAddress& from, std::function<void(bool allowed)> answer);

private:
    struct Question {
        NodeKey key;
        IpAddress from;
        std::function<void(bool)> answer;
        TimePoint asked;
    };
    Verifier(Reactor& reactor, Options options, std::optional<TlsContext> tls)
        : reactor_(reactor), options_(std::move(options)), tls_(std::move(tls)), more_(reactor) {}

    bool without_an_answer() const { return options_.fail_open && !is_another_; }
    Task<void> run_lane();
    Task<bool> decide(std::unique_ptr<Http1Client>& client, const Question& question);
    Task<Result<std::unique_ptr<Http1Client>>> connect();
    Task<Result<HttpResponse>> exchange(Http1Client& client, const Question& question);

    Reactor& reactor_;
    Options options_;
    std::optional<TlsContext> tls_;
    std::deque<Question> questions_;
    bool is_another_ = false;       ///< what answers there does not show the certificate that it must
    TimePoint unreachable_until_{}; ///< until then nobody waits for a server that did not answer a moment ago
    Event more_;
};

} // namespace tailrace::relay
