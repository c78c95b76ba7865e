// bench/storm/node.hpp - one pretended node: its keys, its connection, and what its map stream has told it.
#pragma once
#include "base/io/http2.hpp"
#include "base/io/reactor.hpp"
#include "proto/keys.hpp"

#include <functional>
#include <memory>
#include <string>
#include <unordered_set>

namespace tailrace::bench {

/// Where the control server is and who it is.
struct Server {
    Url url;
    MachineKey key;
};
/// GET /key.
Task<Result<Server>> find_server(Reactor& reactor, std::string url);

class Node {
public:
    Node(Reactor& reactor, const Server& server, int number);

    Task<Result<void>> register_with(std::string auth_key);
    /// A lite update: disco key and one endpoint.
    Task<Result<void>> announce(std::string endpoint);
    /// Holds the map stream open until it breaks; `on_frame` gets each frame's JSON.
    Task<Result<void>> follow_map(std::function<void(Node&, std::string_view json)> on_frame);

    int number() const { return number_; }
    /// How many nodes, itself included, the stream has named so far.
    std::size_t nodes_seen() const { return seen_.size(); }

private:
    Task<Result<void>> connect();
    Task<Result<std::shared_ptr<Http2Answer>>> post(std::string path, std::string body);
    void note_nodes(std::string_view json);

    Reactor& reactor_;
    const Server& server_;
    int number_;
    MachinePrivateKey machine_ = MachinePrivateKey::generate();
    NodePrivateKey node_ = NodePrivateKey::generate();
    DiscoPrivateKey disco_ = DiscoPrivateKey::generate();
    std::shared_ptr<Http2Client> connection_;
    std::unordered_set<std::string> seen_; // stable IDs
};

} // namespace tailrace::bench
