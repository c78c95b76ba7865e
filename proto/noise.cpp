#include "proto/noise.hpp"

#include <openssl/evp.h>
#include <sodium.h>

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::string_view kProtocolName = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
constexpr std::size_t kHeaderSize = 3;
constexpr std::size_t kTagSize = crypto_aead_chacha20poly1305_ietf_ABYTES;
constexpr std::size_t kHashBlock = 64; // of BLAKE2s, for HMAC
constexpr std::byte kTypeInitiation{1}, kTypeResponse{2}, kTypeError{3}, kTypeRecord{4};
constexpr std::size_t kInitiationPayload = kNoiseInitiationSize - 5, kResponsePayload = kNoiseResponseSize - 3;
constexpr std::byte kEarlyMagic[5] = {std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{'T'},
                                      std::byte{'S'}};

using Hash = std::array<std::byte, 32>;
using Nonce = std::array<unsigned char, crypto_aead_chacha20poly1305_ietf_NPUBBYTES>;

unsigned char* as_mutable_uchars(std::byte* data) {
    return reinterpret_cast<unsigned char*>(data);
}

// BLAKE2s-256 of several pieces. False when OpenSSL has none to offer (a FIPS-only configuration).
bool blake2s(std::initializer_list<BytesView> pieces, Hash& out) {
    static EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "BLAKE2S-256", nullptr);
    static thread_local const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(),
                                                                                              &EVP_MD_CTX_free};
    if (algorithm == nullptr || !context || EVP_DigestInit_ex2(context.get(), algorithm, nullptr) != 1) return false;
    for (BytesView piece : pieces)
        if (EVP_DigestUpdate(context.get(), piece.data(), piece.size()) != 1) return false;
    return EVP_DigestFinal_ex(context.get(), as_mutable_uchars(out.data()), nullptr) == 1;
}

bool hmac(const Hash& key, std::initializer_list<BytesView> message, Hash& out) {
    std::array<std::byte, kHashBlock> inner, outer;
    for (std::size_t i = 0; i < kHashBlock; ++i) {
        std::byte b = i < key.size() ? key[i] : std::byte{0};
        inner[i] = b ^ std::byte{0x36};
        outer[i] = b ^ std::byte{0x5c};
    }
    Hash digest;
    BytesView pieces[2]{};
    std::copy(message.begin(), message.end(), pieces);
    bool done = blake2s({inner, pieces[0], pieces[1]}, digest) && blake2s({outer, digest}, out);
    sodium_memzero(inner.data(), inner.size());
    sodium_memzero(outer.data(), outer.size());
    return done;
}

bool hkdf2(const Hash& chaining_key, BytesView input, Hash& first, Hash& second) {
    static constexpr std::byte kOne[1] = {std::byte{1}}, kTwo[1] = {std::byte{2}};
    Hash extracted;
    bool done = hmac(chaining_key, {input}, extracted) && hmac(extracted, {BytesView{kOne}}, first) &&
                hmac(extracted, {BytesView{first}, BytesView{kTwo}}, second);
    sodium_memzero(extracted.data(), extracted.size());
    return done;
}

// 4 zero bytes, then the counter big-endian: here Tailscale leaves the Noise specification.
Nonce nonce_of(std::uint64_t counter) {
    Nonce nonce{};
    for (int i = 0; i < 8; ++i)
        nonce[static_cast<std::size_t>(11 - i)] = static_cast<unsigned char>(counter >> (8 * i));
    return nonce;
}

} // namespace

namespace noise_detail {

Symmetric::Symmetric(std::uint16_t version, const MachineKey& server) {
    if (!blake2s({as_bytes(kProtocolName)}, hash_))
        outcome_ = Error::make("Noise handshake: OpenSSL offers no BLAKE2s here");
    chaining_key_ = hash_;
    mix_hash(as_bytes(fmt::format("Tailscale Control Protocol v{}", version)));
    mix_hash(server.view());
}

void Symmetric::mix_hash(BytesView data) {
    if (outcome_ && !blake2s({hash_, data}, hash_)) outcome_ = Error::make("Noise handshake: BLAKE2s failed");
}

void Symmetric::mix_key(const Secret<32>& secret, BytesView public_key) {
    if (!outcome_) return;
    auto shared = x25519(secret, public_key);
    if (!shared) {
        outcome_ = shared.error().with("Noise handshake");
        return;
    }
    Hash next, key;
    if (!hkdf2(chaining_key_, shared->view(), next, key)) outcome_ = Error::make("Noise handshake: BLAKE2s failed");
    chaining_key_ = next;
    key_ = Secret<32>{key};
    sodium_memzero(key.data(), key.size());
}

Bytes Symmetric::seal_and_hash(BytesView plaintext) {
    Bytes sealed(plaintext.size() + kTagSize);
    Nonce nonce{};
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(as_mutable_uchars(sealed.data()), nullptr, as_uchars(plaintext),
                                                    plaintext.size(), as_uchars(hash_), hash_.size(), nullptr,
                                                    nonce.data(), key_.data()); // it cannot fail
    mix_hash(sealed);
    return sealed;
}

Result<Bytes> Symmetric::open_and_hash(BytesView sealed) {
    if (!outcome_) return outcome_.error();
    Bytes plaintext(sealed.size() - kTagSize);
    Nonce nonce{};
    if (crypto_aead_chacha20poly1305_ietf_decrypt(as_mutable_uchars(plaintext.data()), nullptr, nullptr,
                                                  as_uchars(sealed), sealed.size(), as_uchars(hash_), hash_.size(),
                                                  nonce.data(), key_.data()) != 0)
        return Error::make("Noise handshake: the message is not for this key");
    mix_hash(sealed);
    return plaintext;
}

std::pair<Secret<32>, Secret<32>> Symmetric::split() {
    Hash first, second;
    if (outcome_ && !hkdf2(chaining_key_, {}, first, second)) outcome_ = Error::make("Noise handshake: BLAKE2s failed");
    std::pair keys{Secret<32>{first}, Secret<32>{second}};
    sodium_memzero(first.data(), first.size());
    sodium_memzero(second.data(), second.size());
    return keys;
}

} // namespace noise_detail

Result<NoiseClient> NoiseClient::begin(std::uint16_t version, const MachinePrivateKey& machine,
                                       const MachineKey& server, const MachinePrivateKey& ephemeral) {
    NoiseClient client{noise_detail::Symmetric{version, server}, machine, ephemeral};
    noise_detail::Symmetric& state = client.state_;
    MachineKey ephemeral_public = ephemeral.public_key();
    state.mix_hash(ephemeral_public.view());
    state.mix_key(ephemeral.secret(), server.view());
    Bytes sealed_machine = state.seal_and_hash(machine.public_key().view());
    state.mix_key(machine.secret(), server.view());
    Bytes tag = state.seal_and_hash({});
    if (auto outcome = state.outcome(); !outcome) return outcome.error();

    Writer out;
    out.be16(version);
    out.u8(std::to_integer<std::uint8_t>(kTypeInitiation));
    out.be16(kInitiationPayload);
    out.bytes(ephemeral_public.view());
    out.bytes(sealed_machine);
    out.bytes(tag);
    std::copy(out.view().begin(), out.view().end(), client.initiation_.begin());
    return client;
}

Result<std::size_t> NoiseClient::answer_size(BytesView first_three) {
    Reader in{first_three};
    auto type = std::byte{in.u8()};
    std::size_t length = in.be16();
    if (!in.ok()) return in.error("Noise answer");
    if (type == kTypeError) return kHeaderSize + length;
    if (type != kTypeResponse || length != kResponsePayload)
        return Error::make("Noise answer: type {} with {} bytes is not a handshake response",
                           std::to_integer<int>(type), length);
    return kNoiseResponseSize;
}

Result<std::unique_ptr<NoiseSession>> NoiseClient::finish(BytesView answer) {
    auto size = answer_size(answer);
    if (!size) return size.error();
    if (answer.size() != *size) return Error::make("Noise answer: {} bytes instead of {}", answer.size(), *size);
    if (answer[0] == kTypeError)
        return Error::make("the control server refused the handshake: \"{}\"", as_chars(answer.subspan(kHeaderSize)));
    BytesView server_ephemeral = answer.subspan(kHeaderSize, 32);
    state_.mix_hash(server_ephemeral);
    state_.mix_key(ephemeral_.secret(), server_ephemeral);
    state_.mix_key(machine_.secret(), server_ephemeral);
    if (auto opened = state_.open_and_hash(answer.subspan(kHeaderSize + 32)); !opened) return opened.error();
    auto [to_server, to_client] = state_.split();
    if (auto outcome = state_.outcome(); !outcome) return outcome.error();
    return std::make_unique<NoiseSession>(to_server, to_client, state_.hash());
}

Result<NoiseAccepted> NoiseServer::accept(BytesView initiation, const MachinePrivateKey& ephemeral) const {
    if (initiation.size() != kNoiseInitiationSize)
        return Error::make("Noise initiation: {} bytes instead of {}", initiation.size(), kNoiseInitiationSize);
    Reader in{initiation};
    NoiseAccepted accepted;
    accepted.version = in.be16();
    auto type = std::byte{in.u8()};
    std::size_t length = in.be16();
    if (type != kTypeInitiation || length != kInitiationPayload)
        return Error::make("Noise initiation: type {} with {} bytes", std::to_integer<int>(type), length);
    BytesView client_ephemeral = in.bytes(32);
    BytesView sealed_machine = in.bytes(32 + kTagSize);
    BytesView tag = in.bytes(kTagSize);

    noise_detail::Symmetric state{accepted.version, public_};
    state.mix_hash(client_ephemeral);
    state.mix_key(private_.secret(), client_ephemeral);
    auto machine = state.open_and_hash(sealed_machine);
    if (!machine) return machine.error();
    accepted.client = MachineKey{Reader{*machine}.array<32>()};
    state.mix_key(private_.secret(), accepted.client.view());
    if (auto opened = state.open_and_hash(tag); !opened) return opened.error();

    MachineKey ephemeral_public = ephemeral.public_key();
    state.mix_hash(ephemeral_public.view());
    state.mix_key(ephemeral.secret(), client_ephemeral);
    state.mix_key(ephemeral.secret(), accepted.client.view());
    Bytes answer_tag = state.seal_and_hash({});
    auto [to_server, to_client] = state.split();
    if (auto outcome = state.outcome(); !outcome) return outcome.error();

    Writer out;
    out.u8(std::to_integer<std::uint8_t>(kTypeResponse));
    out.be16(kResponsePayload);
    out.bytes(ephemeral_public.view());
    out.bytes(answer_tag);
    std::copy(out.view().begin(), out.view().end(), accepted.response.begin());
    accepted.session = std::make_unique<NoiseSession>(to_client, to_server, state.hash());
    return accepted;
}

Result<void> NoiseSession::seal(BytesView plaintext, Bytes& out) {
    std::size_t records = (plaintext.size() + kNoiseMaxPlaintext - 1) / kNoiseMaxPlaintext;
    out.reserve(out.size() + plaintext.size() + records * (kHeaderSize + kTagSize));
    while (!plaintext.empty()) {
        BytesView piece = plaintext.first(std::min(plaintext.size(), kNoiseMaxPlaintext));
        if (auto done = seal_record(piece, out); !done) return done;
        plaintext = plaintext.subspan(piece.size());
    }
    return {};
}

Result<void> NoiseSession::seal_record(BytesView plaintext, Bytes& out) {
    if (plaintext.size() > kNoiseMaxPlaintext) return Error::make("Noise record of {} bytes", plaintext.size());
    if (send_dead_ || sent_ == UINT64_MAX) return Error::make("Noise session can send no more");
    std::size_t sealed = plaintext.size() + kTagSize;
    std::size_t at = out.size();
    out.resize(at + kHeaderSize + sealed);
    out[at] = kTypeRecord;
    out[at + 1] = static_cast<std::byte>(sealed >> 8);
    out[at + 2] = static_cast<std::byte>(sealed);
    Nonce nonce = nonce_of(sent_++);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(as_mutable_uchars(out.data() + at + kHeaderSize), nullptr,
                                                    as_uchars(plaintext), plaintext.size(), nullptr, 0, nullptr,
                                                    nonce.data(), send_key_.data()); // it cannot fail
    return {};
}

Result<void> NoiseSession::open(BytesView arrived, Bytes& plaintext) {
    if (receive_dead_) return Error::make("Noise session is closed");
    if (!partial_.empty()) {
        // Complete the record that was cut, and no more than that: the rest is read where it lies.
        while (partial_.size() < kHeaderSize && !arrived.empty()) {
            partial_.push_back(arrived[0]);
            arrived = arrived.subspan(1);
        }
        if (partial_.size() < kHeaderSize) return {};
        std::size_t whole =
            kHeaderSize + (std::to_integer<std::size_t>(partial_[1]) << 8) + std::to_integer<std::size_t>(partial_[2]);
        std::size_t missing = whole > partial_.size() ? whole - partial_.size() : 0;
        BytesView piece = arrived.first(std::min(missing, arrived.size()));
        if (whole <= kNoiseMaxRecord) partial_.insert(partial_.end(), piece.begin(), piece.end());
        arrived = arrived.subspan(piece.size());
        auto used = open_records(partial_, plaintext);
        if (!used) return used.error();
        if (*used == 0) return {};
        partial_ = {};
    }
    auto used = open_records(arrived, plaintext);
    if (!used) return used.error();
    BytesView left = arrived.subspan(*used);
    partial_.assign(left.begin(), left.end());
    return {};
}

Result<std::size_t> NoiseSession::open_records(BytesView data, Bytes& plaintext) {
    std::size_t used = 0;
    auto dead = [this](Error error) {
        receive_dead_ = true;
        receive_key_ = {};
        partial_ = {};
        return error;
    };
    while (data.size() - used >= kHeaderSize) {
        BytesView record = data.subspan(used);
        std::size_t sealed = std::to_integer<std::size_t>(record[1]) << 8 | std::to_integer<std::size_t>(record[2]);
        if (record[0] != kTypeRecord)
            return dead(Error::make("Noise record of unexpected type {}", std::to_integer<int>(record[0])));
        if (sealed > kNoiseMaxRecord - kHeaderSize || sealed < kTagSize)
            return dead(Error::make("Noise record with an impossible length of {} bytes", sealed));
        if (record.size() < kHeaderSize + sealed) break;
        if (received_ == UINT64_MAX) return dead(Error::make("Noise session can receive no more"));
        std::size_t at = plaintext.size();
        plaintext.resize(at + sealed - kTagSize);
        Nonce nonce = nonce_of(received_++);
        if (crypto_aead_chacha20poly1305_ietf_decrypt(as_mutable_uchars(plaintext.data() + at), nullptr, nullptr,
                                                      as_uchars(record.subspan(kHeaderSize)), sealed, nullptr, 0,
                                                      nonce.data(), receive_key_.data()) != 0) {
            plaintext.resize(at);
            return dead(Error::make("Noise record {} was forged or damaged", received_ - 1));
        }
        used += kHeaderSize + sealed;
    }
    return used;
}

Bytes write_early_payload(const wire::EarlyNoise& early) {
    std::string body = wire::write_early_noise(early);
    Writer out;
    out.bytes(kEarlyMagic);
    out.be32(static_cast<std::uint32_t>(body.size()));
    out.text(body);
    return out.take();
}

Result<bool> EarlyPayloadReader::feed(BytesView plaintext) {
    held_.insert(held_.end(), plaintext.begin(), plaintext.end());
    std::size_t compared = std::min(held_.size(), sizeof kEarlyMagic);
    if (!std::equal(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(compared), kEarlyMagic)) return true;
    constexpr std::size_t kHead = sizeof kEarlyMagic + 4;
    if (held_.size() < kHead) return false;
    std::size_t length = Reader{BytesView{held_}.subspan(sizeof kEarlyMagic)}.be32();
    if (length > kMaxJson) return Error::make("early payload of {} bytes is too long", length);
    if (held_.size() < kHead + length) return false;
    auto early = wire::parse_early_noise(as_chars(BytesView{held_}.subspan(kHead, length)));
    if (!early) return early.error().with("early payload");
    early_ = *early;
    held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(kHead + length));
    return true;
}

} // namespace tailrace
