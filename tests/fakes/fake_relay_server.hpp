// tests/fakes/fake_relay_server.hpp - the server's half of relaying UDP between two nodes (derp-disco-paths.md 4.14),
// on bytes. One pair of clients.
#pragma once
#include "proto/disco.hpp"
#include "proto/geneve.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

namespace tailrace {

class FakeRelayServer {
public:
    struct Datagram {
        Endpoint to;
        Bytes data;
    };

    FakeRelayServer(std::vector<Endpoint> addresses, std::uint32_t vni) : addresses_(std::move(addresses)), vni_(vni) {}

    /// The same pair is given the same endpoint.
    DiscoRelayEndpoint allocate(const std::array<DiscoKey, 2>& clients) {
        if (clients_ != clients) {
            clients_ = clients;
            bound_ = {};
            ++lamport_id_;
        }
        DiscoRelayEndpoint out;
        out.server = key_.public_key();
        out.clients = clients_;
        out.lamport_id = lamport_id_;
        out.vni = vni_;
        out.bind_lifetime = std::chrono::seconds{30};
        out.steady_lifetime = std::chrono::minutes{5};
        out.addresses = addresses_;
        return out;
    }
    /// What it sends because of a datagram. It is silent about everything that does not fit.
    std::vector<Datagram> receive(const Endpoint& from, BytesView datagram) {
        auto packet = parse_geneve(datagram);
        if (!packet || packet->vni != vni_) return {};
        if (packet->control) return shake(from, *packet);
        ++forwarded_;
        if (!bound_[0] || !bound_[1]) return {};
        if (from == *bound_[0]) return {{*bound_[1], to_bytes(datagram)}};
        if (from == *bound_[1]) return {{*bound_[0], to_bytes(datagram)}};
        return {};
    }
    bool is_bound() const { return bound_[0] && bound_[1]; }
    int forwarded() const { return forwarded_; }

private:
    std::vector<Datagram> shake(const Endpoint& from, const GenevePacket& packet) {
        if (!looks_like_disco(packet.payload)) return {};
        const DiscoKey sender = disco_sender(packet.payload);
        auto client = std::ranges::find(clients_, sender);
        if (client == clients_.end()) return {};
        auto index = static_cast<std::size_t>(client - clients_.begin());
        auto box = DiscoBox::between(key_, sender);
        auto message = box->open(packet.payload);
        const auto* said = message ? std::get_if<DiscoRelayHandshake>(&*message) : nullptr;
        if (said == nullptr || said->vni != vni_ || said->remote != clients_[1 - index] || said->generation == 0)
            return {};
        DiscoRelayHandshake answer = *said;
        answer.step = DiscoRelayHandshake::Step::Challenge;
        answer.challenge = challenge_for(from, said->generation);
        if (said->step == DiscoRelayHandshake::Step::Bind) {
            generation_[index] = said->generation;
            Bytes sealed = box->seal(answer);
            return {{from, write_geneve({GenevePacket::Protocol::Disco, true, vni_, sealed})}};
        }
        if (said->step == DiscoRelayHandshake::Step::Answer && generation_[index] == said->generation &&
            said->challenge == answer.challenge) {
            bound_[index] = from;
            generation_[index] = 0;
        }
        return {};
    }
    std::array<std::byte, 32> challenge_for(const Endpoint& from, std::uint32_t generation) const {
        Writer out;
        out.be16(from.port);
        out.be32(generation);
        out.bytes(from.address.bytes());
        Bytes made = out.take();
        made.resize(32);
        return Reader{made}.array<32>();
    }

    DiscoPrivateKey key_ = DiscoPrivateKey::generate();
    std::vector<Endpoint> addresses_;
    std::uint32_t vni_;
    std::array<DiscoKey, 2> clients_{};
    std::array<std::uint32_t, 2> generation_{};
    std::array<std::optional<Endpoint>, 2> bound_{};
    std::uint64_t lamport_id_ = 0;
    int forwarded_ = 0;
};

} // namespace tailrace
