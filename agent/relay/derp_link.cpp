#include "agent/relay/derp_link.hpp"
#include "agent/relay/relay_dial.hpp"
#include "base/io/http1.hpp"
#include "proto/derp_stream.hpp"

#include <cerrno>

namespace tailrace {
namespace {

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

Task<Result<std::unique_ptr<Stream>>> log_in(std::unique_ptr<Stream> socket, wire::DerpNode node,
                                             NodePrivateKey identity) {
    Http1Client http{std::move(socket)};
    HttpRequest request;
    request.target = "/derp";
    request.authority = node.host_name;
    request.headers.add("Connection", "Upgrade");
    request.headers.add("Upgrade", "DERP");
    auto response = co_await http.start(std::move(request));
    if (!response) co_return response.error();
    if (response->status != 101)
        co_return Error::make("the server answered {} instead of switching to DERP", response->status);
    auto stream = http.take_stream();
    auto key = co_await read_server_key(*stream);
    if (!key) co_return key.error();
    derp::ClientInfo info;
    info.version = derp::kVersion;
    info.can_ack_pings = true;
    Bytes frame = derp::write_frame(derp::FrameType::ClientInfo, derp::seal_client_info(info, identity, *key));
    if (auto written = co_await stream->write_all(frame); !written) co_return written.error();
    co_return std::move(stream);
}

} // namespace

Task<Result<std::unique_ptr<Stream>>> dial_derp(Reactor& reactor, wire::DerpRegion region, NodePrivateKey identity,
                                                std::uint32_t mark) {
    Error last = Error::make("region {} has no relay that may be used", region.region_id);
    TimePoint deadline = reactor.now() + std::chrono::seconds{10};
    for (const wire::DerpNode& node : region.nodes) {
        if (node.stun_only) continue;
        for (const std::string& host : relay_hosts(node)) {
            if (reactor.now() >= deadline) co_return last;
            auto socket = co_await dial_relay_node(reactor, node, host, mark);
            if (!socket) {
                last = socket.error().with("relay {}", node.host_name);
                continue;
            }
            Timer timer{reactor};
            timer.after(deadline - reactor.now(), [stream = socket->get()] { stream->close(); });
            auto stream = co_await log_in(std::move(*socket), node, identity);
            if (stream) co_return stream;
            last = stream.error().with("relay {}", node.host_name);
        }
    }
    co_return last;
}

DerpLink::DerpLink(std::unique_ptr<Stream> stream, Callbacks callbacks)
    : stream_(std::move(stream)), callbacks_(std::move(callbacks)), more_(stream_->reactor()),
      written_(stream_->reactor()), last_packet_sent_(stream_->reactor().now()), last_heard_(last_packet_sent_) {}

void DerpLink::send_packet(const NodeKey& to, BytesView packet) {
    if (packet.size() > derp::kMaxPacket) return;
    Bytes frame(derp::kHeaderSize + NodeKey::kSize + packet.size());
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
    queue_.push_back(derp::write_frame(type, payload));
    more_.notify();
}

void DerpLink::close() {
    over_ = true;
    stream_->close();
    more_.notify();
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
    case FrameType::Health:
        callbacks_.health(std::string{as_chars(payload)});
        return {};
    default:
        return {}; // a late ServerKey, ServerInfo, KeepAlive, and what later versions say
    }
}

Task<Error> DerpLink::run() {
    spawn(stream_->reactor(), "relay writer", write());
    Timer silence{stream_->reactor()};
    auto rearm = [&] { silence.after(kSilence, [this] { stream_->close(); }); };
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
    co_await written_.wait(); // the writer uses the stream too
    co_return *why;
}

} // namespace tailrace
