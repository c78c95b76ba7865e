// base/record_codec.hpp - turns a byte stream into sealed records and back: what SealedStream asks of a protocol.
#pragma once
#include "base/bytes.hpp"

namespace tailrace {

/// Both directions of an encrypted stream. After an error the codec is dead: close the stream.
class RecordCodec {
public:
    virtual ~RecordCodec() = default;
    /// Appends whole records that carry `plaintext`.
    virtual Result<void> seal(BytesView plaintext, Bytes& out) = 0;
    /// Keeps partial records itself; appends the plaintext of those that `arrived` completes.
    virtual Result<void> open(BytesView arrived, Bytes& plaintext) = 0;
};

} // namespace tailrace
