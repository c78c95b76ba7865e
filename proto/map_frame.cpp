#include "proto/map_frame.hpp"

#include <zstd.h>

#include <algorithm>
#include <memory>

namespace tailrace {

Result<Bytes> zstd_compress(BytesView data, int level) {
    // One context a thread: making one costs more than a small frame.
    static thread_local const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context{ZSTD_createCCtx(),
                                                                                           &ZSTD_freeCCtx};
    if (!context) return Error::make("zstd: no memory");
    Bytes out(ZSTD_compressBound(data.size()));
    std::size_t size = ZSTD_compressCCtx(context.get(), out.data(), out.size(), data.data(), data.size(), level);
    if (ZSTD_isError(size) != 0) return Error::make("zstd: {}", ZSTD_getErrorName(size));
    out.resize(size);
    out.shrink_to_fit();
    return out;
}

Result<std::string> zstd_decompress(BytesView data, std::size_t limit) {
    // 96 KB and a window: nothing to keep for a stream that is silent nearly always.
    const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context{ZSTD_createDCtx(), &ZSTD_freeDCtx};
    if (!context) return Error::make("zstd: no memory");
    // The size in the header saves growing; it comes from the other side and is not believed.
    unsigned long long hint = ZSTD_getFrameContentSize(data.data(), data.size());
    std::size_t room = hint <= limit ? static_cast<std::size_t>(hint) : data.size() * 4;
    room = std::clamp(room, std::size_t{256}, data.size() * 64 + 4096);

    std::string out;
    ZSTD_inBuffer in{data.data(), data.size(), 0};
    std::size_t used = 0, left = 1; // left: 0 when a frame is done
    while (in.pos < in.size || (left != 0 && used == out.size())) {
        if (used == out.size()) out.resize(std::min(limit + 1, std::max(room, used * 2)));
        ZSTD_outBuffer to{out.data(), out.size(), used};
        left = ZSTD_decompressStream(context.get(), &to, &in);
        if (ZSTD_isError(left) != 0) return Error::make("zstd: {}", ZSTD_getErrorName(left));
        used = to.pos;
        if (used > limit) return Error::make("zstd: grows past {} bytes", limit);
    }
    if (left != 0) return Error::make("zstd: the frame ends early, after {} bytes", data.size());
    out.resize(used);
    return out;
}

Bytes frame_map_payload(BytesView payload) {
    Bytes out;
    out.reserve(4 + payload.size());
    for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<std::byte>(payload.size() >> shift));
    out.insert(out.end(), payload.begin(), payload.end());
    return out;
}

Result<Bytes> write_map_frame(std::string_view json, MapCompression compression, int level) {
    if (compression == MapCompression::None) return frame_map_payload(as_bytes(json));
    auto compressed = zstd_compress(as_bytes(json), level);
    if (!compressed) return compressed.error();
    return frame_map_payload(*compressed);
}

const Bytes& keep_alive_frame(MapCompression compression) {
    // Compressing 18 bytes cannot fail but for memory; an empty frame would end the stream, which is then right.
    static const Bytes plain = write_map_frame(kKeepAliveJson, MapCompression::None).value_or({});
    static const Bytes compressed = write_map_frame(kKeepAliveJson, MapCompression::Zstd).value_or({});
    return compression == MapCompression::Zstd ? compressed : plain;
}

Result<std::optional<std::string>> MapFrameReader::next() {
    BytesView left = BytesView{held_}.subspan(at_);
    auto wait = [this]() -> Result<std::optional<std::string>> {
        held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(at_));
        at_ = 0;
        if (held_.empty()) held_ = {};
        return std::optional<std::string>{};
    };
    if (left.size() < 4) return wait();
    std::size_t length = Reader{left}.le32();
    if (length == 0) return Error::make("map frame is empty");
    if (length > limit_) return Error::make("map frame of {} bytes is too long", length);
    if (left.size() - 4 < length) return wait();
    BytesView payload = left.subspan(4, length);
    std::optional<std::string> json;
    if (compression_ == MapCompression::Zstd) {
        auto decompressed = zstd_decompress(payload, limit_);
        if (!decompressed) return decompressed.error().with("map frame");
        json = std::move(*decompressed);
    } else {
        json.emplace(as_chars(payload));
    }
    at_ += 4 + length;
    return json;
}

} // namespace tailrace
