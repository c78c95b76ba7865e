// proto/keys.hpp - the keys of the protocol: 32 raw bytes, and a text form with a prefix that names the kind.
// Source: tailscale types/key (control-protocol.md 1.1).
#pragma once
#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"

#include <array>
#include <compare>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

namespace tailrace {

namespace key_detail {
Result<std::array<std::byte, 32>> parse(std::string_view text, std::string_view prefix);
std::string text(std::string_view prefix, BytesView raw);
std::string short_text(BytesView raw);       // "[AbCdE]"
std::array<std::byte, 32> generate_x25519(); // clamped
std::array<std::byte, 32> x25519_public(const Secret<32>& secret);
} // namespace key_detail

/// The public half of a key pair. The zero value means "none" and is written as prefix and 64 zeros, never as "".
template <typename Kind>
class PublicKey {
public:
    static constexpr std::size_t kSize = 32;

    PublicKey() = default;
    explicit PublicKey(const std::array<std::byte, kSize>& raw) : raw_(raw) {}

    /// The exact prefix and 64 hex digits of either case; no white space.
    static Result<PublicKey> parse(std::string_view text) {
        auto raw = key_detail::parse(text, Kind::kPrefix);
        if constexpr (requires { Kind::kOtherPrefix; })
            if (!raw) raw = key_detail::parse(text, Kind::kOtherPrefix);
        if (!raw) return raw.error();
        return PublicKey{*raw};
    }
    std::string text() const { return key_detail::text(Kind::kPrefix, raw_); }
    /// "[AbCdE]": enough to tell keys apart in a log.
    std::string short_text() const { return key_detail::short_text(raw_); }

    bool is_zero() const { return *this == PublicKey{}; }
    BytesView view() const { return raw_; }
    const std::array<std::byte, kSize>& raw() const { return raw_; }
    const unsigned char* data() const { return as_uchars(raw_); }

    auto operator<=>(const PublicKey&) const = default;

private:
    std::array<std::byte, kSize> raw_{};
};

/// The private half; wiped when it goes. Kinds that live in memory only have no text.
template <typename Kind>
class PrivateKey {
public:
    static constexpr std::size_t kSize = 32;

    PrivateKey() = default;
    explicit PrivateKey(const std::array<std::byte, kSize>& raw) : secret_(raw) {}

    static PrivateKey generate() { return PrivateKey{key_detail::generate_x25519()}; }
    PublicKey<Kind> public_key() const { return PublicKey<Kind>{key_detail::x25519_public(secret_)}; }

    static Result<PrivateKey> parse(std::string_view text) requires(Kind::kStored) {
        auto raw = key_detail::parse(text, "privkey:");
        if (!raw) return raw.error();
        return PrivateKey{*raw};
    }
    /// "privkey:" and hex, for state files of mode 0600 and nothing else.
    std::string text_for_storing() const requires(Kind::kStored) {
        return key_detail::text("privkey:", secret_.view());
    }

    bool is_zero() const { return secret_.is_zero(); }
    BytesView view() const { return secret_.view(); }
    const unsigned char* data() const { return secret_.data(); }
    const Secret<kSize>& secret() const { return secret_; }
    bool operator==(const PrivateKey&) const = default;

private:
    Secret<kSize> secret_;
};

struct MachineKind {
    static constexpr std::string_view kPrefix = "mkey:";
    static constexpr bool kStored = true;
};
struct NodeKind {
    static constexpr std::string_view kPrefix = "nodekey:";
    static constexpr bool kStored = true;
};
struct DiscoKind {
    static constexpr std::string_view kPrefix = "discokey:";
    static constexpr bool kStored = false;
};
struct ChallengeKind {
    static constexpr std::string_view kPrefix = "chalpub:";
    static constexpr bool kStored = false;
};
struct NlKind {
    static constexpr std::string_view kPrefix = "nlpub:";
    static constexpr std::string_view kOtherPrefix = "tlpub:"; // the command line's spelling
};

using MachineKey = PublicKey<MachineKind>;     ///< Noise static key, of clients and of the server
using NodeKey = PublicKey<NodeKind>;           ///< WireGuard and DERP identity of a node
using DiscoKey = PublicKey<DiscoKind>;         ///< path discovery
using ChallengeKey = PublicKey<ChallengeKind>; ///< EarlyNoise only
using NlKey = PublicKey<NlKind>;               ///< tailnet lock (Ed25519)

using MachinePrivateKey = PrivateKey<MachineKind>;
using NodePrivateKey = PrivateKey<NodeKind>;
using DiscoPrivateKey = PrivateKey<DiscoKind>;
using ChallengePrivateKey = PrivateKey<ChallengeKind>;

/// Ed25519, seed and public half together. Every client has one and names its public half when it registers.
class NlPrivateKey {
public:
    static constexpr std::size_t kSize = 64;

    NlPrivateKey() = default;
    static NlPrivateKey generate();
    static Result<NlPrivateKey> parse(std::string_view text); ///< "nlpriv:" and 128 hex digits
    std::string text_for_storing() const;
    NlKey public_key() const;
    bool is_zero() const { return secret_.is_zero(); }
    const Secret<kSize>& secret() const { return secret_; }
    bool operator==(const NlPrivateKey&) const = default;

private:
    Secret<kSize> secret_;
};

/// "d:" and the first 8 bytes in hex, the reference client's short form of a disco key.
std::string short_disco_text(const DiscoKey& key);

/// Diffie-Hellman. Fails on a result of all zeros (a peer key of low order).
Result<Secret<32>> x25519(const Secret<32>& secret, BytesView public_key);

} // namespace tailrace

template <typename Kind>
struct std::hash<tailrace::PublicKey<Kind>> {
    std::size_t operator()(const tailrace::PublicKey<Kind>& key) const {
        // Mixed, since a node may choose its own key: the first bytes alone would let it pile up one bucket.
        std::uint64_t word[4];
        std::memcpy(word, key.raw().data(), sizeof word);
        std::uint64_t mixed = word[0] * 0x9e3779b97f4a7c15u + word[1];
        mixed = (mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9u + word[2];
        mixed = (mixed ^ (mixed >> 32)) * 0x94d049bb133111ebu + word[3];
        return static_cast<std::size_t>(mixed ^ (mixed >> 31));
    }
};
