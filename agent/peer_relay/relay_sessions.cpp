#include "agent/peer_relay/relay_sessions.hpp"

#include "base/random.hpp"
#include "proto/geneve.hpp"

#include <algorithm>
#include <sodium.h>

namespace tailrace {

std::optional<DiscoRelayEndpoint> RelaySessions::allocate(TimePoint now, const DiscoAllocateRequest& request,
                                                          const DiscoKey& asking) {
    Pair clients = request.clients;
    std::ranges::sort(clients);
    if (clients[0] == clients[1] || std::ranges::find(clients, asking) == clients.end()) return std::nullopt;
    if (std::ranges::find(clients, public_) != clients.end()) return std::nullopt;
    expire(now);
    auto [entry, is_new] = by_clients_.try_emplace(clients, 0);
    if (is_new) {
        auto unbound = std::ranges::count_if(
            sessions_, [&](const auto& known) { return !known.second.is_bound() && known.second.asked_by == asking; });
        if (sessions_.size() >= kMostSessions || static_cast<std::size_t>(unbound) >= kMostUnbound) {
            by_clients_.erase(entry);
            return std::nullopt;
        }
        do last_vni_ = last_vni_ % GenevePacket::kLargestVni + 1;
        while (sessions_.contains(last_vni_));
        entry->second = last_vni_;
        Session& made = sessions_[last_vni_];
        made.vni = last_vni_;
        made.clients[0].disco = clients[0];
        made.clients[1].disco = clients[1];
        made.lamport_id = ++last_lamport_;
        made.allocated = now;
        made.asked_by = asking;
    }
    DiscoRelayEndpoint out;
    out.server = public_;
    out.clients = clients;
    out.vni = entry->second;
    out.lamport_id = sessions_.at(out.vni).lamport_id;
    out.bind_lifetime = kBindLifetime;
    out.steady_lifetime = kSteadyLifetime;
    return out;
}

const Secret<32>& RelaySessions::secret(TimePoint now) {
    if (secret_ && now - secret_made_ < kSecretLifetime) return *secret_;
    former_secret_ = std::exchange(secret_, Secret<32>{random_array<32>()});
    if (now - secret_made_ >= 2 * kSecretLifetime) former_secret_.reset();
    secret_made_ = now;
    return *secret_;
}

RelaySessions::Challenge RelaySessions::challenge(const Secret<32>& secret, const DiscoRelayHandshake& message,
                                                  const RelayedPlace& from) {
    Writer input;
    input.be32(message.vni);
    input.be32(message.generation);
    input.bytes(message.remote.view());
    input.text(from.client.text());
    Challenge out{};
    crypto_generichash(reinterpret_cast<unsigned char*>(out.data()), out.size(), as_uchars(input.view()),
                       input.view().size(), secret.data(), Secret<32>::kSize);
    return out;
}

bool RelaySessions::is_fresh(const DiscoRelayHandshake& answer, const RelayedPlace& from) const {
    for (const auto& secret : {secret_, former_secret_})
        if (secret && sodium_memcmp(challenge(*secret, answer, from).data(), answer.challenge.data(),
                                    answer.challenge.size()) == 0)
            return true;
    return false;
}

Bytes RelaySessions::on_control(TimePoint now, std::uint32_t vni, BytesView disco, const RelayedPlace& from) {
    auto known = sessions_.find(vni);
    if (known == sessions_.end() || !looks_like_disco(disco)) return {};
    Session& session = known->second;
    DiscoKey sender = disco_sender(disco);
    if (sender != session.clients[0].disco && sender != session.clients[1].disco) return {};
    std::size_t who = sender == session.clients[0].disco ? 0 : 1;
    auto box = DiscoBox::between(key_, sender);
    if (!box) return {};
    auto opened = box->open(disco);
    const auto* message = opened ? std::get_if<DiscoRelayHandshake>(&*opened) : nullptr;
    if (message == nullptr || message->vni != vni || message->remote != session.clients[1 - who].disco) return {};
    const Secret<32>& current = secret(now);
    if (message->step == DiscoRelayHandshake::Step::Bind && message->generation != 0) {
        session.generation[who] = message->generation;
        DiscoRelayHandshake reply = *message;
        reply.step = DiscoRelayHandshake::Step::Challenge;
        reply.challenge = challenge(current, reply, from);
        return box->seal(reply);
    }
    if (message->step == DiscoRelayHandshake::Step::Answer && session.generation[who] != 0 &&
        message->generation == session.generation[who] && is_fresh(*message, from)) {
        session.clients[who].at = from;
        session.seen[who] = now;
        session.generation[who] = 0;
    }
    return {};
}

std::optional<RelayedPlace> RelaySessions::on_data(TimePoint now, std::uint32_t vni, const RelayedPlace& from,
                                                   std::size_t packets, std::size_t bytes) {
    auto known = sessions_.find(vni);
    if (known == sessions_.end() || !known->second.is_bound()) return std::nullopt;
    Session& session = known->second;
    for (std::size_t who : {0u, 1u}) {
        State::Client& client = session.clients[who];
        if (client.at->client != from.client) continue;
        session.seen[who] = now;
        client.packets += packets;
        client.bytes += bytes;
        return session.clients[1 - who].at;
    }
    return std::nullopt;
}

void RelaySessions::expire(TimePoint now) {
    std::erase_if(sessions_, [&](const auto& entry) {
        const Session& session = entry.second;
        bool over = session.is_bound() ? now - std::min(session.seen[0], session.seen[1]) > kSteadyLifetime
                                       : now - session.allocated > kBindLifetime;
        if (over) by_clients_.erase({session.clients[0].disco, session.clients[1].disco});
        return over;
    });
}

std::vector<RelaySessions::State> RelaySessions::states() const {
    std::vector<State> out(sessions_.size());
    std::ranges::transform(sessions_, out.begin(), [](const auto& entry) -> State { return entry.second; });
    std::ranges::sort(out, {}, &State::vni);
    return out;
}

} // namespace tailrace
