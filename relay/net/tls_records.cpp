#include "relay/net/tls_records.hpp"

#include "base/text.hpp"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>

#include <atomic>
#include <cstring>

namespace tailrace::relay {
namespace {

constexpr std::uint8_t kApplicationData = 23;                  // what every record says it is, on the outside
constexpr std::uint8_t kKeyUpdate = 24;                        // RFC 8446 section 4
constexpr std::uint64_t kRecordsAKey = 1U << 23;               // AES-GCM allows 2^24.5, RFC 8446 section 5.5
constexpr int kMostEmptyRecords = 32;                          // in a row: they cost work and carry nothing
constexpr std::byte kGoodbye[] = {std::byte{1}, std::byte{0}}; // warning, close_notify

struct SuiteFacts {
    const char* cipher;
    const char* digest;
    std::size_t key_size, secret_size;
};
constexpr SuiteFacts kSuites[] = {
    {"AES-128-GCM", "SHA256", 16, 32}, {"AES-256-GCM", "SHA384", 32, 48}, {"ChaCha20-Poly1305", "SHA256", 32, 32}};

const SuiteFacts& facts(TlsRecords::Suite suite) {
    return kSuites[static_cast<std::size_t>(suite)];
}

std::atomic<std::uint64_t> next_key_id{1};

/// A cipher of this thread in one direction. Setting a key costs as much as a short record: it is kept while the same
/// connection goes on.
class Cipher {
public:
    Cipher(const char* name, int encrypt)
        : cipher_(EVP_CIPHER_fetch(nullptr, name, nullptr)), context_(EVP_CIPHER_CTX_new()) {
        good_ = cipher_ != nullptr && context_ != nullptr &&
                EVP_CipherInit_ex2(context_, cipher_, nullptr, nullptr, encrypt, nullptr) == 1;
    }
    ~Cipher() {
        EVP_CIPHER_CTX_free(context_);
        EVP_CIPHER_free(cipher_);
    }
    Cipher(const Cipher&) = delete;
    Cipher& operator=(const Cipher&) = delete;

    EVP_CIPHER_CTX* with(const Secret<32>& key, std::uint64_t key_id, const std::array<unsigned char, 12>& nonce) {
        const unsigned char* fresh = key_id == key_id_ ? nullptr : key.data();
        key_id_ = key_id;
        if (!good_ || EVP_CipherInit_ex2(context_, nullptr, fresh, nonce.data(), -1, nullptr) != 1) {
            key_id_ = 0;
            return nullptr;
        }
        return context_;
    }

private:
    EVP_CIPHER* cipher_;
    EVP_CIPHER_CTX* context_;
    bool good_ = false;
    std::uint64_t key_id_ = 0;
};

Cipher& cipher_of(TlsRecords::Suite suite, bool encrypt) {
    thread_local Cipher openers[] = {{kSuites[0].cipher, 0}, {kSuites[1].cipher, 0}, {kSuites[2].cipher, 0}};
    thread_local Cipher sealers[] = {{kSuites[0].cipher, 1}, {kSuites[1].cipher, 1}, {kSuites[2].cipher, 1}};
    return (encrypt ? sealers : openers)[static_cast<std::size_t>(suite)];
}

// RFC 8446 section 5.3: the sequence number into the end of the IV.
std::array<unsigned char, 12> nonce_of(const std::array<std::byte, 12>& iv, std::uint64_t sequence) {
    std::array<unsigned char, 12> nonce;
    for (std::size_t i = 0; i < nonce.size(); ++i) nonce[i] = std::to_integer<unsigned char>(iv[i]);
    for (std::size_t i = 0; i < 8; ++i) nonce[11 - i] ^= static_cast<unsigned char>(sequence >> (8 * i));
    return nonce;
}

// HKDF-Expand-Label, RFC 8446 section 7.1, with an empty context and no more output than one hash.
void expand_label(const SuiteFacts& suite, BytesView secret, std::string_view label, std::span<std::byte> out) {
    Writer info;
    info.be16(static_cast<std::uint16_t>(out.size()));
    info.u8(static_cast<std::uint8_t>(6 + label.size()));
    info.text("tls13 ");
    info.text(label);
    info.u8(0);
    info.u8(1); // the first block of HKDF-Expand
    unsigned char block[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    HMAC(EVP_get_digestbyname(suite.digest), secret.data(), static_cast<int>(secret.size()), as_uchars(info.view()),
         info.view().size(), block, &size);
    std::memcpy(out.data(), block, std::min<std::size_t>(out.size(), size));
    sodium_memzero(block, sizeof block);
}

// What OpenSSL tells of a handshake, until it is over.
struct Secrets {
    std::size_t size = 0;
    Secret<48> client, server;
};

int secrets_index() {
    static const int index =
        SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, [](void*, void* data, CRYPTO_EX_DATA*, int, long, void*) {
            delete static_cast<Secrets*>(data);
        });
    return index;
}

// Called with lines in the form of NSS's key log: label, client random, secret.
void remember_secret(const SSL* ssl, const char* line) {
    auto words = split(line, ' ');
    if (words.size() != 3) return;
    bool client = words[0] == "CLIENT_TRAFFIC_SECRET_0";
    if (!client && words[0] != "SERVER_TRAFFIC_SECRET_0") return;
    auto raw = hex_decode(words[2]);
    if (!raw || raw->size() > 48) return;
    auto* connection = const_cast<SSL*>(ssl); // the callback may not change the handshake, only our note on it
    auto* secrets = static_cast<Secrets*>(SSL_get_ex_data(connection, secrets_index()));
    if (secrets == nullptr) {
        secrets = new Secrets;
        if (SSL_set_ex_data(connection, secrets_index(), secrets) != 1) {
            delete secrets;
            return;
        }
    }
    secrets->size = raw->size();
    std::memcpy((client ? secrets->client : secrets->server).mutable_data(), raw->data(), raw->size());
    sodium_memzero(raw->data(), raw->size());
}

} // namespace

TlsRecords::~TlsRecords() = default;

void TlsRecords::prepare(ssl_ctx_st* context) {
    (void)secrets_index();
    SSL_CTX_set_keylog_callback(context, remember_secret);
    // Nothing may be read beyond the handshake, and nothing written by OpenSSL behind it.
    SSL_CTX_set_read_ahead(context, 0);
    SSL_CTX_set_num_tickets(context, 0);
}

std::unique_ptr<TlsRecords> TlsRecords::from_handshake(ssl_st* ssl) {
    auto* secrets = static_cast<Secrets*>(SSL_get_ex_data(ssl, secrets_index()));
    bool clean = SSL_version(ssl) == TLS1_3_VERSION && SSL_is_server(ssl) == 1 && SSL_has_pending(ssl) == 0;
    if (secrets == nullptr || !clean) return nullptr;
    Suite suite{};
    switch (SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(ssl))) {
    case 0x1301:
        suite = Suite::Aes128;
        break;
    case 0x1302:
        suite = Suite::Aes256;
        break;
    case 0x1303:
        suite = Suite::ChaCha20;
        break;
    default:
        return nullptr;
    }
    auto records =
        create(suite, secrets->client.view().first(secrets->size), secrets->server.view().first(secrets->size));
    return records ? std::move(*records) : nullptr;
}

Result<std::unique_ptr<TlsRecords>> TlsRecords::create(Suite suite, BytesView client_secret, BytesView server_secret) {
    std::size_t size = facts(suite).secret_size;
    if (client_secret.size() != size || server_secret.size() != size)
        return Error::make("TLS: secrets of {} and {} bytes instead of {}", client_secret.size(), server_secret.size(),
                           size);
    std::unique_ptr<TlsRecords> records{new TlsRecords(suite)};
    std::memcpy(records->from_client_.secret.mutable_data(), client_secret.data(), size);
    std::memcpy(records->to_client_.secret.mutable_data(), server_secret.data(), size);
    records->derive(records->from_client_);
    records->derive(records->to_client_);
    return records;
}

void TlsRecords::derive(Direction& direction) {
    const SuiteFacts& suite = facts(suite_);
    BytesView secret = direction.secret.view().first(suite.secret_size);
    expand_label(suite, secret, "key", direction.key.mutable_view().first(suite.key_size));
    expand_label(suite, secret, "iv", direction.iv);
    direction.sequence = 0;
    direction.key_id = next_key_id.fetch_add(1, std::memory_order_relaxed);
}

void TlsRecords::next_key(Direction& direction) {
    const SuiteFacts& suite = facts(suite_);
    Secret<48> next;
    expand_label(suite, direction.secret.view().first(suite.secret_size), "traffic upd",
                 next.mutable_view().first(suite.secret_size));
    direction.secret = next;
    derive(direction);
}

// -- to the client

bool TlsRecords::seal_record(Content type, BytesView content, Bytes& out) {
    std::size_t at = out.size(), sealed_size = content.size() + 1 + kTag;
    out.resize(at + kHeader + sealed_size);
    auto* header = reinterpret_cast<unsigned char*>(out.data() + at);
    header[0] = kApplicationData;
    header[1] = header[2] = 3; // TLS 1.2, for those between
    header[3] = static_cast<unsigned char>(sealed_size >> 8);
    header[4] = static_cast<unsigned char>(sealed_size);
    unsigned char* body = header + kHeader;
    auto inner = static_cast<unsigned char>(type);
    int done = 0, last = 0;
    EVP_CIPHER_CTX* cipher =
        cipher_of(suite_, true).with(to_client_.key, to_client_.key_id, nonce_of(to_client_.iv, to_client_.sequence++));
    bool good = cipher != nullptr && EVP_EncryptUpdate(cipher, nullptr, &done, header, kHeader) == 1 &&
                EVP_EncryptUpdate(cipher, body, &done, as_uchars(content), static_cast<int>(content.size())) == 1 &&
                EVP_EncryptUpdate(cipher, body + content.size(), &last, &inner, 1) == 1 &&
                EVP_EncryptFinal_ex(cipher, body + content.size() + 1, &last) == 1 &&
                EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, kTag, body + content.size() + 1) == 1;
    if (!good) out.resize(at);
    return good;
}

// "From the next record on I use the next key", and no wish that the client do the same.
bool TlsRecords::seal_key_update(Bytes& out) {
    constexpr std::byte kMessage[] = {std::byte{kKeyUpdate}, std::byte{0}, std::byte{0}, std::byte{1}, std::byte{0}};
    if (!seal_record(Content::Handshake, kMessage, out)) return false;
    next_key(to_client_);
    owes_key_update_ = false;
    return true;
}

bool TlsRecords::seal(BytesView plaintext, Bytes& out) {
    if (plaintext.size() > kMaxPlaintext) return false;
    if ((owes_key_update_ || to_client_.sequence >= kRecordsAKey) && !seal_key_update(out)) return false;
    return seal_record(Content::Application, plaintext, out);
}

void TlsRecords::seal_goodbye(Bytes& out) {
    (void)seal_record(Content::Alert, kGoodbye, out); // best effort: the end of the stream says it too
}

// -- from the client

// Writes content, inner type and padding to `into`; returns the size of the content.
Result<std::size_t> TlsRecords::open_record(BytesView record, std::span<std::byte> into, Content& type) {
    BytesView body = record.subspan(kHeader);
    std::size_t size = body.size() - kTag;
    std::array<unsigned char, kTag> tag;
    std::memcpy(tag.data(), body.data() + size, kTag);
    int done = 0, last = 0;
    EVP_CIPHER_CTX* cipher =
        cipher_of(suite_, false)
            .with(from_client_.key, from_client_.key_id, nonce_of(from_client_.iv, from_client_.sequence++));
    auto* out = reinterpret_cast<unsigned char*>(into.data());
    bool good = cipher != nullptr && EVP_DecryptUpdate(cipher, nullptr, &done, as_uchars(record), kHeader) == 1 &&
                EVP_DecryptUpdate(cipher, out, &done, as_uchars(body), static_cast<int>(size)) == 1 &&
                EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, kTag, tag.data()) == 1 &&
                EVP_DecryptFinal_ex(cipher, out + done, &last) == 1;
    if (!good) return Error::make("TLS: a record does not open");
    while (size > 0 && into[size - 1] == std::byte{0}) --size; // padding
    if (size == 0) return Error::make("TLS: a record without a type");
    type = static_cast<Content>(into[size - 1]);
    if (size - 1 > kMaxPlaintext) return Error::make("TLS: a record of {} bytes", size - 1);
    return size - 1;
}

// A client that is in may update its key and nothing else.
Result<void> TlsRecords::on_handshake_message(BytesView message) {
    Reader in{message};
    std::uint8_t type = in.u8();
    std::uint32_t length = (std::uint32_t{in.u8()} << 16) | in.be16();
    std::uint8_t wish = in.u8();
    if (!in.ok() || in.left() > 0 || type != kKeyUpdate || length != 1 || wish > 1)
        return Error::make("TLS: a handshake message where none belongs");
    next_key(from_client_);
    if (wish == 1) owes_key_update_ = true;
    return {};
}

Result<TlsRecords::Opened> TlsRecords::open(BytesView ciphertext, std::span<std::byte> into) {
    Opened opened;
    while (!opened.closed && ciphertext.size() - opened.taken >= kHeader) {
        Reader in{ciphertext.subspan(opened.taken)};
        std::uint8_t outer = in.u8();
        (void)in.be16(); // the version is not looked at, RFC 8446 section 5.1
        std::size_t size = in.be16();
        if (outer != kApplicationData || size < kTag + 1 || kHeader + size > kMaxRecord)
            return Error::make("TLS: what arrives is no record");
        if (in.left() < size || into.size() - opened.plaintext < size - kTag) break;
        Content type{};
        auto content = into.subspan(opened.plaintext);
        auto length = open_record(ciphertext.subspan(opened.taken, kHeader + size), content, type);
        if (!length) return length.error();
        opened.taken += kHeader + size;
        empty_records_ = *length > 0 && type == Content::Application ? 0 : empty_records_ + 1;
        if (empty_records_ > kMostEmptyRecords) return Error::make("TLS: too many records that carry nothing");
        if (type == Content::Application) {
            opened.plaintext += *length;
        } else if (type == Content::Handshake) {
            if (auto done = on_handshake_message(BytesView{content}.first(*length)); !done) return done.error();
        } else if (type == Content::Alert) {
            opened.closed = true; // close_notify, or an error: over in any case
        } else {
            return Error::make("TLS: a record of an unknown type");
        }
    }
    return opened;
}

} // namespace tailrace::relay
