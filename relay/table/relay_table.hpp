// relay/table/relay_table.hpp - who is here: connections by key, duplicates, watchers, routes through the mesh.
#pragma once
#include "base/net.hpp"
#include "proto/derp.hpp"
#include "relay/table/connection_ref.hpp"
#include "relay/table/heard_book.hpp"

#include <memory>
#include <unordered_map>
#include <variant>
#include <vector>

namespace tailrace::relay {

/// Send this frame to that connection, wherever it lives.
struct Tell {
    ConnectionRef to;
    derp::FrameType type{};
    Bytes payload;
};
/// A key is nowhere any more: every core tells its clients that have heard it, by on_key_left().
struct KeyLeft {
    NodeKey key;
};
using TableAction = std::variant<Tell, KeyLeft>;

/// Where a packet goes.
struct Route {
    enum class Kind { Local, Forward, Unknown };
    Kind kind = Kind::Unknown;
    Slot local = 0;     ///< Local: the active connection of the key
    ConnectionRef link; ///< Forward: the mesh link that announced the key first
};

/// What one core knows about the keys whose home it is (home_core()), and about what its clients have heard. Pure: it
/// never sends; the caller carries out take_actions(). Rules: derp-disco-paths.md 1.6 and 1.7.
class RelayTable {
public:
    explicit RelayTable(std::uint32_t core) : core_(core) {}

    struct Client {
        NodeKey key;
        std::uint32_t generation = 0;
        Endpoint from;
        std::uint8_t flags = derp::kPresentRegular;
    };
    /// The newest connection of a key is its active one.
    void add(Slot slot, const Client& client);
    void remove(Slot slot);
    /// Some frame came from this connection: it becomes the active one of its key.
    void on_frame(Slot slot);

    Route route(const NodeKey& to) const;
    /// A packet of `source` went to `receiver`, which will be told when the source goes.
    void on_delivered(Slot receiver, const NodeKey& source) { heard_.mark(receiver, source); }
    void on_key_left(const NodeKey& key);
    std::vector<Slot> connections_of(const NodeKey& key) const;

    /// Tells `watcher` of every key here, and from now on of each that comes and goes.
    void add_watcher(const ConnectionRef& watcher);
    void remove_watcher(const ConnectionRef& watcher);

    /// Another relay of the region says through `link` that it has this key, or has it no longer.
    void add_forwarder(const NodeKey& key, const ConnectionRef& link);
    void remove_forwarder(const NodeKey& key, const ConnectionRef& link);
    void remove_link(const ConnectionRef& link);

    std::vector<TableAction> take_actions() { return std::move(actions_); }
    bool has_actions() const { return !actions_.empty(); }
    std::size_t keys() const { return local_keys_; }
    std::size_t duplicate_keys() const { return duplicate_keys_; }
    std::size_t forwarded_keys() const { return forwarded_keys_; }

private:
    // Members and history are kept only while a key has two connections or more.
    struct Duplicates {
        std::vector<Slot> members;
        std::vector<Slot> history; // who is active when the active one leaves: the last of these
    };
    struct Key {
        bool here = false;
        Slot active = 0;
        std::unique_ptr<Duplicates> duplicates;
        std::unique_ptr<std::vector<ConnectionRef>> forwarders; // the earliest is used
    };
    struct Place {
        bool used = false;
        Client client;
        Key* key = nullptr; // elements of an unordered_map stay where they are
    };

    void tell_watchers(derp::FrameType type, const Bytes& payload);
    Bytes presence_of(Slot slot) const;
    void drop_if_unused(const NodeKey& key);

    std::uint32_t core_;
    std::vector<Place> places_; // by slot
    std::unordered_map<NodeKey, Key, SeededHash> keys_;
    std::vector<ConnectionRef> watchers_;
    HeardBook heard_;
    std::vector<TableAction> actions_;
    std::size_t local_keys_ = 0, duplicate_keys_ = 0, forwarded_keys_ = 0;
};

} // namespace tailrace::relay
