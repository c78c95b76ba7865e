#include "base/io/websocket.hpp"

#include "base/io/sealed_stream.hpp"
#include "base/random.hpp"
#include "base/text.hpp"

#include <openssl/sha.h>

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::uint8_t kContinuation = 0, kBinary = 2, kClose = 8, kPing = 9, kPong = 10; // RFC 6455 section 5.2
constexpr std::uint8_t kFinal = 0x80, kMasked = 0x80;

} // namespace

void WebSocketCodec::append_frame(std::uint8_t opcode, BytesView payload, Bytes& out) const {
    Writer head;
    std::uint8_t mask_bit = side_ == Side::Client ? kMasked : 0;
    head.u8(kFinal | opcode);
    if (payload.size() < 126) {
        head.u8(static_cast<std::uint8_t>(mask_bit | payload.size()));
    } else if (payload.size() <= 0xffff) {
        head.u8(mask_bit | 126);
        head.be16(static_cast<std::uint16_t>(payload.size()));
    } else {
        head.u8(mask_bit | 127);
        head.be64(payload.size());
    }
    std::array<std::byte, 4> mask{};
    if (side_ == Side::Client) {
        mask = random_array<4>();
        head.bytes(mask);
    }
    out.insert(out.end(), head.view().begin(), head.view().end());
    for (std::size_t i = 0; i < payload.size(); ++i) out.push_back(payload[i] ^ mask[i % 4]);
}

Result<void> WebSocketCodec::seal(BytesView plaintext, Bytes& out) {
    out.insert(out.end(), pongs_.begin(), pongs_.end());
    pongs_ = {};
    append_frame(kBinary, plaintext, out);
    return {};
}

// Called with every byte of a header until it is whole.
Result<void> WebSocketCodec::begin_frame() {
    if (header_.size() < 2) return {};
    auto first = std::to_integer<std::uint8_t>(header_[0]);
    auto second = std::to_integer<std::uint8_t>(header_[1]);
    std::size_t length_bytes = (second & 0x7f) == 126 ? 2 : (second & 0x7f) == 127 ? 8 : 0;
    bool masked = (second & kMasked) != 0;
    if (header_.size() < 2 + length_bytes + (masked ? 4U : 0U)) return {};
    if ((first & 0x70) != 0) return Error::make("WebSocket: reserved bits are set");
    if (masked != (side_ == Side::Server)) return Error::make("WebSocket: masking is wrong");
    opcode_ = first & 0x0f;
    Reader in{BytesView{header_}.subspan(2)};
    payload_left_ = length_bytes == 2 ? in.be16() : length_bytes == 8 ? in.be64() : second & 0x7f;
    mask_ = masked ? in.array<4>() : std::array<std::byte, 4>{};
    bool control = opcode_ >= 8;
    if (control && (payload_left_ > 125 || (first & kFinal) == 0)) return Error::make("WebSocket: bad control frame");
    if (!control && opcode_ != kBinary && opcode_ != kContinuation)
        return Error::make("WebSocket: only binary messages are understood");
    header_.clear();
    control_.clear();
    payload_at_ = 0;
    in_payload_ = payload_left_ > 0;
    if (!in_payload_ && control) return end_control_frame();
    return {};
}

Result<void> WebSocketCodec::end_control_frame() {
    if (opcode_ == kClose) return Error::from_errno(ECONNRESET, "WebSocket");
    constexpr std::size_t kMostPending = 4096; // a flood of pings is answered in part
    if (opcode_ == kPing && pongs_.size() < kMostPending) append_frame(kPong, control_, pongs_);
    return {};
}

Result<void> WebSocketCodec::open(BytesView arrived, Bytes& plaintext) {
    while (!arrived.empty()) {
        if (!in_payload_) {
            header_.push_back(arrived.front());
            arrived = arrived.subspan(1);
            if (auto begun = begin_frame(); !begun) return begun.error();
            continue;
        }
        auto count = static_cast<std::size_t>(std::min<std::uint64_t>(payload_left_, arrived.size()));
        Bytes& into = opcode_ >= 8 ? control_ : plaintext;
        for (std::size_t i = 0; i < count; ++i) into.push_back(arrived[i] ^ mask_[(payload_at_ + i) % 4]);
        arrived = arrived.subspan(count);
        payload_at_ += count;
        payload_left_ -= count;
        if (payload_left_ > 0) break;
        in_payload_ = false;
        if (opcode_ >= 8)
            if (auto ended = end_control_frame(); !ended) return ended.error();
    }
    return {};
}

bool wants_websocket(const HttpRequest& request) {
    return request.headers.has_token("upgrade", "websocket");
}

HttpResponse accept_websocket(const HttpRequest& request, std::string protocol,
                              std::function<Task<void>(std::unique_ptr<Stream>)> run) {
    std::string_view key = request.headers.get("sec-websocket-key");
    if (request.method != "GET" || key.empty() || request.headers.get("sec-websocket-version") != "13")
        return HttpResponse::text(400, "not a WebSocket request\n");
    if (!request.headers.has_token("sec-websocket-protocol", protocol))
        return HttpResponse::text(400, "the WebSocket sub-protocol must be " + protocol + "\n");
    std::string salted = std::string{key} + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455 section 1.3
    std::array<std::byte, SHA_DIGEST_LENGTH> digest{};
    SHA1(reinterpret_cast<const unsigned char*>(salted.data()), salted.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
    HttpResponse response;
    response.status = 101;
    response.headers.add("Upgrade", "websocket");
    response.headers.add("Connection", "Upgrade");
    response.headers.add("Sec-WebSocket-Accept", base64_encode(digest));
    response.headers.add("Sec-WebSocket-Protocol", std::move(protocol));
    response.upgrade = [run = std::move(run)](std::unique_ptr<Stream> stream) -> Task<void> {
        auto codec = std::make_unique<WebSocketCodec>(WebSocketCodec::Side::Server);
        std::unique_ptr<Stream> framed = std::make_unique<SealedStream>(std::move(stream), std::move(codec));
        co_await run(std::move(framed));
    };
    return response;
}

} // namespace tailrace
