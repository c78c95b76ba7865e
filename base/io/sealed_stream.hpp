// base/io/sealed_stream.hpp - a Stream whose bytes travel in a RecordCodec's records (Noise).
#pragma once
#include "base/io/stream.hpp"
#include "base/record_codec.hpp"

namespace tailrace {

class SealedStream final : public Stream {
public:
    SealedStream(std::unique_ptr<Stream> inner, std::unique_ptr<RecordCodec> codec)
        : inner_(std::move(inner)), codec_(std::move(codec)) {}

    Result<std::size_t> try_read(std::span<std::byte> into) override;
    Result<std::size_t> try_write(BytesView data) override;
    Result<void> try_flush() override;
    bool has_buffered() const override { return read_at_ < opened_.size() || inner_->has_buffered(); }
    Descriptor& descriptor() override { return inner_->descriptor(); }

private:
    std::unique_ptr<Stream> inner_;
    std::unique_ptr<RecordCodec> codec_;
    Bytes opened_; // plaintext not yet read; freed when empty
    std::size_t read_at_ = 0;
    Bytes sealed_; // records not yet written; freed when empty
    std::size_t written_ = 0;
};

} // namespace tailrace
