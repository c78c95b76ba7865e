#include "proto/keys.hpp"

#include "base/random.hpp"
#include "base/text.hpp"

#include <sodium.h>

namespace tailrace {
namespace {

// Picks libsodium's fast implementations before the first key is touched.
[[maybe_unused]] const int kSodiumReady = sodium_init();

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

template <std::size_t N>
Result<void> parse_hex_key(std::string_view text, std::string_view prefix, std::array<std::byte, N>& out) {
    if (text.substr(0, prefix.size()) != prefix) return Error::make("key does not start with \"{}\"", prefix);
    std::string_view digits = text.substr(prefix.size());
    if (digits.size() != 2 * N)
        return Error::make("\"{}\" key has {} characters, not {}", prefix, digits.size(), 2 * N);
    for (std::size_t i = 0; i < N; ++i) {
        int high = hex_digit(digits[2 * i]);
        int low = hex_digit(digits[2 * i + 1]);
        if (high < 0 || low < 0) return Error::make("\"{}\" key has a character that is not a hex digit", prefix);
        out[i] = static_cast<std::byte>(high << 4 | low);
    }
    return {};
}

} // namespace

namespace key_detail {

Result<std::array<std::byte, 32>> parse(std::string_view text, std::string_view prefix) {
    std::array<std::byte, 32> raw;
    if (auto done = parse_hex_key(text, prefix, raw); !done) return done.error();
    return raw;
}

std::string text(std::string_view prefix, BytesView raw) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    out.reserve(prefix.size() + 2 * raw.size());
    out += prefix;
    for (std::byte b : raw) {
        out += kDigits[std::to_integer<unsigned>(b) >> 4];
        out += kDigits[std::to_integer<unsigned>(b) & 15];
    }
    return out;
}

std::string short_text(BytesView raw) {
    return "[" + base64_encode(raw.first(6)).substr(0, 5) + "]";
}

std::array<std::byte, 32> generate_x25519() {
    auto raw = random_array<32>();
    raw[0] &= std::byte{0xf8};
    raw[31] = (raw[31] & std::byte{0x7f}) | std::byte{0x40};
    return raw;
}

std::array<std::byte, 32> x25519_public(const Secret<32>& secret) {
    std::array<std::byte, 32> out{};
    (void)crypto_scalarmult_base(reinterpret_cast<unsigned char*>(out.data()), secret.data()); // it cannot fail
    return out;
}

} // namespace key_detail

NlPrivateKey NlPrivateKey::generate() {
    NlPrivateKey key;
    std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> unused;
    (void)crypto_sign_keypair(unused.data(), key.secret_.mutable_data()); // it cannot fail
    return key;
}

Result<NlPrivateKey> NlPrivateKey::parse(std::string_view text) {
    std::array<std::byte, kSize> raw;
    if (auto done = parse_hex_key(text, "nlpriv:", raw); !done) return done.error();
    NlPrivateKey key;
    key.secret_ = Secret<kSize>{raw};
    sodium_memzero(raw.data(), raw.size());
    return key;
}

std::string NlPrivateKey::text_for_storing() const {
    return key_detail::text("nlpriv:", secret_.view());
}

NlKey NlPrivateKey::public_key() const {
    Reader in{secret_.view().subspan(32)}; // seed, then public half
    return NlKey{in.array<32>()};
}

std::string short_disco_text(const DiscoKey& key) {
    return key_detail::text("d:", key.view().first(8));
}

Result<Secret<32>> x25519(const Secret<32>& secret, BytesView public_key) {
    Secret<32> shared;
    if (public_key.size() != 32) return Error::make("X25519: public key of {} bytes", public_key.size());
    if (crypto_scalarmult(shared.mutable_data(), secret.data(), as_uchars(public_key)) != 0 || shared.is_zero())
        return Error::make("X25519: the shared secret is all zeros");
    return shared;
}

} // namespace tailrace
