#include "proto/map_frame.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

std::string next_text(MapFrameReader& reader) {
    auto next = reader.next();
    if (!next) return "error: " + next.error().message();
    return *next ? **next : "wait";
}

TEST(MapFrame, PlainFramesAreALengthAndJson) {
    EXPECT_EQ(as_chars(*write_map_frame("{}", MapCompression::None)), std::string_view("\x02\0\0\0{}", 6));
    MapFrameReader reader{MapCompression::None};
    reader.feed(*write_map_frame(R"({"a":1})", MapCompression::None));
    EXPECT_EQ(next_text(reader), R"({"a":1})");
    EXPECT_EQ(next_text(reader), "wait");
}

TEST(MapFrame, CompressedFramesArriveInAnyPieces) {
    std::string big(300000, 'x');
    Bytes stream = *write_map_frame(big, MapCompression::Zstd);
    for (std::byte b : keep_alive_frame(MapCompression::Zstd)) stream.push_back(b);
    MapFrameReader reader{MapCompression::Zstd};
    std::vector<std::string> got;
    for (std::byte b : stream) {
        reader.feed({&b, 1});
        if (auto next = reader.next(); next && *next) got.push_back(**next);
    }
    ASSERT_EQ(got.size(), 2u);
    EXPECT_EQ(got[0], big);
    EXPECT_EQ(got[1], kKeepAliveJson);
}

TEST(MapFrame, SharedPiecesConcatenate) {
    Bytes payload = *zstd_compress(as_bytes(R"({"Peers":[1)"));
    Bytes tail = *zstd_compress(as_bytes(",2]}"));
    payload.insert(payload.end(), tail.begin(), tail.end());
    MapFrameReader reader{MapCompression::Zstd};
    reader.feed(frame_map_payload(payload));
    EXPECT_EQ(next_text(reader), R"({"Peers":[1,2]})");
}

TEST(MapFrame, KeepAlivesAreIdentical) {
    EXPECT_EQ(keep_alive_frame(MapCompression::Zstd), keep_alive_frame(MapCompression::Zstd));
    EXPECT_EQ(as_chars(keep_alive_frame(MapCompression::None)), std::string_view("\x12\0\0\0{\"KeepAlive\":true}", 22));
}

TEST(MapFrame, BoundsHold) {
    MapFrameReader empty{MapCompression::None};
    empty.feed(Bytes(4));
    EXPECT_EQ(next_text(empty), "error: map frame is empty");

    MapFrameReader long_one{MapCompression::None, 1000};
    long_one.feed(as_bytes(std::string_view("\xe9\x03\0\0", 4)));
    EXPECT_EQ(next_text(long_one), "error: map frame of 1001 bytes is too long");

    Bytes bomb = *zstd_compress(as_bytes(std::string(1001, 'a')));
    EXPECT_FALSE(zstd_decompress(bomb, 1000));
    EXPECT_EQ(zstd_decompress(bomb, 1001)->size(), 1001u);
    Bytes two = bomb;
    two.insert(two.end(), bomb.begin(), bomb.end());
    EXPECT_FALSE(zstd_decompress(two, 2001));
    EXPECT_EQ(zstd_decompress(two, 2002)->size(), 2002u);
}

TEST(MapFrame, DamagedCompressionIsAnError) {
    Bytes frame = *zstd_compress(as_bytes(std::string(5000, 'a') + "b"));
    EXPECT_FALSE(zstd_decompress(BytesView{frame}.first(frame.size() - 1), 100000));
    EXPECT_FALSE(zstd_decompress({}, 100));
    EXPECT_FALSE(zstd_decompress(as_bytes("{}"), 100));
    EXPECT_EQ(*zstd_decompress(*zstd_compress({}), 100), "");
    EXPECT_EQ(zstd_decompress(frame, 100000)->size(), 5001u); // a failure leaves nothing behind
}

} // namespace
} // namespace tailrace
