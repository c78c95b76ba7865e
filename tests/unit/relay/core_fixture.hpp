// Whole cores with their threads; clients at the other end of socket pairs.
#pragma once
#include "relay/core/core.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <optional>
#include <string>
#include <thread>

namespace tailrace::relay {

using namespace std::chrono_literals;
using derp::FrameType;

constexpr auto kPatience = 5s;

struct Frame {
    FrameType type{};
    Bytes payload;
};

/// The client's side of one connection, which waits.
class TestClient {
public:
    TestClient(Fd socket, const NodePrivateKey& key) : socket_(std::move(socket)), key_(key) {
        timeval limit{kPatience.count(), 0};
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    }

    void write(BytesView data) {
        while (!data.empty()) {
            ssize_t count = ::send(socket_.get(), data.data(), data.size(), MSG_NOSIGNAL);
            if (count <= 0) return; // the relay has closed; what is read next shows it
            data = data.subspan(static_cast<std::size_t>(count));
        }
    }
    void write(std::string_view text) { write(as_bytes(text)); }
    void frame(FrameType type, BytesView payload = {}) { write(derp::write_frame(type, payload)); }
    void packet(const NodeKey& to, std::string_view text) { frame(FrameType::SendPacket, packet_payload(to, text)); }
    static Bytes packet_payload(const NodeKey& to, std::string_view text) {
        Bytes out = to_bytes(to.view());
        out.insert(out.end(), as_bytes(text).begin(), as_bytes(text).end());
        return out;
    }

    Bytes read_exactly(std::size_t size) {
        Bytes out(size);
        std::size_t at = 0;
        while (at < size) {
            ssize_t count = ::recv(socket_.get(), out.data() + at, size - at, 0);
            if (count <= 0) {
                closed_ = count == 0 || errno == ECONNRESET;
                return {};
            }
            at += static_cast<std::size_t>(count);
        }
        return out;
    }
    std::string read_head() {
        std::string head;
        while (!head.ends_with("\r\n\r\n")) {
            Bytes one = read_exactly(1);
            if (one.empty()) break;
            head += static_cast<char>(one[0]);
        }
        return head;
    }
    std::optional<Frame> next() {
        Bytes head = read_exactly(derp::kHeaderSize);
        if (head.empty()) return std::nullopt;
        auto header = derp::read_header(std::span{head}.first<derp::kHeaderSize>());
        Frame out{header.type, {}};
        if (header.length > 0) out.payload = read_exactly(header.length);
        return out;
    }
    /// The next RecvPacket as "text", whatever comes before it.
    std::string received(NodeKey* from = nullptr) {
        while (auto frame = next()) {
            if (frame->type != FrameType::RecvPacket) continue;
            auto view = derp::parse_packet(frame->payload);
            if (from != nullptr) *from = view->key;
            return std::string{as_chars(view->packet)};
        }
        return "<nothing>";
    }
    std::optional<Frame> next_of(FrameType type) {
        while (auto frame = next())
            if (frame->type == type) return frame;
        return std::nullopt;
    }
    bool is_closed_by_relay() {
        while (!read_exactly(1).empty()) {
        }
        return closed_;
    }

    Bytes client_info(const derp::ClientInfo& info) const { return derp::seal_client_info(info, key_, server_); }
    bool log_in(const NodeKey& server, derp::ClientInfo info = {}) {
        write("GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n");
        auto first = next();
        if (!first || first->type != FrameType::ServerKey) return false;
        server_ = *derp::parse_server_key(first->payload);
        if (server_ != server) return false;
        frame(FrameType::ClientInfo, client_info(info));
        auto second = next();
        return second && second->type == FrameType::ServerInfo &&
               derp::open_server_info(second->payload, key_, server_)->version == 2;
    }
    /// Everything sent so far has been dealt with by the client's core.
    void settle() {
        frame(FrameType::Ping, Bytes(8, std::byte{1}));
        (void)next_of(FrameType::Pong);
    }
    NodeKey key() const { return key_.public_key(); }
    void set_server(const NodeKey& key) { server_ = key; }
    void close() { socket_.reset(); }
    int fd() const { return socket_.get(); }

private:
    Fd socket_;
    NodePrivateKey key_;
    NodeKey server_;
    bool closed_ = false;
};

class CoreTest : public ::testing::TestWithParam<std::uint32_t> {
protected:
    CoreTest() {
        shared.settings.key = NodePrivateKey::generate();
        shared.settings.public_key = shared.settings.key.public_key();
        shared.settings.mesh_key = derp::parse_mesh_key(std::string(64, '7')).value_or(derp::MeshKey{});
        shared.metrics = [] { return std::string{"metrics\n"}; };
    }
    void start() {
        std::uint32_t cores = GetParam();
        shared.rings.resize(cores);
        for (std::uint32_t from = 0; from < cores; ++from)
            for (std::uint32_t to = 0; to < cores; ++to)
                shared.rings[from].push_back(from == to ? nullptr : std::make_unique<BatchRing>());
        for (std::uint32_t i = 0; i < cores; ++i) shared.cores.push_back(std::move(*Core::create(shared, i)));
        for (auto& core : shared.cores) core->start();
    }
    ~CoreTest() override {
        for (auto& core : shared.cores) core->post([](Core& one) { one.stop(); });
        for (auto& core : shared.cores) core->join();
    }
    TestClient connect(const NodePrivateKey& key = NodePrivateKey::generate(), Door door = Door::Derp,
                       Endpoint from = *Endpoint::parse("192.0.2.7:40000")) {
        if (shared.cores.empty()) start();
        int pair[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        int flags = ::fcntl(pair[0], F_GETFL);
        ::fcntl(pair[0], F_SETFL, flags | O_NONBLOCK);
        auto connection = std::make_unique<Connection>(Fd{pair[0]}, from, door);
        connection->phase = Phase::HttpHead;
        shared.cores[next_core++ % shared.cores.size()]->give(std::move(connection));
        return TestClient{Fd{pair[1]}, key};
    }
    TestClient logged_in(const NodePrivateKey& key = NodePrivateKey::generate(), derp::ClientInfo info = {}) {
        TestClient client = connect(key);
        EXPECT_TRUE(client.log_in(shared.settings.public_key, info));
        client.settle();
        return client;
    }
    TestClient mesh_peer() {
        derp::ClientInfo info;
        info.mesh_key = shared.settings.mesh_key;
        return logged_in(NodePrivateKey::generate(), info);
    }
    std::uint64_t sum(Counter Counters::*counter) {
        std::uint64_t out = 0;
        for (auto& core : shared.cores) out += (core->counters().*counter).get();
        return out;
    }
    template <typename Condition>
    bool wait_until(Condition condition, std::chrono::milliseconds patience = kPatience) {
        for (auto i = 0ms; i < patience; ++i) {
            if (condition()) return true;
            std::this_thread::sleep_for(1ms);
        }
        return false;
    }
    void set_rate_limit(RateLimit limit) {
        if (shared.cores.empty()) start();
        for (auto& core : shared.cores) core->post([limit](Core& one) { one.set_rate_limit(limit); });
    }
    static std::string disco() {
        std::string out = "TS\xf0\x9f\x92\xac";
        out.resize(62, 'x');
        return out;
    }

    Shared shared;
    std::size_t next_core = 0;
};

} // namespace tailrace::relay
