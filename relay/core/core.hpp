// relay/core/core.hpp - one thread with its own epoll and its own clients. Nothing is shared on the way of a packet.
//
// All connections of a key live on the key's home core (seeded_hash.hpp). A connection starts where the acceptor put
// it, and moves once its key is known. A packet goes from the sender's core to the home of its destination, which
// knows whether the key is here, behind a mesh link, or nowhere.
#pragma once
#include "relay/core/connection.hpp"
#include "relay/core/shared.hpp"
#include "relay/core/stun_server.hpp"
#include "relay/core/timer_wheel.hpp"
#include "relay/table/relay_table.hpp"

#include <mutex>
#include <queue>
#include <thread>

namespace tailrace::relay {

class Core {
public:
    static Result<std::unique_ptr<Core>> create(Shared& shared, std::uint32_t number);
    ~Core();
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;

    void start(); ///< its thread
    void join();
    /// Runs `job` on the core's thread, soon. Any thread may call it.
    void post(std::function<void(Core&)> job);
    /// Hands a connection over: a fresh one, or one that moves here. Any thread may call it.
    void give(std::unique_ptr<Connection> connection);
    const Counters& counters() const { return counters_; }

    // -- by post() only

    /// Accepts here and spreads the connections over all cores.
    Result<void> add_listener(Fd socket, Door door, bool tls);
    Result<void> add_stun(Fd socket);
    void set_tls(std::optional<TlsContext> context) { tls_ = std::move(context); }
    /// Clients that are no longer in the list are closed. Null: every key may come.
    void set_key_list(std::shared_ptr<const KeyList> list);
    /// For those who are here and those who come. Each begins anew, with a whole burst.
    void set_rate_limit(const RateLimit& limit);
    void start_link(std::unique_ptr<MeshLink> link, const Endpoint& to, TlsContext tls);
    void close_listeners();
    /// Tells every client to reconnect.
    void announce_restart(const derp::Restarting& restarting);
    /// Reads no more from clients; what has been read goes on its way.
    void stop_reading();
    /// Nothing waits to be written, nor in the rings to this core.
    bool is_quiet() const;
    /// Ends every stream in order. After this the clients close, or are closed.
    void say_goodbye();
    void stop() { stopped_ = true; }

private:
    struct Listener {
        Fd socket;
        Door door;
        bool tls;
    };
    // What epoll tells us about apart from connections, in the high half of the event's number.
    enum class Special : std::uint32_t { Wake = 1, Listener = 2, Stun = 3 };

    Core(Shared& shared, std::uint32_t number, Fd epoll, Fd wake);

    // core.cpp: the loop
    void run();
    void one_round();
    int wait_ms();
    bool has_work_waiting();
    void on_event(std::uint64_t tag, std::uint32_t events);
    void take_arrivals();
    void read_rings();
    void on_mail(std::uint32_t from_core, const MailHead& head, BytesView packet);
    void mail(std::uint32_t core, const MailHead& head, BytesView packet);
    void send_batches();
    void send_batch(std::uint32_t core);
    void wake_if_asleep();
    void accept_all(Listener& listener);

    // core_connections.cpp: coming and going
    void adopt(std::unique_ptr<Connection> connection);
    Connection* find(Slot slot, std::uint32_t generation);
    void close(Connection& connection, std::string_view why);
    void watch(Connection& connection);
    void set_reading(Connection& connection, bool reading);
    void set_timer(Connection& connection, TimePoint at);
    void on_timer(Slot slot, std::uint32_t generation);
    void limit_rate(Connection& connection);
    void go_on_reading(const ConnectionRef& paused);
    void flush(Connection& connection);
    void after_flush(Connection& connection, Outbox::Flushed flushed);
    void flush_dirty();
    void mark_dirty(Connection& connection);
    void notice(Connection& connection, derp::FrameType type, BytesView payload);
    void write_text(Connection& connection, std::string_view text);
    void carry_out(std::vector<TableAction> actions);
    void finish_round();
    Outbox::Way way_of(Connection& connection);

    // core_opening.cpp: TLS, HTTP, login
    void continue_handshake(Connection& connection);
    void on_head(Connection& connection, BytesView data);
    void on_request(Connection& connection, const HttpHead& head);
    void begin_derp(Connection& connection);
    void say_farewell(Connection& connection, std::string_view response);
    Result<void> on_client_info(Connection& connection, BytesView payload);
    void go_home(Connection& connection);
    void ask_for_admission(Connection& connection);
    void admit(Connection& connection);
    void on_connected(Connection& connection);
    void on_response(Connection& connection, const HttpHead& head);
    Result<void> on_server_key(Connection& connection, BytesView payload);
    void begin_request(Connection& connection);

    // core_frames.cpp: what frames mean
    void on_readable(Connection& connection);
    void on_bytes(Connection& connection, BytesView data);
    void on_frames(Connection& connection, BytesView data);
    std::optional<std::size_t> limit_of(Connection& connection, derp::FrameType type);
    void note_presence(const NodeKey& key, const ConnectionRef& link, bool present);
    void send_presence();
    Result<void> on_client_frame(Connection& connection, derp::FrameType type, BytesView payload);
    Result<void> on_link_frame(Connection& connection, derp::FrameType type, BytesView payload);
    Result<void> on_send(Connection& connection, BytesView payload);
    Result<void> on_forward(Connection& connection, BytesView payload);
    void on_ping(Connection& connection, BytesView payload);
    void watch_everybody(const Connection& connection);
    void deliver(const MailHead& head, std::uint32_t from_core, BytesView packet);
    void send_packet(Connection& to, const NodeKey& from, BytesView packet);
    void forward_packet(const ConnectionRef& link, const NodeKey& from, const NodeKey& to, BytesView packet);
    void tell_not_here(Slot slot, std::uint32_t generation, const NodeKey& key);
    void close_key(const NodeKey& key);
    void for_all_cores(const std::function<void(Core&)>& job);

    Shared& shared_;
    const CoreSettings& settings_;
    const std::uint32_t number_;
    const std::uint32_t cores_;
    Fd epoll_, wake_;
    std::thread thread_;
    TimePoint now_;
    bool stopped_ = false, stopping_reads_ = false;

    BufferPool pool_;                                      // before everything that holds buffers
    Bytes scratch_;                                        // what is read, until the end of one on_readable()
    std::vector<std::unique_ptr<Connection>> connections_; // by slot
    std::vector<std::uint32_t> generations_;
    std::vector<Slot> free_slots_;
    std::vector<std::unique_ptr<Connection>> graveyard_;
    std::vector<ConnectionRef> dirty_, again_;
    struct Paused {
        TimePoint until;
        ConnectionRef who;
        bool operator<(const Paused& other) const { return until > other.until; } // the earliest on top
    };
    std::priority_queue<Paused> paused_;
    TimerWheel timers_;
    RelayTable table_;
    std::vector<Listener> listeners_;
    TimePoint accept_again_{}; // after running out of descriptors
    bool accepting_paused_ = false;
    std::uint32_t next_core_ = 0;
    std::optional<StunServer> stun_;
    std::optional<TlsContext> tls_;
    std::shared_ptr<const KeyList> key_list_;
    RateLimit rate_limit_;
    std::vector<BufferPtr> batches_; // one being filled for each core
    struct Presence {
        NodeKey key;
        ConnectionRef link;
        bool present = false;
    };
    std::vector<std::vector<Presence>> presence_; // what mesh links say, for each core
    Counters counters_;

    std::mutex inbox_mutex_;
    std::vector<std::function<void(Core&)>> jobs_;
    std::vector<std::unique_ptr<Connection>> arrivals_;
    std::atomic<bool> inbox_full_{false}; // jobs_ or arrivals_ has something
    std::atomic<bool> asleep_{false};
};

} // namespace tailrace::relay
