// The vector is that of control-protocol.md 2.7, checked there against the reference client.
#include "proto/noise.hpp"

#include "base/text.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

MachinePrivateKey private_key(std::string_view hex) {
    return *MachinePrivateKey::parse(fmt::format("privkey:{}", hex));
}

const auto kClient = private_key("0002030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f60");
const auto kClientEphemeral = private_key("4042434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60");
const auto kServer = private_key("8082838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f60");
const auto kServerEphemeral = private_key("c0c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf60");
constexpr std::string_view kInitiation =
    "007101006064b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d484667e515e2649e7bc3053b2ad63f8f50b185b3f445b"
    "2075edc5928e529b876fcf97a1d28ebc5a360f40a77d9c39e678fbeac7077ac0e9f101d0cdb85fe8de819109";
constexpr std::string_view kResponse =
    "0200303a553d74792d727efa9b9a4cde3da1ad93f1a2d0c09cb639b1a3c0fda14cbe243070235c5f11f700a308e910ca4f16a8";

struct Pair {
    std::unique_ptr<NoiseSession> client, server;
};

Pair vector_sessions() {
    auto client = NoiseClient::begin(113, kClient, kServer.public_key(), kClientEphemeral);
    auto accepted = NoiseServer{kServer}.accept(client->initiation(), kServerEphemeral);
    auto session = client->finish(accepted->response);
    return {std::move(*session), std::move(accepted->session)};
}

std::string opened(NoiseSession& session, BytesView records) {
    Bytes plaintext;
    auto done = session.open(records, plaintext);
    return done ? std::string{as_chars(plaintext)} : "error: " + done.error().message();
}

TEST(Noise, HandshakeMatchesTheVector) {
    auto client = NoiseClient::begin(113, kClient, kServer.public_key(), kClientEphemeral);
    ASSERT_TRUE(client);
    EXPECT_EQ(hex_encode(client->initiation()), kInitiation);
    EXPECT_EQ(
        base64_encode(client->initiation()),
        "AHEBAGBksQGx0L5ahwS9B4+YlQAfwD6On5Ui8YjdEo2YRtSEZn5RXiZJ57wwU7KtY/j1CxhbP0RbIHXtxZKOUpuHb8+XodKOvFo2D0CnfZw5"
        "5nj76scHesDp8QHQzbhf6N6BkQk=");
    EXPECT_EQ(hex_encode(client->state().hash()), "2a4aea7c2afd5f94b7a88c8f7423440380fd4e635400d2e9b5cccf4fdf15c472");
    EXPECT_EQ(hex_encode(client->state().chaining_key()),
              "2c05813b31df947a3036be8b3dea112a3d04d8a25dfb6a0a638539cf870ee89c");

    auto accepted = NoiseServer{kServer}.accept(client->initiation(), kServerEphemeral);
    ASSERT_TRUE(accepted) << accepted.error().message();
    EXPECT_EQ(hex_encode(accepted->response), kResponse);
    EXPECT_EQ(accepted->client, kClient.public_key());
    EXPECT_EQ(accepted->version, 113);

    auto session = client->finish(accepted->response);
    ASSERT_TRUE(session) << session.error().message();
    EXPECT_EQ(hex_encode((*session)->handshake_hash()),
              "b3d2a261d5719e6aef74c3bcfcdd8a4f8232e0f13818af990a1e0a208ba7aafb");
    EXPECT_EQ((*session)->handshake_hash(), accepted->session->handshake_hash());
}

TEST(Noise, RecordsMatchTheVector) {
    auto [client, server] = vector_sessions();
    Bytes out;
    ASSERT_TRUE(client->seal(as_bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), out));
    EXPECT_EQ(hex_encode(out),
              "040028b98ef4ec9ab92e4b20de91280b9301a14153b20c962c8bde39814bcb0ab03cce25b7c164b8171f4f");
    EXPECT_EQ(opened(*server, out), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    out.clear();
    ASSERT_TRUE(client->seal_record({}, out));
    EXPECT_EQ(hex_encode(out), "040010a8f489d0fdacfb265a93a595682f42dd");
    EXPECT_EQ(opened(*server, out), "");

    auto key = ChallengeKey::parse("chalpub:5869aff450549732cbaaed5e5df9b30a6da31cb0e5742bad5ad4a1a768f1a67b");
    Bytes early = write_early_payload({*key});
    EXPECT_EQ(early.size(), 104u);
    out.clear();
    ASSERT_TRUE(server->seal(early, out));
    EXPECT_EQ(
        hex_encode(out),
        "040078623d9d476d1fac3fc3a31dd9123a48815b3d0d1b228e6abef78e332da7a29743ec3a1cb27c41cc919e0d9259c8eb56dc9e828a70"
        "3e7f3ef9ca8d0cfba170551caae5a5483123ffd93a5a3fb3b4ddc5397ae870b0bca3641818a5068d8cf10bdf994054accd75d19e0f3344"
        "d9d445161352a83ef058dcc742");
    out.clear();
    ASSERT_TRUE(server->seal(as_bytes("hello"), out));
    EXPECT_EQ(hex_encode(out), "040015901932d7e0950e26c8630978435cfd42a19f759cca");
    for (int record = 2; record < 256; ++record) ASSERT_TRUE(server->seal(as_bytes("x"), out));
    out.clear();
    ASSERT_TRUE(server->seal(as_bytes("hello"), out)); // counter 0x100: big-endian
    EXPECT_EQ(hex_encode(out), "0400159d18753e7ae516edab69d2ff4e4d0ad476b50ed791");
}

TEST(Noise, LongWritesBecomeManyRecordsAndArriveInAnyPieces) {
    auto [client, server] = vector_sessions();
    std::string sent;
    for (int i = 0; i < 20000; ++i) sent += static_cast<char>('a' + i % 26);
    Bytes records;
    ASSERT_TRUE(client->seal(as_bytes(sent), records));
    EXPECT_EQ(records.size(), 20000u + 5 * 19);
    Bytes got;
    std::size_t step = 1;
    for (std::size_t at = 0; at < records.size(); step = step * 3 % 5003) {
        BytesView piece = BytesView{records}.subspan(at, std::min(step, records.size() - at));
        ASSERT_TRUE(server->open(piece, got));
        at += piece.size();
    }
    EXPECT_EQ(as_chars(got), sent);
}

TEST(Noise, OneByteAtATimeIsFine) {
    auto [client, server] = vector_sessions();
    Bytes records;
    for (std::string_view word : {"one ", "two ", "three"}) ASSERT_TRUE(server->seal(as_bytes(word), records));
    Bytes got;
    for (std::byte b : records) ASSERT_TRUE(client->open({&b, 1}, got));
    EXPECT_EQ(as_chars(got), "one two three");
}

TEST(Noise, DamageIsFinal) {
    for (auto [offset, what] : {std::pair{0, "type"}, {1, "length"}, {5, "forged"}}) {
        auto [client, server] = vector_sessions();
        Bytes record;
        ASSERT_TRUE(client->seal(as_bytes("hello"), record));
        Bytes good = record;
        record[static_cast<std::size_t>(offset)] ^= std::byte{0x40};
        Bytes got;
        auto done = server->open(record, got);
        ASSERT_FALSE(done);
        EXPECT_NE(done.error().message().find(what), std::string::npos) << done.error().message();
        EXPECT_FALSE(server->open(good, got));
        EXPECT_TRUE(got.empty());
    }
}

TEST(Noise, RefusesOversizedRecordsBeforeTheyArrive) {
    auto [client, server] = vector_sessions();
    Bytes got;
    std::byte header[3] = {std::byte{4}, std::byte{0x0f}, std::byte{0xfe}}; // 4094 and the header: one too many
    EXPECT_FALSE(server->open(header, got));
    Bytes too_long(kNoiseMaxPlaintext + 1), out;
    EXPECT_FALSE(client->seal_record(too_long, out));
}

TEST(Noise, ServerRefusesBadInitiations) {
    NoiseServer server{kServer};
    Bytes good = *hex_decode(kInitiation);
    ASSERT_TRUE(server.accept(good));
    EXPECT_FALSE(server.accept(BytesView{good}.first(100)));
    EXPECT_FALSE(server.accept({}));
    for (std::size_t at : {0, 1, 2, 4, 5, 37, 60, 85, 100}) {
        Bytes bad = good;
        bad[at] ^= std::byte{1};
        EXPECT_FALSE(server.accept(bad)) << at;
    }
    EXPECT_FALSE(NoiseServer{MachinePrivateKey::generate()}.accept(good));
    Bytes zero_ephemeral = good;
    std::fill_n(zero_ephemeral.begin() + 5, 32, std::byte{0});
    EXPECT_FALSE(server.accept(zero_ephemeral));
}

TEST(Noise, ClientReportsARefusalWithItsText) {
    auto client = NoiseClient::begin(113, kClient, kServer.public_key());
    Writer refusal;
    refusal.u8(3);
    refusal.be16(4);
    refusal.text("nope");
    EXPECT_EQ(*NoiseClient::answer_size(BytesView{refusal.view()}.first(3)), 7u);
    auto outcome = client->finish(refusal.view());
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().message(), "the control server refused the handshake: \"nope\"");
    EXPECT_FALSE(NoiseClient::answer_size(*hex_decode("020031")));
    EXPECT_FALSE(NoiseClient::answer_size(*hex_decode("0200")));
    EXPECT_FALSE(client->finish({}));
}

TEST(Noise, ClientRefusesAForeignServer) {
    auto client = NoiseClient::begin(113, kClient, kServer.public_key());
    Bytes response = *hex_decode(kResponse); // for another ephemeral key
    EXPECT_FALSE(client->finish(response));
}

TEST(Noise, ClientRefusesAZeroServerKey) {
    EXPECT_FALSE(NoiseClient::begin(113, kClient, MachineKey{}));
}

TEST(EarlyPayload, IsFoundHoweverItIsCut) {
    wire::EarlyNoise sent{ChallengePrivateKey::generate().public_key()};
    Bytes stream = write_early_payload(sent);
    for (std::byte b : as_bytes("HTTP/2")) stream.push_back(b);
    EarlyPayloadReader reader;
    std::size_t at = 0;
    for (bool decided = false; !decided; ++at) {
        auto fed = reader.feed(BytesView{stream}.subspan(at, 1));
        ASSERT_TRUE(fed);
        decided = *fed;
    }
    ASSERT_TRUE(reader.early());
    EXPECT_EQ(*reader.early(), sent);
    EXPECT_TRUE(reader.take_rest().empty());

    EarlyPayloadReader at_once;
    EXPECT_TRUE(*at_once.feed(stream));
    EXPECT_EQ(as_chars(at_once.take_rest()), "HTTP/2");
}

TEST(EarlyPayload, AbsenceGivesTheBytesBack) {
    EarlyPayloadReader reader;
    Bytes settings = *hex_decode("00000604000000000000030000");
    EXPECT_TRUE(*reader.feed(settings));
    EXPECT_FALSE(reader.early());
    EXPECT_EQ(reader.take_rest(), settings);
}

TEST(EarlyPayload, TooLongOrCrookedIsRefused) {
    EXPECT_FALSE(EarlyPayloadReader{}.feed(*hex_decode("ffffff545300a00001")));
    EXPECT_FALSE(EarlyPayloadReader{}.feed(*hex_decode("ffffff5453000000027b5d")));
    EXPECT_FALSE(*EarlyPayloadReader{}.feed(*hex_decode("ffffff545300a00000")));
}

} // namespace
} // namespace tailrace
