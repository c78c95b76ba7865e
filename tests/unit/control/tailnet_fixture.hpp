// A tailnet with two users and what a client would send to it.
#pragma once
#include "control/tailnet/tailnet_state.hpp"

#include <gtest/gtest.h>

namespace tailrace {

inline WallTime at(std::chrono::seconds since_start) {
    return WallTime::from_unix(1'800'000'000 + since_start.count());
}

struct Machine {
    MachineKey machine = MachinePrivateKey::generate().public_key();
    NodeKey key = NodePrivateKey::generate().public_key();
    std::string hostname = "laptop";

    wire::RegisterRequest request(std::string auth_key = "") const {
        wire::RegisterRequest request;
        request.version = 131;
        request.node_key = key;
        request.hostinfo.value.hostname = hostname;
        if (!auth_key.empty()) request.auth = wire::RegisterAuth{auth_key};
        return request;
    }
    wire::MapRequest map_request() const {
        wire::MapRequest request;
        request.version = 131;
        request.node_key = key;
        return request;
    }
    void rotate() { key = NodePrivateKey::generate().public_key(); }
};

struct TailnetFixture : testing::Test {
    static TailnetState::Settings settings() {
        TailnetState::Settings settings;
        settings.server_url = "http://10.99.0.1:8080";
        settings.base_domain = "tail.lab";
        settings.prefix_v4 = cgnat_prefix();
        settings.prefix_v6 = tailscale_ula_prefix();
        return settings;
    }
    TagOwners owners{
        [](const User& user, const std::string& tag) { return user.name == "alice" && tag == "tag:server"; },
        [](const std::vector<std::string>&, const std::string&) { return false; },
        [](const std::string& tag) { return tag == "tag:server"; }};
    TailnetState tailnet{settings(), {}, owners, at(std::chrono::seconds{0})};
    std::chrono::seconds now{0};

    void SetUp() override {
        ASSERT_TRUE(tailnet.create_user(at(now), "alice", ""));
        ASSERT_TRUE(tailnet.create_user(at(now), "bob", ""));
    }
    /// The same tailnet, empty, with device approval.
    void ask_for_approval() {
        auto approving = settings();
        approving.device_approval = true;
        tailnet = TailnetState{approving, {}, owners, at(now)};
        ASSERT_TRUE(tailnet.create_user(at(now), "alice", ""));
        ASSERT_TRUE(tailnet.create_user(at(now), "bob", ""));
    }
    std::string make_key(TailnetState::KeyWish wish) {
        if (wish.user.empty()) wish.user = "alice";
        auto key = tailnet.create_auth_key(at(now), wish);
        EXPECT_TRUE(key);
        return key->text;
    }
    std::string reusable_key() {
        TailnetState::KeyWish wish;
        wish.reusable = true;
        return make_key(wish);
    }
    wire::RegisterResponse ask(const Machine& machine, const wire::RegisterRequest& request) {
        return tailnet.on_register(at(now), machine.machine, request).response;
    }
    wire::RegisterResponse join(const Machine& machine, const std::string& key) {
        return ask(machine, machine.request(key));
    }
    NodePtr node_of(const Machine& machine) { return tailnet.node_by_key(machine.key); }
};

inline bool succeeded(const wire::RegisterResponse& response) {
    return response.error.empty() && response.auth_url.empty() && !response.node_key_expired;
}

} // namespace tailrace
