// TLS 1.3 records by ourselves, against OpenSSL as the client and against the example of RFC 8448.
#include "base/text.hpp"
#include "relay/net/certificate.hpp"
#include "relay/net/transport.hpp"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>

namespace tailrace::relay {
namespace {

using Outcome = Attempt::Outcome;
using Suite = TlsRecords::Suite;

Bytes hex(std::string_view text) {
    std::string digits;
    for (char c : text)
        if (c != ' ') digits += c;
    return *hex_decode(digits);
}

// RFC 8448 section 3, "Simple 1-RTT Handshake".
const Bytes kClientSecret = hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
const Bytes kServerSecret = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");

struct Ends {
    std::unique_ptr<TlsRecords> server, client;
};
// The client's side is made of the same code with the secrets the other way round.
Ends both_ends(Suite suite = Suite::Aes128) {
    std::size_t size = suite == Suite::Aes256 ? 48 : 32;
    Bytes up(size, std::byte{1}), down(size, std::byte{2});
    return {std::move(*TlsRecords::create(suite, up, down)), std::move(*TlsRecords::create(suite, down, up))};
}
std::string opened_text(TlsRecords& records, BytesView wire) {
    Bytes into(64 * 1024);
    auto opened = records.open(wire, into);
    if (!opened) return "error: " + opened.error().message();
    return std::string{as_chars(BytesView{into}.first(opened->plaintext))} + (opened->closed ? "<closed>" : "");
}

TEST(TlsRecords, OpensAndSealsTheRecordsOfTheRfc) {
    auto records = TlsRecords::create(Suite::Aes128, kClientSecret, kServerSecret);
    ASSERT_TRUE(records);
    Bytes wire =
        hex("17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b "
            "98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee "
            "bb 21 69 49 15 e4");
    Bytes into(1000);
    auto opened = (*records)->open(wire, into);
    ASSERT_TRUE(opened) << opened.error().message();
    ASSERT_EQ(opened->plaintext, 50U);
    for (std::size_t i = 0; i < 50; ++i) EXPECT_EQ(into[i], static_cast<std::byte>(i));
}

TEST(TlsRecords, BothWaysWithEverySuite) {
    for (Suite suite : {Suite::Aes128, Suite::Aes256, Suite::ChaCha20}) {
        Ends ends = both_ends(suite);
        for (int i = 0; i < 5; ++i) {
            Bytes up, down;
            ASSERT_TRUE(ends.client->seal(as_bytes("request"), up));
            EXPECT_EQ(opened_text(*ends.server, up), "request");
            ASSERT_TRUE(ends.server->seal(as_bytes("answer"), down));
            EXPECT_EQ(down.size(), 6 + TlsRecords::kOverhead);
            EXPECT_EQ(opened_text(*ends.client, down), "answer");
        }
    }
    EXPECT_FALSE(TlsRecords::create(Suite::Aes256, kClientSecret, kServerSecret));
}

TEST(TlsRecords, TakesWholeRecordsOnlyAndOnlyWhatFits) {
    Ends ends = both_ends();
    Bytes wire;
    ASSERT_TRUE(ends.client->seal(as_bytes("first"), wire));
    std::size_t first = wire.size();
    ASSERT_TRUE(ends.client->seal(as_bytes("second"), wire));
    Bytes into(100);
    auto nothing = ends.server->open(BytesView{wire}.first(first - 1), into);
    ASSERT_TRUE(nothing);
    EXPECT_EQ(nothing->taken, 0U);
    auto one = ends.server->open(BytesView{wire}.first(wire.size() - 1), into);
    ASSERT_TRUE(one);
    EXPECT_EQ(one->taken, first);
    auto no_room = ends.server->open(BytesView{wire}.subspan(first), std::span{into}.first(3));
    ASSERT_TRUE(no_room);
    EXPECT_EQ(no_room->taken, 0U);
    EXPECT_EQ(opened_text(*ends.server, BytesView{wire}.subspan(first)), "second");
}

TEST(TlsRecords, RefusesWhatWasTamperedWithReplayedOrReordered) {
    for (std::size_t at = 0; at < 5 + 4 + 17; ++at) {
        Ends ends = both_ends();
        Bytes wire;
        ASSERT_TRUE(ends.client->seal(as_bytes("text"), wire));
        wire[at] ^= std::byte{1};
        std::string text = opened_text(*ends.server, wire);
        EXPECT_TRUE(text.starts_with("error") || text.empty()) << at; // empty: a longer record, not yet whole
    }
    Ends ends = both_ends();
    Bytes wire;
    ASSERT_TRUE(ends.client->seal(as_bytes("text"), wire));
    EXPECT_EQ(opened_text(*ends.server, wire), "text");
    EXPECT_TRUE(opened_text(*ends.server, wire).starts_with("error"));
}

TEST(TlsRecords, RefusesWhatIsNoRecord) {
    for (const char* wire : {"1403030001 01", "1603030005 0102030405", "17030300 10 00000000000000000000000000000000",
                             "170303ffff", "4745542f20 48"}) {
        Ends ends = both_ends();
        EXPECT_TRUE(opened_text(*ends.server, hex(wire)).starts_with("error")) << wire;
    }
}

TEST(TlsRecords, HearsAndSaysGoodbye) {
    Ends ends = both_ends();
    Bytes wire;
    ASSERT_TRUE(ends.client->seal(as_bytes("last words"), wire));
    ends.client->seal_goodbye(wire);
    EXPECT_EQ(opened_text(*ends.server, wire), "last words<closed>");
}

TEST(TlsRecords, EmptyRecordsInARowAreAnAttack) {
    Ends ends = both_ends();
    Bytes wire;
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(ends.client->seal({}, wire));
    EXPECT_TRUE(opened_text(*ends.server, wire).starts_with("error"));
}

// A server's Transport, and OpenSSL at the other end of a socket pair.
class TlsTransportTest : public ::testing::Test {
protected:
    void SetUp() override {
        auto identity = make_self_signed({"127.0.0.1"});
        auto context = relay_tls(*identity, NodePrivateKey::generate().public_key());
        ASSERT_TRUE(context);
        server_context.emplace(*context);
        client_context = SSL_CTX_new(TLS_client_method());
    }
    void TearDown() override {
        SSL_free(client);
        SSL_CTX_free(client_context);
    }
    void connect() {
        int pair[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
        server.emplace(Fd{pair[0]});
        client_socket = Fd{pair[1]};
        ASSERT_TRUE(server->start_tls_server(server_context->get()));
        client = SSL_new(client_context);
        SSL_set_fd(client, client_socket.get());
        for (int i = 0; i < 100; ++i) {
            bool done = SSL_connect(client) == 1;
            ERR_clear_error();
            if (server->handshake().outcome == Outcome::Ok && done) return;
        }
        FAIL() << "no handshake";
    }
    std::string read_server() {
        Bytes into(32 * 1024);
        Attempt attempt = server->read(into);
        if (attempt.outcome == Outcome::Closed) return "<closed>";
        return attempt.outcome == Outcome::Ok ? std::string{as_chars(BytesView{into}.first(attempt.bytes))} : "";
    }
    std::string read_client() {
        char into[32 * 1024];
        int count = SSL_read(client, into, sizeof into);
        ERR_clear_error();
        return count > 0 ? std::string(into, static_cast<std::size_t>(count)) : "";
    }
    void write_client(std::string_view text) {
        ASSERT_EQ(SSL_write(client, text.data(), static_cast<int>(text.size())), static_cast<int>(text.size()));
    }

    std::optional<TlsContext> server_context;
    SSL_CTX* client_context = nullptr;
    SSL* client = nullptr;
    Fd client_socket;
    std::optional<Transport> server;
};

TEST_F(TlsTransportTest, NamesTheDerpKeyInTheLastCertificateAlsoWithoutSni) { // 4
    connect();
    EXPECT_EQ(SSL_get_servername(client, TLSEXT_NAMETYPE_host_name), nullptr);
    STACK_OF(X509)* chain = SSL_get_peer_cert_chain(client);
    ASSERT_EQ(sk_X509_num(chain), 2);
    X509_NAME* subject = X509_get_subject_name(sk_X509_value(chain, 1));
    const ASN1_STRING* name = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, 0));
    ASSERT_EQ(ASN1_STRING_length(name), 71);
    EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name)), 7), "derpkey");
}

TEST_F(TlsTransportTest, LeavesOpenSslAfterAHandshakeOfTls13) {
    for (const char* suite : {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}) {
        SSL_CTX_set_ciphersuites(client_context, suite);
        connect();
        EXPECT_STREQ(SSL_get_cipher(client), suite);
        EXPECT_EQ(server->ssl(), nullptr);
        EXPECT_TRUE(server->is_tls());
        write_client("hello");
        EXPECT_EQ(read_server(), "hello");
        EXPECT_EQ(server->write(as_bytes("welcome")).outcome, Outcome::Ok);
        EXPECT_EQ(read_client(), "welcome");
        SSL_free(std::exchange(client, nullptr));
    }
}

TEST_F(TlsTransportTest, StaysWithOpenSslForTls12) {
    SSL_CTX_set_max_proto_version(client_context, TLS1_2_VERSION);
    connect();
    EXPECT_NE(server->ssl(), nullptr);
    write_client("hello");
    EXPECT_EQ(read_server(), "hello");
    EXPECT_EQ(server->write(as_bytes("welcome")).outcome, Outcome::Ok);
    EXPECT_EQ(read_client(), "welcome");
}

TEST_F(TlsTransportTest, FollowsKeyUpdates) {
    connect();
    for (int round = 0; round < 3; ++round) {
        ASSERT_EQ(SSL_key_update(client, round == 1 ? SSL_KEY_UPDATE_NOT_REQUESTED : SSL_KEY_UPDATE_REQUESTED), 1);
        write_client("under a new key");
        EXPECT_EQ(read_server(), "under a new key");
        EXPECT_EQ(server->write(as_bytes("mine is new, too")).outcome, Outcome::Ok);
        EXPECT_EQ(read_client(), "mine is new, too");
    }
}

TEST_F(TlsTransportTest, CarriesMuchThroughASmallSocketBothWays) {
    connect();
    std::string much(3'000'000, '\0');
    for (std::size_t i = 0; i < much.size(); ++i) much[i] = static_cast<char>(i * 7 % 251);
    SSL_set_mode(client, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    std::size_t up = 0, down = 0;
    std::string got_up, got_down;
    for (int i = 0; i < 100'000 && (got_up.size() < much.size() || got_down.size() < much.size()); ++i) {
        if (up < much.size()) {
            int count =
                SSL_write(client, much.data() + up, static_cast<int>(std::min<std::size_t>(much.size() - up, 40'000)));
            ERR_clear_error();
            if (count > 0) up += static_cast<std::size_t>(count);
        }
        if (down < much.size()) {
            Attempt attempt = server->write(as_bytes(std::string_view{much}.substr(down, 50'000)));
            ASSERT_NE(attempt.outcome, Outcome::Closed);
            if (attempt.outcome == Outcome::Ok) down += attempt.bytes;
        }
        got_up += read_server();
        got_down += read_client();
    }
    EXPECT_EQ(got_up, much);
    EXPECT_EQ(got_down, much);
}

TEST_F(TlsTransportTest, SaysGoodbyeInOrder) {
    connect();
    server->finish_writing();
    EXPECT_EQ(read_client(), "");
    EXPECT_EQ(SSL_get_shutdown(client), SSL_RECEIVED_SHUTDOWN);
    SSL_shutdown(client);
    EXPECT_EQ(read_server(), "<closed>");
}

TEST_F(TlsTransportTest, AnAttackerInBetweenEndsTheConnection) {
    connect();
    Bytes forged = hex("1703030015 000102030405060708090a0b0c0d0e0f1011121314");
    ASSERT_EQ(::send(client_socket.get(), forged.data(), forged.size(), 0), static_cast<ssize_t>(forged.size()));
    EXPECT_EQ(read_server(), "<closed>");
}

} // namespace
} // namespace tailrace::relay
