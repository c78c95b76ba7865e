// base/io/websocket.hpp - WebSocket (RFC 6455) as a byte stream: binary messages whose boundaries carry no meaning.
//
// Ours, and not Boost.Beast's, because that one runs on Asio's streams only, and ours end in a plain descriptor.
#pragma once
#include "base/io/http.hpp"
#include "base/record_codec.hpp"

#include <functional>
#include <memory>

namespace tailrace {

/// Frames as records, for a SealedStream. Text messages and oversized control frames are errors; a close frame ends
/// reading with ECONNRESET. A pong is sent with the next data that we send.
class WebSocketCodec final : public RecordCodec {
public:
    enum class Side { Client, Server }; ///< a client masks what it sends
    explicit WebSocketCodec(Side side) : side_(side) {}

    Result<void> seal(BytesView plaintext, Bytes& out) override;
    Result<void> open(BytesView arrived, Bytes& plaintext) override;

private:
    Result<void> begin_frame();
    Result<void> end_control_frame();
    void append_frame(std::uint8_t opcode, BytesView payload, Bytes& out) const;

    Side side_;
    Bytes header_; // of the frame that is arriving, up to 14 bytes
    bool in_payload_ = false;
    std::uint8_t opcode_ = 0;
    std::uint64_t payload_left_ = 0;
    std::uint64_t payload_at_ = 0;
    std::array<std::byte, 4> mask_{};
    Bytes control_; // payload of a control frame, up to 125 bytes
    Bytes pongs_;   // whole frames to send
};

/// True when the request asks for a WebSocket.
bool wants_websocket(const HttpRequest& request);
/// The 101 that accepts it, selecting `protocol`; `run` gets the byte stream. 400 when the request is not right or
/// does not offer `protocol`.
HttpResponse accept_websocket(const HttpRequest& request, std::string protocol,
                              std::function<Task<void>(std::unique_ptr<Stream>)> run);

} // namespace tailrace
