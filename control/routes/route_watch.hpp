// control/routes/route_watch.hpp - carries RouteHealth's questions to clients and their answers back.
#pragma once
#include "base/io/reactor.hpp"
#include "control/routes/route_health.hpp"
#include "proto/control/map.hpp"

#include <deque>
#include <functional>
#include <string>
#include <unordered_map>

namespace tailrace {

class RouteWatch {
public:
    /// So many peers are asked about one router at a time.
    static constexpr std::size_t kWitnesses = 3;

    /// What it needs of the server.
    struct Server {
        std::string authority; ///< host and port that clients know us by
        /// Into the node's map stream; without one the question is lost.
        std::function<void(NodeId to, const wire::PingRequest& question)> ask;
        /// Up to that many nodes with a stream that see the router and are no routers of its routes, by chance; phones
        /// only where there are no others: a question wakes them.
        std::function<std::vector<NodeId>(NodeId router, std::size_t most)> peers_of;
        std::function<IpAddress(NodeId)> address_of;
        std::function<void(NodeId)> end_stream;
        std::function<void(const RouteHealth::Turn&)> turned; ///< one went or came back
        std::function<void()> changed;                        ///< somebody else may be primary now
    };
    RouteWatch(Reactor& reactor, Server server);

    /// Tells it what happened; then whatever follows is done.
    template <typename Event>
    void tell(Event event) {
        event(health_, reactor_.now());
        follow();
    }
    /// An answer to the question with this token, given by this node. `body` is that of a peer's answer.
    void on_answer(NodeId from, const std::string& token, const std::string& body);
    std::optional<RouteHealth::State> state(NodeId id) const { return health_.state(reactor_.now(), id); }
    std::optional<RouteHealth::Standing> standing(NodeId id) const { return health_.standing(id); }
    std::uint64_t questions() const { return questions_total_; }
    void stop();

private:
    struct Question {
        NodeId asked = 0, router = 0;
        TimePoint when;
    };
    void follow();
    void ask(NodeId whom, NodeId about);
    void forget_old();

    Reactor& reactor_;
    Server server_;
    RouteHealth health_;
    std::unordered_map<std::string, Question> questions_; ///< by their tokens
    std::deque<std::pair<TimePoint, std::string>> in_order_;
    Timer timer_;
    bool stopped_ = false;
    std::uint64_t questions_total_ = 0;
};

/// Whether a peer's answer proves that others reach the router too: it came by a relay, or over the internet. On a
/// local network the two may be cut off together.
bool is_proof(const wire::PingResponse& answer);

} // namespace tailrace
