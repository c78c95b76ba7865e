// tests/fakes/fake_relay.hpp - a relay on a loopback port that does what it is told: it tells nothing by itself, passes
// nothing on, and may lie. TLS with a pinned certificate, no fast start.
#pragma once
#include "base/io/socket.hpp"
#include "base/io/tls.hpp"
#include "proto/control/derp_map.hpp"
#include "proto/derp_stream.hpp"

#include <gtest/gtest.h>

#include <list>
#include <memory>
#include <utility>
#include <vector>

namespace tailrace {

class FakeRelay {
public:
    struct Client {
        NodeKey key;
        std::vector<std::pair<derp::FrameType, Bytes>> frames; ///< after its login
        std::unique_ptr<Stream> stream;
        bool over = false;

        std::size_t count(derp::FrameType type) const {
            std::size_t out = 0;
            for (const auto& frame : frames) out += frame.first == type;
            return out;
        }
    };

    FakeRelay(Reactor& reactor, std::string name, const std::string& listen = "127.0.0.1:0")
        : reactor_(reactor), name_(std::move(name)), identity_(*make_self_signed({"127.0.0.1"})),
          context_(*TlsContext::server(identity_)), listener_(*Listener::tcp(reactor, *Endpoint::parse(listen))),
          key(NodePrivateKey::generate()) {
        spawn(reactor, "fake relay", accept(alive_, this));
    }
    ~FakeRelay() {
        *alive_ = false;
        listener_.close();
        for (Client& client : clients)
            if (client.stream) client.stream->close();
    }
    FakeRelay(const FakeRelay&) = delete;
    FakeRelay& operator=(const FakeRelay&) = delete;

    wire::DerpNode node() const {
        wire::DerpNode out;
        out.name = name_;
        out.host_name = out.ipv4 = "127.0.0.1";
        out.ipv6 = "none";
        out.derp_port = listener_.local().port;
        out.cert_name = *certificate_pin(identity_.certificate);
        return out;
    }

    Task<void> send(Client& client, derp::FrameType type, Bytes payload) {
        Bytes frame = derp::write_frame(type, payload);
        if (!client.over) (void)co_await client.stream->write_all(frame);
    }
    /// When it returns, the client has taken all that it was sent, and we have all that it sent before.
    Task<void> settle(Client& client) {
        std::size_t before = client.count(derp::FrameType::Pong);
        co_await send(client, derp::FrameType::Ping, Bytes(8, std::byte{7}));
        co_await until([&] { return client.over || client.count(derp::FrameType::Pong) > before; });
    }
    template <typename Condition>
    Task<void> until(Condition condition) {
        while (!condition()) co_await reactor_.sleep(std::chrono::milliseconds{2});
    }
    /// The next to come in, however long it takes.
    Task<Client*> next_client() {
        std::size_t wanted = ++expected_;
        co_await until([&] { return clients.size() >= wanted; });
        co_return &*std::next(clients.begin(), static_cast<std::ptrdiff_t>(wanted - 1));
    }

private:
    Reactor& reactor_;
    std::string name_;
    TlsIdentity identity_;
    TlsContext context_;
    Listener listener_;
    std::size_t expected_ = 0;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

public:
    NodePrivateKey key;
    derp::ServerInfo info;
    bool throws_out = false; ///< whoever has logged in
    std::list<Client> clients;

private:
    static Task<void> accept(std::shared_ptr<bool> alive, FakeRelay* self) {
        for (;;) {
            auto socket = co_await self->listener_.accept();
            if (!*alive || !socket) co_return;
            spawn(self->reactor_, "fake relay's client", serve(alive, self, std::move(*socket)));
        }
    }
    static Task<void> serve(std::shared_ptr<bool> alive, FakeRelay* self, std::unique_ptr<Stream> socket) {
        auto opened = co_await tls_accept(self->context_, std::move(socket), std::chrono::seconds{10});
        if (!*alive || !opened) co_return;
        std::unique_ptr<Stream> stream = std::move(*opened);
        std::string head;
        while (!head.ends_with("\r\n\r\n")) {
            std::byte one{};
            if (auto got = co_await stream->read_exactly({&one, 1}); !got) co_return;
            head += static_cast<char>(one);
        }
        Bytes hello = to_bytes(as_bytes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n"
                                        "Connection: Upgrade\r\n\r\n"));
        if (!*alive) co_return;
        Bytes first = derp::write_frame(derp::FrameType::ServerKey, derp::write_server_key(self->key.public_key()));
        hello.insert(hello.end(), first.begin(), first.end());
        if (auto sent = co_await stream->write_all(hello); !sent || !*alive) co_return;
        derp::FrameStream frames;
        Client* client = nullptr;
        Bytes buffer(16 << 10);
        for (;;) {
            auto count = co_await stream_of(client, stream).read_some(buffer);
            if (!*alive) co_return;
            if (!count || *count == 0) break;
            auto limit = [](derp::FrameType) { return std::optional<std::size_t>{1 << 20}; };
            auto take = [&](derp::FrameType type, BytesView payload) {
                if (client == nullptr && type == derp::FrameType::ClientInfo) {
                    self->clients.push_back({*derp::parse_client_key(payload), {}, std::move(stream), false});
                    client = &self->clients.back();
                } else if (client != nullptr) {
                    client->frames.emplace_back(type, to_bytes(payload));
                }
                return derp::FrameStream::Next::Continue;
            };
            bool fresh = client == nullptr;
            if (auto fed = frames.feed(BytesView{buffer}.first(*count), limit, take); !fed) break;
            if (!fresh || client == nullptr) continue;
            if (self->throws_out) break;
            co_await self->send(*client, derp::FrameType::ServerInfo,
                                derp::seal_server_info(self->info, self->key, client->key));
            if (!*alive) co_return;
        }
        if (client == nullptr) co_return;
        client->over = true;
        client->stream->close();
    }
    static Stream& stream_of(Client* client, std::unique_ptr<Stream>& before) {
        return client == nullptr ? *before : *client->stream;
    }
};

} // namespace tailrace
