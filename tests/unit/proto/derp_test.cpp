// Vectors: derp-disco-paths.md 1.10, made with another NaCl implementation.
#include "base/text.hpp"
#include "proto/derp_stream.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace::derp {
namespace {

using ::testing::HasSubstr;

Bytes hex(std::string_view text) {
    return *hex_decode(text);
}
template <std::size_t N>
std::array<std::byte, N> counting_from(unsigned first) {
    std::array<std::byte, N> out;
    for (std::size_t i = 0; i < N; ++i) out[i] = static_cast<std::byte>(first + i);
    return out;
}

const NodePrivateKey kServer =
    *NodePrivateKey::parse("privkey:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e5f");
const NodePrivateKey kClient =
    *NodePrivateKey::parse("privkey:202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e7f");
const NodeKey kPeer{counting_from<32>(0xa0)};

const char* const kServerKeyFrame =
    "010000002844455250f09f94918f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f";
const char* const kClientInfoFrame =
    "0200000068358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254404142434445464748494a"
    "4b4c4d4e4f50515253545556575ced510ea521fd8c93b5fb572cdc3b83c51736ebbff954bbcd71a150815a3b3a0d6425"
    "f015948ec55275cfc4f82af696";
const char* const kServerInfoFrame = "0300000035606162636465666768696a6b6c6d6e6f7071727374757677bfd7ab32b35ecdf6bc47d12"
                                     "2c45a266f4e7505b0459aebc8c4d09c7a45";
const char* const kServerInfoWithLimits =
    "0300000079808182838485868788898a8b8c8d8e8f909192939495969763e53963c6fc66139e9b0b9da55c4f6838a15b"
    "673d7b2bf55da90ef8f0d0c5313f73665a84fefee88e79c04d9f28b8eedadcd657528c5f0c7a08611bfe2bd440eae909"
    "9558061c7a5dd4be95f62b5a5f2fd37ce399127dfc86061dca417a0c751e";

BytesView payload_of(const Bytes& frame) {
    return BytesView{frame}.subspan(kHeaderSize);
}

TEST(Derp, WritesTheServerKeyAsTheReferenceDoes) {
    Bytes frame = write_frame(FrameType::ServerKey, write_server_key(kServer.public_key()));
    EXPECT_EQ(hex_encode(frame), kServerKeyFrame);
    EXPECT_EQ(*parse_server_key(payload_of(frame)), kServer.public_key());
}

TEST(Derp, RefusesAServerKeyWithoutMagic) {
    Bytes frame = hex(kServerKeyFrame);
    frame[6] = std::byte{0};
    EXPECT_FALSE(parse_server_key(payload_of(frame)));
    EXPECT_FALSE(parse_server_key(BytesView{frame}.subspan(kHeaderSize, 39)));
}

TEST(Derp, SealsAndOpensTheClientInfoOfTheReference) {
    ClientInfo info;
    info.version = 2;
    info.can_ack_pings = true;
    Bytes payload = seal_client_info(info, kClient, kServer.public_key(), counting_from<24>(0x40));
    EXPECT_EQ(hex_encode(write_frame(FrameType::ClientInfo, payload)), kClientInfoFrame);
    auto opened = open_client_info(payload, kServer);
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_EQ(opened->version, 2);
    EXPECT_TRUE(opened->can_ack_pings);
    EXPECT_FALSE(opened->is_prober);
    EXPECT_FALSE(opened->mesh_key);
    EXPECT_EQ(*parse_client_key(payload), kClient.public_key());
}

TEST(Derp, RefusesAClientInfoWithAFlippedBit) {
    Bytes frame = hex(kClientInfoFrame);
    for (std::size_t at : {std::size_t{5}, std::size_t{40}, frame.size() - 1}) {
        Bytes bad = frame;
        bad[at] ^= std::byte{1};
        EXPECT_FALSE(open_client_info(payload_of(bad), kServer)) << at;
    }
}

Result<ClientInfo> opened_from(std::string_view json) {
    // The box itself is made by hand: what is inside is not what we would write.
    Bytes payload = to_bytes(kClient.public_key().view());
    auto nonce = counting_from<24>(0);
    payload.insert(payload.end(), nonce.begin(), nonce.end());
    payload.resize(payload.size() + crypto_box_MACBYTES + json.size());
    EXPECT_EQ(crypto_box_easy(reinterpret_cast<unsigned char*>(payload.data() + 56), as_uchars(as_bytes(json)),
                              json.size(), as_uchars(nonce), kServer.public_key().data(), kClient.data()),
              0);
    return open_client_info(payload, kServer);
}

TEST(Derp, AdmitsAnyVersionAndUnknownMembers) {
    EXPECT_TRUE(opened_from("{}"));
    EXPECT_EQ(opened_from(R"({"version":99})")->version, 99);
    EXPECT_EQ(opened_from(R"({"VERSION":1,"news":[1,2]})")->version, 1);
}

TEST(Derp, RefusesWhatIsNoObject) {
    EXPECT_FALSE(opened_from("[]"));
    EXPECT_FALSE(opened_from(""));
    EXPECT_FALSE(opened_from("null"));
    EXPECT_FALSE(opened_from(R"({"version":"two"})"));
}

TEST(Derp, TakesMeshKeysInEitherCaseAndNoOtherLength) {
    const std::string digits = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    auto info = opened_from(R"({"meshKey":")" + digits + R"("})");
    ASSERT_TRUE(info && info->mesh_key);
    EXPECT_TRUE(*info->mesh_key == *parse_mesh_key(to_lower(digits)));
    EXPECT_TRUE(opened_from(R"({"meshKey":""})"));
    EXPECT_FALSE(opened_from(R"({"meshKey":"0011"})"));
    EXPECT_FALSE(opened_from(R"({"meshKey":")" + digits.substr(1) + "x\"}"));
}

TEST(Derp, WritesTheFullClientInfoInTheOrderOfTheReference) {
    ClientInfo info;
    info.mesh_key = *parse_mesh_key("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    info.version = 2;
    info.is_prober = true;
    info.app_name = "x";
    Bytes payload = seal_client_info(info, kClient, kServer.public_key(), counting_from<24>(0));
    std::string text(payload.size() - 72, '\0');
    ASSERT_EQ(crypto_box_open_easy(reinterpret_cast<unsigned char*>(text.data()), as_uchars(payload) + 56,
                                   payload.size() - 56, as_uchars(payload) + 32, kClient.public_key().data(),
                                   kServer.data()),
              0);
    EXPECT_EQ(text, R"({"meshKey":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff","version":2,)"
                    R"("CanAckPings":false,"IsProber":true,"AppName":"x"})");
}

TEST(Derp, RefusesShortClientInfosAndTheZeroKey) {
    Bytes short_one = hex(kClientInfoFrame);
    short_one.resize(kHeaderSize + 55);
    EXPECT_FALSE(open_client_info(payload_of(short_one), kServer));
    Bytes zero(104);
    EXPECT_THAT(open_client_info(zero, kServer).error().message(), HasSubstr("zero"));
}

TEST(Derp, SealsAndOpensTheServerInfoOfTheReference) {
    ServerInfo info;
    Bytes payload = seal_server_info(info, kServer, kClient.public_key(), counting_from<24>(0x60));
    EXPECT_EQ(hex_encode(write_frame(FrameType::ServerInfo, payload)), kServerInfoFrame);
    info.bytes_per_second = 1000000;
    info.bytes_burst = 2000000;
    payload = seal_server_info(info, kServer, kClient.public_key(), counting_from<24>(0x80));
    EXPECT_EQ(hex_encode(write_frame(FrameType::ServerInfo, payload)), kServerInfoWithLimits);
    auto opened = open_server_info(payload, kClient, kServer.public_key());
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->bytes_per_second, 1000000);
    EXPECT_EQ(opened->bytes_burst, 2000000);
}

TEST(Derp, IgnoresMembersOfServerInfoThatItDoesNotKnow) {
    const std::string_view json = R"({"version":3,"news":{"a":[1]}})";
    auto nonce = counting_from<24>(0);
    Bytes payload = to_bytes(nonce);
    payload.resize(payload.size() + crypto_box_MACBYTES + json.size());
    ASSERT_EQ(crypto_box_easy(reinterpret_cast<unsigned char*>(payload.data() + 24), as_uchars(as_bytes(json)),
                              json.size(), as_uchars(nonce), kClient.public_key().data(), kServer.data()),
              0);
    auto opened = open_server_info(payload, kClient, kServer.public_key());
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_EQ(opened->version, 3);
}

TEST(Derp, WritesPacketsAsTheReferenceDoes) {
    Bytes packet = hex("010203");
    Bytes frame(kHeaderSize + 35);
    write_packet_frame(frame, FrameType::SendPacket, kPeer, packet);
    EXPECT_EQ(hex_encode(frame), "0400000023a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf010203");
    write_packet_frame(frame, FrameType::RecvPacket, kClient.public_key(), packet);
    EXPECT_EQ(hex_encode(frame), "0500000023358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254010203");
    auto view = parse_packet(payload_of(frame));
    ASSERT_TRUE(view);
    EXPECT_EQ(view->key, kClient.public_key());
    EXPECT_EQ(to_bytes(view->packet), packet);
}

TEST(Derp, BoundsPackets) {
    EXPECT_FALSE(parse_packet(Bytes(31)));
    EXPECT_TRUE(parse_packet(Bytes(32))->packet.empty());
    EXPECT_TRUE(parse_packet(Bytes(32 + kMaxPacket)));
    EXPECT_FALSE(parse_packet(Bytes(33 + kMaxPacket)));
    EXPECT_FALSE(parse_forward(Bytes(63)));
    EXPECT_TRUE(parse_forward(Bytes(64 + kMaxPacket)));
    EXPECT_FALSE(parse_forward(Bytes(65 + kMaxPacket)));
}

TEST(Derp, ForwardsCarryBothKeys) {
    Bytes frame(kHeaderSize + 66);
    write_forward_frame(frame, kClient.public_key(), kPeer, hex("0aff"));
    auto view = parse_forward(payload_of(frame));
    ASSERT_TRUE(view);
    EXPECT_EQ(view->from, kClient.public_key());
    EXPECT_EQ(view->to, kPeer);
    EXPECT_EQ(hex_encode(view->packet), "0aff");
}

TEST(Derp, WritesNoticesAsTheReferenceDoes) {
    EXPECT_EQ(hex_encode(write_frame(FrameType::KeepAlive, {})), "0600000000");
    EXPECT_EQ(hex_encode(write_frame(FrameType::NotePreferred, write_note_preferred(true))), "070000000101");
    EXPECT_EQ(hex_encode(write_frame(FrameType::WatchConns, {})), "1000000000");
    Bytes gone = write_frame(FrameType::PeerGone, write_peer_gone({kPeer, GoneReason::NotHere}));
    EXPECT_EQ(hex_encode(gone), "0800000021a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf01");
    PeerPresent present{kPeer, *Endpoint::parse("192.0.2.7:40000"), kPresentRegular};
    Bytes frame = write_frame(FrameType::PeerPresent, write_peer_present(present));
    EXPECT_EQ(hex_encode(frame), "0900000033a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
                                 "00000000000000000000ffffc00002079c4001");
    EXPECT_EQ(*parse_peer_present(payload_of(frame)), present);
    Bytes restarting = write_frame(FrameType::Restarting, write_restarting({3000, 10000}));
    EXPECT_EQ(hex_encode(restarting), "150000000800000bb800002710");
    EXPECT_EQ(*parse_restarting(payload_of(restarting)), (Restarting{3000, 10000}));
}

TEST(Derp, ReadsNoticesOfOlderAndNewerServers) {
    Bytes key = to_bytes(kPeer.view());
    EXPECT_EQ(*parse_peer_gone(key), (PeerGone{kPeer, GoneReason::Disconnected}));
    EXPECT_FALSE(parse_peer_gone(BytesView{key}.first(31)));
    EXPECT_EQ(parse_peer_present(key)->key, kPeer);
    Bytes longer = write_peer_present({kPeer, *Endpoint::parse("[2001:db8::1]:1"), 8});
    EXPECT_EQ(parse_peer_present(BytesView{longer}.first(50))->flags, 0);
    longer.push_back(std::byte{7});
    EXPECT_EQ(parse_peer_present(longer)->flags, 8);
    EXPECT_EQ(parse_peer_present(longer)->from.text(), "[2001:db8::1]:1");
}

TEST(Derp, WrongLengthsAreErrors) {
    EXPECT_FALSE(parse_note_preferred({}));
    EXPECT_FALSE(parse_note_preferred(Bytes(2)));
    EXPECT_TRUE(*parse_note_preferred(hex("07")));
    EXPECT_FALSE(*parse_note_preferred(hex("00")));
    EXPECT_FALSE(parse_ping(Bytes(7)));
    EXPECT_TRUE(parse_ping(Bytes(8)));
    EXPECT_TRUE(parse_ping(Bytes(1000)));
    EXPECT_FALSE(parse_ping(Bytes(1001)));
    EXPECT_FALSE(parse_close_peer(Bytes(31)));
    EXPECT_FALSE(parse_close_peer(Bytes(33)));
    EXPECT_FALSE(parse_restarting(Bytes(7)));
}

TEST(Derp, KnowsDiscoByMagicAndAWholeHeader) {
    Bytes disco = hex("5453f09f92ac");
    disco.resize(62);
    EXPECT_TRUE(looks_like_disco(disco));
    disco.resize(61);
    EXPECT_FALSE(looks_like_disco(disco));
    EXPECT_FALSE(looks_like_disco(Bytes(100)));
}

// -- FrameStream

std::optional<std::size_t> test_limit(FrameType type) {
    if (type == FrameType::SendPacket) return 100;
    if (type == FrameType::Ping) return 8;
    return std::nullopt;
}

struct Collected {
    std::vector<std::pair<FrameType, std::string>> frames;
    Result<std::size_t> feed(FrameStream& stream, BytesView data) {
        return stream.feed(data, test_limit, [this](FrameType type, BytesView payload) {
            frames.emplace_back(type, hex_encode(payload));
            return FrameStream::Next::Continue;
        });
    }
};

TEST(FrameStream, CutsFramesHoweverTheyArrive) {
    Bytes all = hex("04000000030102030600000002aaaa1200000008010203040506070804000000000400000001ff");
    for (std::size_t piece = 1; piece <= all.size(); ++piece) {
        FrameStream stream;
        Collected got;
        for (std::size_t at = 0; at < all.size(); at += piece) {
            auto part = BytesView{all}.subspan(at, std::min(piece, all.size() - at));
            auto taken = got.feed(stream, part);
            ASSERT_TRUE(taken);
            EXPECT_EQ(*taken, part.size());
        }
        ASSERT_EQ(got.frames.size(), 4U) << piece;
        EXPECT_EQ(got.frames[0], std::pair(FrameType::SendPacket, std::string{"010203"}));
        EXPECT_EQ(got.frames[1], std::pair(FrameType::Ping, std::string{"0102030405060708"}));
        EXPECT_EQ(got.frames[2].second, "");
        EXPECT_EQ(got.frames[3].second, "ff");
        EXPECT_EQ(stream.kept(), 0U);
    }
}

TEST(FrameStream, SkipsUnknownFramesOfAnyLengthWithoutKeepingThem) {
    FrameStream stream;
    Collected got;
    ASSERT_TRUE(got.feed(stream, hex("7fffffffff")));
    Bytes megabyte(1 << 20);
    for (int i = 0; i < 4095; ++i) ASSERT_TRUE(got.feed(stream, megabyte));
    EXPECT_EQ(stream.kept(), 0U);
    megabyte.resize((1 << 20) - 1);
    ASSERT_TRUE(got.feed(stream, megabyte));
    ASSERT_TRUE(got.feed(stream, hex("040000000155")));
    ASSERT_EQ(got.frames.size(), 1U);
    EXPECT_EQ(got.frames[0].second, "55");
}

TEST(FrameStream, RefusesAKnownTypeAboveItsLimitFromTheHeaderOn) {
    FrameStream stream;
    Collected got;
    auto taken = got.feed(stream, hex("0400000065"));
    ASSERT_FALSE(taken);
    EXPECT_THAT(taken.error().message(), HasSubstr("101 bytes"));
}

TEST(FrameStream, StopsWhereItIsTold) {
    FrameStream stream;
    Bytes two = hex("0400000001aa0400000001bb");
    auto taken = stream.feed(two, test_limit, [](FrameType, BytesView) { return FrameStream::Next::Stop; });
    ASSERT_TRUE(taken);
    EXPECT_EQ(*taken, 6U);
    EXPECT_EQ(stream.kept(), 0U);
}

} // namespace
} // namespace tailrace::derp
