// proto/derp_stream.hpp - cuts a byte stream into DERP frames, without copying those that arrive whole.
#pragma once
#include "proto/derp.hpp"

#include <algorithm>

namespace tailrace::derp {

/// Feed it what arrives, however it is cut. Between feeds it keeps the beginning of one frame, nothing when idle.
/// A frame whose type has no limit is skipped, whatever its length, without being kept.
class FrameStream {
public:
    enum class Next { Continue, Stop };

    /// Calls on_frame(type, payload) -> Next for each whole frame. limit_of(type) gives the longest payload of a type
    /// as std::optional<std::size_t>, nothing for types that are skipped; a longer one is an error. Returns how
    /// many bytes were taken: all of them, unless on_frame said Stop.
    template <typename LimitOf, typename OnFrame>
    Result<std::size_t> feed(BytesView data, LimitOf limit_of, OnFrame on_frame) {
        std::size_t at = 0;
        for (;;) {
            if (to_skip_ > 0) {
                auto skipped = std::min<std::uint64_t>(to_skip_, data.size() - at);
                to_skip_ -= skipped;
                at += static_cast<std::size_t>(skipped);
                if (to_skip_ > 0) return at;
            }
            if (!begun_.empty() && !complete(data, at, kHeaderSize)) return at;
            BytesView head = begun_.empty() ? data.subspan(at) : BytesView{begun_};
            if (head.size() < kHeaderSize) {
                begun_.assign(head.begin(), head.end());
                return data.size();
            }
            FrameHeader header = read_header(head.first<kHeaderSize>());
            std::optional<std::size_t> limit = limit_of(header.type);
            if (!limit) {
                to_skip_ = header.length;
                if (begun_.empty())
                    at += kHeaderSize;
                else
                    forget();
                continue;
            }
            if (header.length > *limit)
                return Error::make("DERP frame of type {} has {} bytes, above the limit of {}",
                                   static_cast<int>(header.type), header.length, *limit);
            std::size_t whole = kHeaderSize + header.length;
            if (begun_.empty()) {
                if (head.size() < whole) {
                    begun_.assign(head.begin(), head.end());
                    return data.size();
                }
                at += whole;
                if (on_frame(header.type, head.subspan(kHeaderSize, header.length)) == Next::Stop) return at;
            } else {
                if (!complete(data, at, whole)) return at;
                Bytes frame = std::move(begun_);
                forget();
                if (on_frame(header.type, BytesView{frame}.subspan(kHeaderSize)) == Next::Stop) return at;
            }
        }
    }

    /// Bytes kept of a frame that has begun.
    std::size_t kept() const { return begun_.size(); }

private:
    // Brings begun_ up to `size` bytes from data; false when there are not enough yet.
    bool complete(BytesView data, std::size_t& at, std::size_t size) {
        if (begun_.size() >= size) return true;
        std::size_t more = std::min(size - begun_.size(), data.size() - at);
        begun_.insert(begun_.end(), data.begin() + static_cast<std::ptrdiff_t>(at),
                      data.begin() + static_cast<std::ptrdiff_t>(at + more));
        at += more;
        return begun_.size() >= size;
    }
    void forget() { begun_ = Bytes{}; }

    Bytes begun_;
    std::uint64_t to_skip_ = 0;
};

} // namespace tailrace::derp
