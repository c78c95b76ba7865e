#include "control/routes/route_watch.hpp"

#include "base/random.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {

namespace {

/// Later than this an answer says nothing about now.
constexpr auto kAnswerCounts = RouteHealth::kEndedGrace;
constexpr std::size_t kMostAnswer = 4096;

} // namespace

bool is_proof(const wire::PingResponse& answer) {
    if (!answer.err.empty() || answer.is_local_ip) return false;
    if (answer.derp_region_id != 0) return true;
    auto endpoint = Endpoint::parse(answer.endpoint);
    if (!endpoint || !endpoint->valid()) return false;
    for (const char* local : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
                              "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128"})
        if (IpPrefix::parse(local)->contains(endpoint->address)) return false;
    return true;
}

RouteWatch::RouteWatch(Reactor& reactor, Server server)
    : reactor_(reactor), server_(std::move(server)), timer_(reactor) {}

void RouteWatch::ask(NodeId whom, NodeId about) {
    std::string token = hex_encode(random_array<12>());
    questions_[token] = {whom, about, reactor_.now()};
    in_order_.emplace_back(reactor_.now(), token);
    ++questions_total_;
    wire::PingRequest question;
    question.url = fmt::format("https://{}/machine/ping-response?id={}", server_.authority, token);
    question.url_is_noise = true;
    if (whom != about) {
        question.types = "disco";
        question.ip = server_.address_of(about);
    }
    server_.ask(whom, question);
}

void RouteWatch::forget_old() {
    while (!in_order_.empty() && reactor_.now() - in_order_.front().first > kAnswerCounts) {
        questions_.erase(in_order_.front().second);
        in_order_.pop_front();
    }
}

void RouteWatch::on_answer(NodeId from, const std::string& token, const std::string& body) {
    forget_old();
    auto at = questions_.find(token);
    if (at == questions_.end() || at->second.asked != from) return;
    Question question = at->second;
    questions_.erase(at);
    if (question.router == from) {
        tell([from](RouteHealth& health, TimePoint now) { health.on_word(now, from); });
        return;
    }
    if (body.size() > kMostAnswer) return;
    auto answer = wire::parse_ping_response(body);
    if (!answer || !answer->err.empty()) return;
    auto proof = is_proof(*answer) ? RouteHealth::Proof::Yes : RouteHealth::Proof::No;
    tell([&](RouteHealth& health, TimePoint now) { health.on_witness(now, question.router, proof); });
}

void RouteWatch::follow() {
    if (stopped_) return;
    for (const RouteHealth::Action& action : health_.take_actions()) {
        switch (action.kind) {
        case RouteHealth::Action::Kind::AskRouter:
            ask(action.router, action.router);
            break;
        case RouteHealth::Action::Kind::AskPeers:
            for (NodeId peer : server_.peers_of(action.router, kWitnesses)) ask(peer, action.router);
            break;
        case RouteHealth::Action::Kind::AskPath:
            for (NodeId peer : server_.peers_of(action.router, action.rival == 0 ? 1 : kWitnesses)) {
                ask(peer, action.router);
                if (action.rival != 0) ask(peer, action.rival);
            }
            break;
        case RouteHealth::Action::Kind::EndStream:
            server_.end_stream(action.router);
            break;
        }
    }
    for (const RouteHealth::Turn& turn : health_.take_turns()) server_.turned(turn);
    if (health_.take_changed()) server_.changed();
    forget_old();
    auto next = health_.next_timer();
    if (!next) return timer_.cancel();
    timer_.after(std::max<Duration>(*next - reactor_.now(), std::chrono::milliseconds{1}),
                 [this] { tell([](RouteHealth& health, TimePoint now) { health.on_timer(now); }); });
}

void RouteWatch::stop() {
    stopped_ = true;
    timer_.cancel();
}

} // namespace tailrace
