// proto/map_frame.hpp - the frames of a map stream: u32 little-endian length, then JSON, zstd-compressed when the
// client asked for it (control-protocol.md 5.2). Source: tailscale control/controlclient/direct.go.
#pragma once
#include "base/bytes.hpp"
#include "base/result.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

enum class MapCompression { None, Zstd };

constexpr std::size_t kMaxMapJson = 16 * 1024 * 1024; // what a client takes
constexpr std::size_t kMaxRequestJson = 1024 * 1024;  // what a server takes
inline constexpr std::string_view kKeepAliveJson = R"({"KeepAlive":true})";

/// One complete, independent zstd frame. Level 1 is the fastest; clients take any.
Result<Bytes> zstd_compress(BytesView data, int level = 1);
/// One or more concatenated frames; fails when they grow past `limit` bytes.
Result<std::string> zstd_decompress(BytesView data, std::size_t limit);

/// A whole frame.
Result<Bytes> write_map_frame(std::string_view json, MapCompression compression, int level = 1);
/// The frame of a payload that is compressed already (shared pieces may be concatenated: zstd frames are).
Bytes frame_map_payload(BytesView payload);
/// Byte-identical each time: clients recognise its compressed bytes.
const Bytes& keep_alive_frame(MapCompression compression);

/// Cuts a response body into the JSON of its frames.
class MapFrameReader {
public:
    explicit MapFrameReader(MapCompression compression, std::size_t limit = kMaxMapJson)
        : compression_(compression), limit_(limit) {}

    void feed(BytesView body) { held_.insert(held_.end(), body.begin(), body.end()); }
    /// The next frame's JSON, nothing when it has not arrived whole. After an error: drop the stream.
    Result<std::optional<std::string>> next();

private:
    MapCompression compression_;
    std::size_t limit_;
    Bytes held_;
    std::size_t at_ = 0; // of the next frame in held_
};

} // namespace tailrace
