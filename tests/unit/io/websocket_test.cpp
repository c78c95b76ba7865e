#include "base/io/websocket.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

Bytes sealed(WebSocketCodec& codec, std::string_view text) {
    Bytes out;
    EXPECT_TRUE(codec.seal(as_bytes(text), out));
    return out;
}

TEST(WebSocket, CarriesMessagesBothWaysByteByByte) {
    WebSocketCodec client{WebSocketCodec::Side::Client}, server{WebSocketCodec::Side::Server};
    for (std::size_t size : {0UL, 5UL, 125UL, 126UL, 65535UL, 70000UL}) {
        std::string data(size, 'x');
        Bytes got;
        for (std::byte b : sealed(client, data)) ASSERT_TRUE(server.open(BytesView{&b, 1}, got));
        EXPECT_EQ(as_chars(got), data);
        Bytes back;
        ASSERT_TRUE(client.open(sealed(server, data), back));
        EXPECT_EQ(as_chars(back), data);
    }
}

TEST(WebSocket, AnswersAPingWithTheNextData) {
    WebSocketCodec client{WebSocketCodec::Side::Client};
    Bytes got;
    ASSERT_TRUE(client.open(as_bytes(std::string_view{"\x89\x02hi", 4}), got));
    EXPECT_TRUE(got.empty());
    Bytes sent = sealed(client, "data");
    EXPECT_EQ(sent[0], std::byte{0x8a}) << "the pong comes first";
}

TEST(WebSocket, RefusesTextUnmaskedAndHugeControlFrames) {
    auto opens = [](std::string_view frame) {
        WebSocketCodec server{WebSocketCodec::Side::Server};
        Bytes got;
        return static_cast<bool>(server.open(as_bytes(frame), got));
    };
    EXPECT_FALSE(opens({"\x81\x80mask", 6})) << "text";
    EXPECT_FALSE(opens({"\x82\x01x", 3})) << "a client must mask";
    EXPECT_FALSE(opens({"\x89\xfe\x01\x00mask", 8})) << "a ping of 256 bytes";
    EXPECT_FALSE(opens({"\x88\x80mask", 6})) << "close";
    EXPECT_FALSE(opens({"\xc2\x80mask", 6})) << "reserved bit";
    EXPECT_TRUE(opens({"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xffmask-and-some", 23}))
        << "a huge message needs no memory";
}

TEST(WebSocket, AcceptsAsTheStandardSays) {
    HttpRequest request;
    request.headers = {{"Upgrade", "websocket"},
                       {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
                       {"Sec-WebSocket-Version", "13"},
                       {"Sec-WebSocket-Protocol", "derp, tailscale-control-protocol"}};
    EXPECT_TRUE(wants_websocket(request));
    auto response = accept_websocket(request, "tailscale-control-protocol", {});
    EXPECT_EQ(response.status, 101);
    EXPECT_EQ(response.headers.get("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    EXPECT_EQ(accept_websocket(request, "other", {}).status, 400);
}

} // namespace
} // namespace tailrace
