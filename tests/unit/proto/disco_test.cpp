// Vectors: derp-disco-paths.md 3.4, produced by the reference code.
#include "proto/disco.hpp"

#include "base/text.hpp"
#include "proto/geneve.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

template <std::size_t N>
std::array<std::byte, N> raw(std::string_view hex) {
    return Reader{*hex_decode(hex)}.array<N>();
}
DiscoNonce nonce_from(int first) {
    DiscoNonce nonce;
    for (std::size_t i = 0; i < nonce.size(); ++i) nonce[i] = static_cast<std::byte>(first + static_cast<int>(i));
    return nonce;
}

const DiscoPrivateKey kA{raw<32>("606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f")};
const DiscoPrivateKey kB{raw<32>("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e5f")};
const DiscoTxId kTxId = raw<12>("0102030405060708090a0b0c");
const NodeKey kNodeA{raw<32>("dc2cca31e8e43bbd91dff7e475cca3347eb478107d5bd765aba4ae4a30c35d44")};

constexpr std::string_view kPingPacket =
    "5453f09f92ac675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f00010203040506070809"
    "0a0b0c0d0e0f1011121314151617bc901087f08a2be12aeb8bf4fe4ab8f57231ff3b28fc9e548ecb63c02dc6cda1fa5f"
    "07f0e838fdc5a1857892dd191bd6a13e1d0f4f6768c939e604db285e";
constexpr std::string_view kPongPacket =
    "5453f09f92ac493e82fc74464a59268817623d2053c5eb8e2cc4a988b4fee179ec6b010d531d18191a1b1c1d1e1f2021"
    "22232425262728292a2b2c2d2e2f3c2c606b3700c59396d3a993b96c446ec12e262e5c9739acfc456003f2e353dc0544"
    "91a67b3e3c9e1c10245391b3e3af";
constexpr std::string_view kCallPacket =
    "5453f09f92ac675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f30313233343536373839"
    "3a3b3c3d3e3f4041424344454647b1e945e091eeaa995129bf0b2daca7b993831e346241ded9b32c7a0cd1a6aa6a7c74"
    "bb3a030c00f6fce49f3db53314abc692baab4b1f";

Endpoint endpoint(std::string_view text) {
    return *Endpoint::parse(text);
}

TEST(Disco, PacketsMatchTheVectors) {
    auto a_to_b = DiscoBox::between(kA, kB.public_key());
    auto b_to_a = DiscoBox::between(kB, kA.public_key());
    ASSERT_TRUE(a_to_b && b_to_a);
    DiscoPing ping{kTxId, kNodeA};
    DiscoPong pong{kTxId, endpoint("203.0.113.9:41641")};
    DiscoCallMeMaybe call{{endpoint("203.0.113.9:41641"), endpoint("[2001:db8::9]:41641")}};
    EXPECT_EQ(hex_encode(a_to_b->seal(ping, nonce_from(0x00))), kPingPacket);
    EXPECT_EQ(hex_encode(b_to_a->seal(pong, nonce_from(0x18))), kPongPacket);
    EXPECT_EQ(hex_encode(a_to_b->seal(call, nonce_from(0x30))), kCallPacket);

    EXPECT_EQ(*b_to_a->open(*hex_decode(kPingPacket)), DiscoMessage{ping});
    EXPECT_EQ(*a_to_b->open(*hex_decode(kPongPacket)), DiscoMessage{pong});
    EXPECT_EQ(*b_to_a->open(*hex_decode(kCallPacket)), DiscoMessage{call});
    EXPECT_EQ(disco_sender(*hex_decode(kPingPacket)), kA.public_key());
}

TEST(Disco, PlaintextsMatchTheReferenceTests) {
    EXPECT_EQ(hex_encode(write_disco_message(DiscoPong{kTxId, endpoint("2.3.4.5:1234")})),
              "02000102030405060708090a0b0c00000000000000000000ffff0203040504d2");
    EXPECT_EQ(hex_encode(write_disco_message(DiscoPong{kTxId, endpoint("[fed0::12]:6666")})),
              "02000102030405060708090a0b0cfed000000000000000000000000000121a0a");
    EXPECT_EQ(
        hex_encode(write_disco_message(DiscoCallMeMaybe{{endpoint("1.2.3.4:567"), endpoint("[2001::3456]:789")}})),
        "030000000000000000000000ffff0102030402372001000000000000000000000000"
        "34560315");
}

TEST(Disco, PaddedPingsAndPingsWithoutKey) {
    DiscoPing padded{kTxId, kNodeA, 1128};
    Bytes packet = DiscoBox::between(kA, kB.public_key())->seal(padded);
    EXPECT_EQ(packet.size(), 124u + 1128u);
    EXPECT_EQ(*DiscoBox::between(kB, kA.public_key())->open(packet), DiscoMessage{padded});
    auto bare = parse_disco_message(*hex_decode("01000102030405060708090a0b0c"));
    ASSERT_TRUE(bare);
    EXPECT_TRUE(std::get<DiscoPing>(*bare).node_key.is_zero());
}

TEST(Disco, TruncatedMessagesAreErrorsAndUnknownOnesAreNot) {
    EXPECT_FALSE(parse_disco_message({}));
    EXPECT_FALSE(parse_disco_message(*hex_decode("01")));
    EXPECT_FALSE(parse_disco_message(*hex_decode("0100010203")));
    EXPECT_FALSE(parse_disco_message(*hex_decode("02000102030405060708090a0b0c00")));
    EXPECT_EQ(*parse_disco_message(*hex_decode("0a00aabb")), DiscoMessage{DiscoUnknown{10}});
    EXPECT_EQ(*parse_disco_message(*hex_decode("0300aabb")), DiscoMessage{DiscoCallMeMaybe{}});
    EXPECT_EQ(*parse_disco_message(*hex_decode("030100000000000000000000ffff010203040237")),
              DiscoMessage{DiscoCallMeMaybe{}});
}

TEST(Disco, AnotherVersionCountsWhereTheReferenceLetsItCount) { // derp-disco-paths.md 8, 42 and 43
    DiscoRelayEndpoint relay;
    relay.addresses = {endpoint("2.3.4.5:1234")};
    DiscoRelayHandshake bind, challenge, answer;
    challenge.step = DiscoRelayHandshake::Step::Challenge;
    answer.step = DiscoRelayHandshake::Step::Answer;
    for (const DiscoMessage& message :
         std::vector<DiscoMessage>{DiscoPing{kTxId, kNodeA, 0}, DiscoPing{kTxId, {}, 7},
                                   DiscoPong{kTxId, endpoint("2.3.4.5:1234")}, bind, challenge, answer}) {
        Bytes later = write_disco_message(message);
        later[1] = std::byte{1};
        EXPECT_EQ(*parse_disco_message(later), message) << hex_encode(later);
    }
    for (const DiscoMessage& message : std::vector<DiscoMessage>{DiscoCallMeMaybeVia{relay}, DiscoAllocateRequest{},
                                                                 DiscoAllocateResponse{7, relay}}) {
        Bytes later = write_disco_message(message);
        EXPECT_EQ(*parse_disco_message(later), message);
        later[1] = std::byte{1};
        EXPECT_EQ(*parse_disco_message(later), DiscoMessage{DiscoUnknown{std::to_integer<std::uint8_t>(later[0])}});
    }
    EXPECT_EQ(*parse_disco_message(*hex_decode("0300" + std::string(34, '0'))), DiscoMessage{DiscoCallMeMaybe{}})
        << "17 bytes are no list";
}

TEST(Disco, OurOwnMessageIsOfATypeThatOthersDoNotKnow) {
    DiscoPunch punch{DiscoPunch::Step::Ready, 0x01020304, endpoint("2.3.4.5:1234")};
    EXPECT_EQ(hex_encode(write_disco_message(punch)), "d401020102030400000000000000000000ffff0203040504d2");
    EXPECT_EQ(*parse_disco_message(write_disco_message(punch)), DiscoMessage{punch});
    DiscoPunch silent{DiscoPunch::Step::Go, 7, {}};
    EXPECT_EQ(*parse_disco_message(write_disco_message(silent)), DiscoMessage{silent});
    Bytes later = write_disco_message(punch);
    later.push_back(std::byte{9}); // what a later version may add
    EXPECT_EQ(*parse_disco_message(later), DiscoMessage{punch});
    EXPECT_FALSE(parse_disco_message(BytesView{later}.first(24)));
    for (auto [at, value] : {std::pair{1u, 2}, {2u, 0}, {2u, 6}}) { // another version, steps that there are not
        Bytes foreign = write_disco_message(punch);
        foreign[at] = static_cast<std::byte>(value);
        EXPECT_EQ(*parse_disco_message(foreign), DiscoMessage{DiscoUnknown{0xd4}});
    }
}

TEST(Disco, ForeignAndDamagedPacketsDoNotOpen) {
    auto box = DiscoBox::between(kB, kA.public_key());
    Bytes packet = *hex_decode(kPingPacket);
    for (std::size_t at : {0u, 40u, 70u, 123u}) {
        Bytes bad = packet;
        bad[at] ^= std::byte{1};
        EXPECT_FALSE(box->open(bad)) << at;
    }
    EXPECT_FALSE(box->open(BytesView{packet}.first(61)));
    EXPECT_FALSE(box->open(BytesView{packet}.first(70)));
    EXPECT_FALSE(DiscoBox::between(DiscoPrivateKey::generate(), kA.public_key())->open(packet));
    EXPECT_FALSE(looks_like_disco(BytesView{packet}.first(37)));
    EXPECT_TRUE(looks_like_disco(BytesView{packet}.first(38)));
    EXPECT_FALSE(looks_like_disco(Bytes(100)));
    EXPECT_FALSE(DiscoBox::between(kA, DiscoKey{}));
}

constexpr std::string_view kBindPacket =
    "00807a11000123005453f09f92ac675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f4849"
    "4a4b4c4d4e4f505152535455565758595a5b5c5d5e5f2cacdd4b2bad3726e1b02b7b40d5726778189bee558e222c42ed"
    "d399fb863b96381f7a3c335c65f9bde84e1f1bf017fccd12e6273cf41fd507ca95a0808a48bd1756a295649afebb80c5"
    "de5cc37231c1318296335f3dc42aa088";

DiscoKey vector_key(int third, int fourth, int fifth) {
    std::array<std::byte, 32> key{std::byte{0},     std::byte{1},      std::byte{2},
                                  std::byte(third), std::byte(fourth), std::byte(fifth)};
    key[30] = std::byte{0x1e};
    key[31] = std::byte{0x1f};
    return DiscoKey{key};
}

TEST(Disco, TheRelayHandshakeMatchesTheVectors) {
    const DiscoPrivateKey relay{raw<32>("a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbe7f")};
    DiscoRelayHandshake bind;
    bind.vni = 0x123;
    bind.generation = 7;
    bind.remote = kB.public_key();
    Bytes sealed = DiscoBox::between(kA, relay.public_key())->seal(bind, nonce_from(0x48));
    EXPECT_EQ(hex_encode(write_geneve({GenevePacket::Protocol::Disco, true, 0x123, sealed})), kBindPacket);
    Bytes datagram = *hex_decode(kBindPacket);
    auto geneve = parse_geneve(datagram);
    ASSERT_TRUE(geneve);
    EXPECT_TRUE(geneve->control);
    EXPECT_EQ(geneve->vni, 0x123u);
    EXPECT_EQ(*DiscoBox::between(relay, kA.public_key())->open(geneve->payload), DiscoMessage{bind});

    DiscoRelayHandshake message{DiscoRelayHandshake::Step::Bind, 1, 2, vector_key(0, 0, 0), {}};
    for (std::size_t i = 0; i < 32; ++i) message.challenge[i] = static_cast<std::byte>(i);
    std::string tail = std::string{"0000000100000002"} +
                       "0001020000000000000000000000000000000000000000000000000000001e1f"
                       "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    for (auto [step, head] : {std::pair{DiscoRelayHandshake::Step::Bind, "0400"},
                              {DiscoRelayHandshake::Step::Challenge, "0500"},
                              {DiscoRelayHandshake::Step::Answer, "0600"}}) {
        message.step = step;
        EXPECT_EQ(hex_encode(write_disco_message(message)), head + tail);
        EXPECT_EQ(*parse_disco_message(*hex_decode(head + tail)), DiscoMessage{message});
    }
}

TEST(Disco, RelayEndpointsMatchTheReferenceTests) {
    const std::string clients = "0001020300000000000000000000000000000000000000000000000000001e1f"
                                "0001020004000000000000000000000000000000000000000000000000001e1f";
    const std::string body = "0001020000000000000000000000000000000000000000000000000000001e1f" + clients +
                             "000000000000007b000001c8000000003b9aca000000000df8475800" +
                             "00000000000000000000ffff01020304023720010000000000000000000000003456" + "0315";
    DiscoRelayEndpoint endpoint_of_all;
    endpoint_of_all.server = vector_key(0, 0, 0);
    endpoint_of_all.clients = {vector_key(3, 0, 0), vector_key(0, 4, 0)};
    endpoint_of_all.lamport_id = 123;
    endpoint_of_all.vni = 456;
    endpoint_of_all.bind_lifetime = std::chrono::seconds{1};
    endpoint_of_all.steady_lifetime = std::chrono::seconds{60};
    endpoint_of_all.addresses = {endpoint("1.2.3.4:567"), endpoint("[2001::3456]:789")};
    for (const auto& [message, hex] :
         {std::pair<DiscoMessage, std::string>{DiscoCallMeMaybeVia{endpoint_of_all}, "0700" + body},
          {DiscoAllocateRequest{endpoint_of_all.clients, 1}, "0800" + clients + "00000001"},
          {DiscoAllocateResponse{1, endpoint_of_all}, "090000000001" + body}}) {
        EXPECT_EQ(hex_encode(write_disco_message(message)), hex);
        EXPECT_EQ(*parse_disco_message(*hex_decode(hex)), message);
        Bytes plaintext = *hex_decode(hex);
        plaintext.pop_back();
        EXPECT_FALSE(parse_disco_message(plaintext)) << hex;
        plaintext = *hex_decode(hex);
        plaintext[1] = std::byte{1}; // of another version
        EXPECT_EQ(*parse_disco_message(plaintext),
                  DiscoMessage{DiscoUnknown{std::to_integer<std::uint8_t>(plaintext[0])}});
    }
    EXPECT_FALSE(parse_disco_message(*hex_decode("0700" + body.substr(0, body.size() - 72)))) << "without an address";
}

TEST(Geneve, TakesItsTwoProtocolsAndNothingElse) {
    const Bytes payload = *hex_decode("0400000001");
    EXPECT_EQ(hex_encode(write_geneve({GenevePacket::Protocol::Disco, false, 0x123, {}})), "00007a1100012300");
    EXPECT_EQ(hex_encode(write_geneve({GenevePacket::Protocol::WireGuard, false, 0x123, payload})),
              "00007a12000123000400000001");
    Bytes datagram = write_geneve({GenevePacket::Protocol::WireGuard, false, GenevePacket::kLargestVni, payload});
    auto packet = parse_geneve(datagram);
    ASSERT_TRUE(packet);
    EXPECT_EQ(packet->protocol, GenevePacket::Protocol::WireGuard);
    EXPECT_FALSE(packet->control);
    EXPECT_EQ(packet->vni, GenevePacket::kLargestVni);
    EXPECT_EQ(to_bytes(packet->payload), payload);
    for (const char* other : {"40007a1200012300", "01007a1200012300", "00017a1200012300", "00007a1300012300",
                              "00007a1200012301", "00007a12000123", ""}) {
        Bytes bytes = *hex_decode(other);
        EXPECT_FALSE(parse_geneve(bytes)) << other;
    }
}

} // namespace
} // namespace tailrace
