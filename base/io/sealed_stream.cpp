#include "base/io/sealed_stream.hpp"

#include <algorithm>

namespace tailrace {

Result<std::size_t> SealedStream::try_read(std::span<std::byte> into) {
    // One scratch buffer a thread: it is empty again before anybody else can run.
    static thread_local std::array<std::byte, 65536> arrived;
    while (read_at_ == opened_.size()) {
        opened_ = {};
        read_at_ = 0;
        auto count = inner_->try_read(arrived);
        if (!count) return count.error();
        if (*count == 0) return std::size_t{0};
        auto done = codec_->open(BytesView{arrived}.first(*count), opened_);
        if (!done) return done.error();
    }
    std::size_t count = std::min(into.size(), opened_.size() - read_at_);
    std::copy_n(opened_.begin() + static_cast<std::ptrdiff_t>(read_at_), count, into.begin());
    read_at_ += count;
    if (read_at_ == opened_.size()) {
        opened_ = {};
        read_at_ = 0;
    }
    return count;
}

Result<std::size_t> SealedStream::try_write(BytesView data) {
    if (auto flushed = try_flush(); !flushed) return flushed.error();
    constexpr std::size_t kAtOnce = 64 * 1024; // bounds the memory of a slow connection
    BytesView taken = data.first(std::min(data.size(), kAtOnce));
    if (auto done = codec_->seal(taken, sealed_); !done) return done.error();
    auto flushed = try_flush();
    if (!flushed && flushed.error().code() != EAGAIN) return flushed.error();
    return taken.size();
}

Result<void> SealedStream::try_flush() {
    while (written_ < sealed_.size()) {
        auto count = inner_->try_write(BytesView{sealed_}.subspan(written_));
        if (!count) return count.error();
        written_ += *count;
    }
    if (!sealed_.empty()) sealed_ = {};
    written_ = 0;
    return inner_->try_flush();
}

} // namespace tailrace
