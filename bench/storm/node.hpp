// bench/storm/node.hpp - one pretended node: its keys, its connection, and what its map stream has told it.
#pragma once
#include "base/io/http2.hpp"
#include "base/io/reactor.hpp"
#include "base/text.hpp"
#include "proto/keys.hpp"

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace tailrace::bench {

/// Where the control server is and who it is.
struct Server {
    Url url;
    MachineKey key;
};
/// GET /key.
Task<Result<Server>> find_server(Reactor& reactor, std::string url);

/// Numbers for the stable IDs of all nodes, shared by all streams: a stream then needs a bit a node, not a string.
class StableIds {
public:
    std::size_t number_of(std::string_view id);

private:
    std::unordered_map<std::string, std::size_t, StringHash, std::equal_to<>> numbers_;
};

class Node {
public:
    Node(Reactor& reactor, const Server& server, StableIds& ids, int number);

    Task<Result<void>> register_with(std::string auth_key);
    /// A lite update: disco key and one endpoint.
    Task<Result<void>> announce(std::string endpoint);
    /// Holds the map stream open until it breaks; `on_frame` gets each frame's JSON.
    Task<Result<void>> follow_map(std::function<void(Node&, std::string_view json)> on_frame);

    int number() const { return number_; }
    /// How many nodes, itself included, the stream has named so far.
    std::size_t nodes_seen() const { return nodes_seen_; }

private:
    Task<Result<void>> connect();
    Task<Result<std::shared_ptr<Http2Answer>>> post(std::string path, std::string body);
    void note_nodes(std::string_view json);

    Reactor& reactor_;
    const Server& server_;
    StableIds& ids_;
    int number_;
    MachinePrivateKey machine_ = MachinePrivateKey::generate();
    NodePrivateKey node_ = NodePrivateKey::generate();
    DiscoPrivateKey disco_ = DiscoPrivateKey::generate();
    std::shared_ptr<Http2Client> connection_;
    std::vector<bool> seen_; // by number in ids_
    std::size_t nodes_seen_ = 0;
};

/// std::string_view::find looks for the first character and JSON is full of quotes: this is ten times faster.
std::size_t find_text(std::string_view in, std::string_view what, std::size_t from = 0);

} // namespace tailrace::bench
