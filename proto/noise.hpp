// proto/noise.hpp - the encrypted channel between a node and the control server:
// Noise_IK_25519_ChaChaPoly_BLAKE2s with big-endian record counters (control-protocol.md 2).
// Source: tailscale control/controlbase.
#pragma once
#include "base/record_codec.hpp"
#include "base/result.hpp"
#include "proto/control/requests.hpp"
#include "proto/keys.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

namespace tailrace {

constexpr std::size_t kNoiseInitiationSize = 101;
constexpr std::size_t kNoiseResponseSize = 51;
constexpr std::size_t kNoiseMaxRecord = 4096;    // with its 3-byte header
constexpr std::size_t kNoiseMaxPlaintext = 4077; // of one record

using NoiseInitiation = std::array<std::byte, kNoiseInitiationSize>;
using NoiseResponse = std::array<std::byte, kNoiseResponseSize>;

/// Both directions after a handshake. The first error is final in its direction.
class NoiseSession final : public RecordCodec {
public:
    NoiseSession(const Secret<32>& send_key, const Secret<32>& receive_key, const std::array<std::byte, 32>& hash)
        : send_key_(send_key), receive_key_(receive_key), handshake_hash_(hash) {}

    Result<void> seal(BytesView plaintext, Bytes& out) override;
    /// One record, also an empty one; at most kNoiseMaxPlaintext bytes.
    Result<void> seal_record(BytesView plaintext, Bytes& out);
    Result<void> open(BytesView arrived, Bytes& plaintext) override;

    /// Names this very session; the same on both sides.
    const std::array<std::byte, 32>& handshake_hash() const { return handshake_hash_; }

private:
    Result<std::size_t> open_records(BytesView data, Bytes& plaintext); // bytes used

    Secret<32> send_key_, receive_key_;
    std::array<std::byte, 32> handshake_hash_;
    std::uint64_t sent_ = 0, received_ = 0;
    bool send_dead_ = false, receive_dead_ = false;
    Bytes partial_; // the beginning of a record that has not arrived whole
};

namespace noise_detail {
/// Chaining key and hash of a handshake under way. Remembers a failed primitive: ask ok() at the end.
class Symmetric {
public:
    Symmetric(std::uint16_t version, const MachineKey& server);
    void mix_hash(BytesView data);
    void mix_key(const Secret<32>& secret, BytesView public_key);
    Bytes seal_and_hash(BytesView plaintext);
    Result<Bytes> open_and_hash(BytesView sealed);
    std::pair<Secret<32>, Secret<32>> split();
    const std::array<std::byte, 32>& hash() const { return hash_; }
    const std::array<std::byte, 32>& chaining_key() const { return chaining_key_; }
    Result<void> outcome() const { return outcome_; }

private:
    std::array<std::byte, 32> hash_{}, chaining_key_{};
    Secret<32> key_; // for one seal or open
    Result<void> outcome_;
};
} // namespace noise_detail

/// The client's side of a handshake.
class NoiseClient {
public:
    /// `version` is the capability version. `ephemeral` is for tests only.
    static Result<NoiseClient> begin(std::uint16_t version, const MachinePrivateKey& machine, const MachineKey& server,
                                     const MachinePrivateKey& ephemeral = MachinePrivateKey::generate());

    /// What the server is sent, base64 in the header X-Tailscale-Handshake.
    const NoiseInitiation& initiation() const { return initiation_; }
    /// The length of the server's answer once its first 3 bytes are there: the response, or a refusal with its text.
    static Result<std::size_t> answer_size(BytesView first_three);
    /// Takes exactly answer_size() bytes. A refusal comes back as an error that holds its (unauthenticated) text.
    Result<std::unique_ptr<NoiseSession>> finish(BytesView answer);

    const noise_detail::Symmetric& state() const { return state_; }

private:
    NoiseClient(noise_detail::Symmetric state, MachinePrivateKey machine, MachinePrivateKey ephemeral)
        : state_(std::move(state)), machine_(std::move(machine)), ephemeral_(std::move(ephemeral)) {}

    noise_detail::Symmetric state_;
    MachinePrivateKey machine_, ephemeral_;
    NoiseInitiation initiation_{};
};

struct NoiseAccepted {
    MachineKey client; ///< authenticated, but anybody may own one: check who it is
    std::uint16_t version = 0;
    NoiseResponse response{};
    std::unique_ptr<NoiseSession> session;
};

/// The server's side; one object serves all clients.
class NoiseServer {
public:
    explicit NoiseServer(const MachinePrivateKey& server) : private_(server), public_(server.public_key()) {}

    const MachineKey& public_key() const { return public_; }
    /// `ephemeral` is for tests only. On an error just close the connection.
    Result<NoiseAccepted> accept(BytesView initiation,
                                 const MachinePrivateKey& ephemeral = MachinePrivateKey::generate()) const;

private:
    MachinePrivateKey private_;
    MachineKey public_;
};

/// The server's optional first words inside Noise, before HTTP/2 (2.6).
Bytes write_early_payload(const wire::EarlyNoise& early);

/// Tells an early payload from the HTTP/2 frames that follow it or come instead.
class EarlyPayloadReader {
public:
    static constexpr std::size_t kMaxJson = 10 * 1024 * 1024;

    /// Takes opened bytes. True once it is decided; feed nothing afterwards.
    Result<bool> feed(BytesView plaintext);
    const std::optional<wire::EarlyNoise>& early() const { return early_; }
    /// The bytes behind the early payload, all of them if there was none: they belong to HTTP/2.
    Bytes take_rest() { return std::move(held_); }

private:
    Bytes held_;
    std::optional<wire::EarlyNoise> early_;
};

} // namespace tailrace
