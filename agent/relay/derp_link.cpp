#include "agent/relay/derp_link.hpp"
#include "base/io/http1.hpp"
#include "base/random.hpp"
#include "proto/derp_stream.hpp"

#include <algorithm>
#include <cerrno>
#include <sys/socket.h>

namespace tailrace {
namespace {

constexpr std::size_t kMostQueued = 2 * DerpLink::kQueued; // with what we say of ourselves

Task<Result<NodeKey>> read_server_key(Stream& stream) {
    std::array<std::byte, derp::kHeaderSize> head{};
    if (auto got = co_await stream.read_exactly(head); !got) co_return got.error();
    auto header = derp::read_header(head);
    if (header.type != derp::FrameType::ServerKey || header.length > 1024)
        co_return Error::make("the relay does not begin with its key");
    Bytes payload(header.length);
    if (auto got = co_await stream.read_exactly(payload); !got) co_return got.error();
    co_return derp::parse_server_key(payload);
}

Bytes client_info(const NodePrivateKey& identity, const NodeKey& relay) {
    derp::ClientInfo info;
    info.version = derp::kVersion;
    info.can_ack_pings = true;
    return derp::write_frame(derp::FrameType::ClientInfo, derp::seal_client_info(info, identity, relay));
}

/// For Host.
std::string authority_of(const wire::DerpNode& node) {
    bool v6 = node.host_name.find(':') != std::string::npos;
    return v6 ? fmt::format("[{}]", node.host_name) : node.host_name;
}

/// Request and login in one go; no HTTP answer comes, and the key that the relay sends is no news.
Task<Result<DerpLogin>> log_in_fast(std::unique_ptr<Stream> socket, wire::DerpNode node, std::string ideal,
                                    NodePrivateKey identity, NodeKey relay) {
    std::string head = fmt::format("GET /derp HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"
                                   "Derp-Fast-Start: 1\r\n",
                                   authority_of(node));
    if (!ideal.empty()) head += fmt::format("Ideal-Node: {}\r\n", ideal);
    head += "\r\n";
    Bytes flight = to_bytes(as_bytes(head));
    Bytes info = client_info(identity, relay);
    flight.insert(flight.end(), info.begin(), info.end());
    if (auto written = co_await socket->write_all(flight); !written) co_return written.error();
    co_return DerpLogin{std::move(socket), relay, true, node.name};
}

/// `ideal`: the first node of the region when this one is another; relays count such clients.
Task<Result<DerpLogin>> log_in(std::unique_ptr<Stream> socket, wire::DerpNode node, std::string ideal,
                               NodePrivateKey identity) {
    if (auto peer = tls_peer(*socket))
        if (auto relay = key_in_certificates(*peer))
            co_return co_await log_in_fast(std::move(socket), std::move(node), std::move(ideal), std::move(identity),
                                           *relay);
    Http1Client http{std::move(socket)};
    HttpRequest request;
    request.target = "/derp";
    request.authority = authority_of(node);
    request.headers.add("Connection", "Upgrade");
    request.headers.add("Upgrade", "DERP");
    if (!ideal.empty()) request.headers.add("Ideal-Node", ideal);
    auto response = co_await http.start(std::move(request));
    if (!response) co_return response.error();
    if (response->status != 101)
        co_return Error::make("the server answered {} instead of switching to DERP", response->status);
    auto stream = http.take_stream();
    auto key = co_await read_server_key(*stream);
    if (!key) co_return key.error();
    Bytes frame = client_info(identity, *key);
    if (auto written = co_await stream->write_all(frame); !written) co_return written.error();
    co_return DerpLogin{std::move(stream), *key, false, node.name};
}

} // namespace

Task<Result<DerpLogin>> dial_derp(Reactor& reactor, wire::DerpRegion region, NodePrivateKey identity,
                                  std::uint32_t mark, std::string avoid, RelayDialOptions options) {
    Error last = Error::make("region {} has no relay that may be used", region.region_id);
    TimePoint deadline = reactor.now() + options.limit;
    std::string ideal = region.nodes.empty() ? "" : region.nodes.front().name;
    std::erase_if(region.nodes,
                  [&](const wire::DerpNode& node) { return node.stun_only || (!avoid.empty() && node.name == avoid); });
    auto left = static_cast<std::int64_t>(region.nodes.size());
    for (const wire::DerpNode& node : region.nodes) {
        TimePoint begin = reactor.now();
        options.limit = (deadline - begin) / left--; // one that says nothing must not eat the time of the next
        if (options.limit <= Duration{}) break;
        auto socket = co_await dial_relay_node(reactor, node, mark, options);
        if (!socket) {
            last = socket.error().with("relay {}", node.host_name);
            continue;
        }
        Timer timer{reactor};
        bool late = false;
        timer.after(std::max<Duration>(begin + options.limit - reactor.now(), Duration{}),
                    [stream = socket->get(), &late] {
                        late = true;
                        stream->close();
                    });
        std::string not_in = node.name == ideal ? "" : ideal; // within the co_await g++ 12 destroys it twice
        auto login = co_await log_in(std::move(*socket), node, not_in, identity);
        if (login && !late) co_return login;
        last = (late ? Error::from_errno(ETIMEDOUT, "log in") : login.error()).with("relay {}", node.host_name);
    }
    co_return last;
}

DerpLink::DerpLink(DerpLogin login, NodePrivateKey identity, Callbacks callbacks)
    : stream_(std::move(login.stream)), relay_(login.relay), identity_(std::move(identity)),
      callbacks_(std::move(callbacks)), more_(stream_->reactor()), written_(stream_->reactor()),
      check_(stream_->reactor()), last_packet_sent_(stream_->reactor().now()), last_heard_(last_packet_sent_) {}

void DerpLink::send_packet(const NodeKey& to, BytesView packet) {
    if (packet.size() > derp::kMaxPacket) return;
    Bytes frame(derp::kHeaderSize + NodeKey::kSize + packet.size());
    if (bucket_ && !bucket_->try_take(stream_->reactor().now(), static_cast<double>(frame.size()))) {
        ++dropped_;
        return;
    }
    derp::write_packet_frame(frame, derp::FrameType::SendPacket, to, packet);
    if (queue_.size() >= kQueued) {
        queue_.pop_front();
        ++dropped_;
    }
    queue_.push_back(std::move(frame));
    last_packet_sent_ = stream_->reactor().now();
    more_.notify();
}

void DerpLink::send(derp::FrameType type, BytesView payload) {
    if (queue_.size() >= kMostQueued) return; // it asks and asks, and reads no answer
    queue_.push_back(derp::write_frame(type, payload));
    more_.notify();
}

void DerpLink::close() {
    over_ = true;
    stream_->close();
    more_.notify();
}

void DerpLink::check() {
    if (over_ || asked_) return;
    asked_ = random_array<sizeof(derp::PingData)>();
    send(derp::FrameType::Ping, *asked_);
    check_.after(kAnswer, [this] { close(); });
}

IpAddress DerpLink::local_address() {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getsockname(stream_->descriptor().fd(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address)).address.unmapped();
}

Task<void> DerpLink::write() {
    constexpr std::size_t kBatch = 64 << 10;
    while (!over_) {
        if (queue_.empty()) {
            co_await more_.wait();
            continue;
        }
        Bytes batch = std::move(queue_.front());
        queue_.pop_front();
        while (!queue_.empty() && batch.size() + queue_.front().size() <= kBatch) {
            batch.insert(batch.end(), queue_.front().begin(), queue_.front().end());
            queue_.pop_front();
        }
        if (auto written = co_await stream_->write_all(batch); !written) close();
    }
    written_.notify();
}

Result<void> DerpLink::take(derp::FrameType type, BytesView payload) {
    using derp::FrameType;
    last_heard_ = stream_->reactor().now();
    switch (type) {
    case FrameType::RecvPacket: {
        auto packet = derp::parse_packet(payload);
        if (!packet) return packet.error();
        callbacks_.packet(packet->key, packet->packet);
        return {};
    }
    case FrameType::PeerGone: {
        auto gone = derp::parse_peer_gone(payload);
        if (!gone) return gone.error();
        callbacks_.gone(*gone);
        return {};
    }
    case FrameType::Ping: {
        auto data = derp::parse_ping(payload);
        if (!data) return data.error();
        send(FrameType::Pong, *data);
        return {};
    }
    case FrameType::Pong: {
        auto data = derp::parse_ping(payload);
        if (!data) return data.error();
        if (asked_ && *asked_ == *data) {
            asked_.reset();
            check_.cancel();
        }
        return {};
    }
    case FrameType::Health:
        callbacks_.health(std::string{as_chars(payload.first(std::min(payload.size(), kLongestTrouble)))});
        return {};
    case FrameType::ServerInfo: {
        auto info = derp::open_server_info(payload, identity_, relay_);
        if (!info) return info.error();
        bucket_.reset();
        if (info->bytes_per_second > 0)
            bucket_.emplace(static_cast<double>(info->bytes_per_second), static_cast<double>(info->bytes_burst),
                            last_heard_);
        return {};
    }
    case FrameType::Restarting: {
        auto restarting = derp::parse_restarting(payload);
        if (!restarting) return restarting.error();
        callbacks_.restarting(*restarting);
        return {};
    }
    default:
        return {}; // a late ServerKey, KeepAlive, and what later versions say
    }
}

Task<Error> DerpLink::run(Duration longest_silence) {
    spawn(stream_->reactor(), "relay writer", write());
    Timer silence{stream_->reactor()};
    auto rearm = [&] { silence.after(longest_silence, [this] { stream_->close(); }); };
    rearm();
    derp::FrameStream frames;
    auto limit_of = [](derp::FrameType) { return std::optional<std::size_t>{derp::kMaxReceivedFrame}; };
    std::optional<Error> why;
    Bytes buffer(16 << 10);
    while (!why) {
        auto count = co_await stream_->read_some(buffer);
        if (!count) {
            why = count.error();
            break;
        }
        if (*count == 0) {
            why = Error::make("the relay closed the connection");
            break;
        }
        rearm();
        auto on_frame = [&](derp::FrameType type, BytesView payload) {
            if (auto taken = take(type, payload); !taken) why = taken.error();
            return why || over_ ? derp::FrameStream::Next::Stop : derp::FrameStream::Next::Continue;
        };
        auto fed = frames.feed(BytesView{buffer}.first(*count), limit_of, on_frame);
        if (!fed) why = fed.error();
        if (over_ && !why) why = Error::from_errno(ECANCELED, "relay");
    }
    close();
    check_.cancel();
    co_await written_.wait(); // the writer uses the stream too
    co_return *why;
}

} // namespace tailrace
