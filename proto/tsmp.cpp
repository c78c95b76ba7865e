#include "proto/tsmp.hpp"

namespace tailrace {
namespace {

constexpr std::uint8_t kReject = '!', kTsmpPing = 'p', kTsmpPong = 'o', kDiscoKey = 'a';

Bytes write(const TsmpPing& ping) {
    Writer out;
    out.u8(kTsmpPing);
    out.bytes(ping.data);
    return out.take();
}

Bytes write(const TsmpPong& pong) {
    Writer out;
    out.u8(kTsmpPong);
    out.bytes(pong.data);
    out.be16(pong.peer_api_port);
    return out.take();
}

Bytes write(const TsmpReject& reject) {
    Writer out;
    out.u8(kReject);
    out.u8(reject.ip_proto);
    out.u8(static_cast<std::uint8_t>(reject.reason));
    out.be16(reject.source_port);
    out.be16(reject.destination_port);
    if (reject.maybe_broken) out.u8(1);
    return out.take();
}

Bytes write(const TsmpDiscoKey& disco) {
    Writer out;
    out.u8(kDiscoKey);
    out.bytes(disco.key.view());
    return out.take();
}

Bytes write(const TsmpUnknown& unknown) {
    Writer out;
    out.u8(unknown.type);
    return out.take();
}

} // namespace

Bytes write_tsmp(const TsmpMessage& message) {
    return std::visit([](const auto& one) { return write(one); }, message);
}

Result<TsmpMessage> parse_tsmp(BytesView payload) {
    Reader in{payload};
    std::uint8_t type = in.u8();
    TsmpMessage message;
    switch (type) {
    case kTsmpPing:
        message = TsmpPing{in.array<8>()};
        break;
    case kTsmpPong: {
        TsmpPong pong{in.array<8>()};
        if (in.left() >= 2) pong.peer_api_port = in.be16();
        message = pong;
        break;
    }
    case kReject: {
        TsmpReject reject;
        reject.ip_proto = in.u8();
        reject.reason = static_cast<TsmpRejectReason>(in.u8());
        reject.source_port = in.be16();
        reject.destination_port = in.be16();
        if (in.left() >= 1) reject.maybe_broken = (in.u8() & 1) != 0;
        message = reject;
        break;
    }
    case kDiscoKey:
        message = TsmpDiscoKey{DiscoKey{in.array<DiscoKey::kSize>()}};
        break;
    default:
        message = TsmpUnknown{type};
    }
    if (!in.ok()) return in.error("TSMP message");
    return message;
}

} // namespace tailrace
