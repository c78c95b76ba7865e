// tests/fakes/fake_wireguard.hpp - a WireGuard device in memory that means what the real ones mean.
#pragma once
#include "netlink/wireguard.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace tailrace {

/// Keeps state as the kernel does: an allowed IP has one owner, the last one to take it; peers that stay keep their
/// session.
class FakeWireGuard final : public WireGuardDevice {
public:
    explicit FakeWireGuard(std::string name = "tailrace0", WireGuardKind kind = WireGuardKind::Kernel)
        : name_(std::move(name)), kind_(kind) {}

    const std::string& name() const override { return name_; }
    WireGuardKind kind() const override { return kind_; }

    Result<WireGuardState> read() override {
        if (failing_) return *failing_;
        return state_;
    }

    Result<void> apply(const WireGuardChanges& changes) override {
        if (failing_) return *failing_;
        ++applied_;
        if (changes.private_key) state_.private_key = *changes.private_key;
        if (changes.listen_port) state_.listen_port = *changes.listen_port;
        if (changes.fwmark) state_.fwmark = *changes.fwmark;
        for (const auto& change : changes.peers) apply(change);
        for (const auto& prefix : changes.orphaned_allowed_ips) take_away(prefix);
        return {};
    }

    Result<void> remove() override {
        state_ = {};
        removed_ = true;
        return {};
    }

    // What a test says to it and asks of it.
    WireGuardState& state() { return state_; }
    WireGuardPeerState* peer(const WireGuardKey& key) {
        auto found = std::find_if(state_.peers.begin(), state_.peers.end(),
                                  [&](const WireGuardPeerState& peer) { return peer.public_key == key; });
        return found == state_.peers.end() ? nullptr : &*found;
    }
    void fail_with(std::optional<Error> error) { failing_ = std::move(error); }
    int applied() const { return applied_; }
    bool removed() const { return removed_; }

private:
    void apply(const WireGuardPeerChange& change) {
        using Kind = WireGuardPeerChange::Kind;
        auto* found = peer(change.public_key);
        if (change.kind == Kind::Remove) {
            std::erase_if(state_.peers,
                          [&](const WireGuardPeerState& peer) { return peer.public_key == change.public_key; });
            return;
        }
        if (found == nullptr) {
            if (change.kind == Kind::Update) return;
            WireGuardPeerState made;
            made.public_key = change.public_key;
            state_.peers.push_back(std::move(made));
            found = &state_.peers.back();
        }
        if (change.endpoint) found->endpoint = change.endpoint;
        if (change.keepalive_seconds) found->keepalive_seconds = *change.keepalive_seconds;
        if (change.clear_preshared_key) found->has_preshared_key = false;
        if (change.replace_allowed_ips) found->allowed_ips.clear();
        for (const auto& prefix : change.add_allowed_ips) {
            take_away(prefix);
            found->allowed_ips.push_back(prefix.masked());
        }
        std::sort(found->allowed_ips.begin(), found->allowed_ips.end());
    }
    void take_away(const IpPrefix& prefix) {
        for (auto& peer : state_.peers) std::erase(peer.allowed_ips, prefix.masked());
    }

    std::string name_;
    WireGuardKind kind_;
    WireGuardState state_;
    std::optional<Error> failing_;
    int applied_ = 0;
    bool removed_ = false;
};

} // namespace tailrace
