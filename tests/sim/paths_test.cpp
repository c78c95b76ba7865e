// Agents find each other on an internet with NATs, and keep finding each other when it changes.
#include "tests/sim/tailnet.hpp"

#include <gtest/gtest.h>

namespace tailrace::sim {
namespace {

using namespace std::chrono_literals;

struct Paths : testing::Test {
    World world;
    Internet internet{world, 10ms};
    Control control{world};
    std::string key = control.auth_key("alice");
    std::vector<std::unique_ptr<Agent>> agents;

    Agent& add_agent(const std::string& socket, Nat* behind = nullptr) {
        agents.push_back(std::make_unique<Agent>(world, internet, control, "host", *Endpoint::parse(socket), behind));
        agents.back()->join(key);
        return *agents.back();
    }
    bool all_direct() const {
        for (const auto& a : agents)
            for (const auto& b : agents)
                if (a != b && !a->is_direct_to(*b)) return false;
        return true;
    }
    /// A packet every 100 ms; how many of them arrived.
    std::size_t talk(Agent& from, Agent& to, Duration time) {
        std::size_t before = to.packets_from(from);
        for (Duration passed{}; passed < time; passed += 100ms) {
            from.send_packet(to);
            world.run_for(100ms);
        }
        return to.packets_from(from) - before;
    }
};

TEST_F(Paths, AgentsInPublicAreDirectWithinASecondAndAHalf) {
    for (int i = 1; i <= 20; ++i) add_agent(fmt::format("203.0.113.{}:41641", i));
    EXPECT_TRUE(world.run_until([&] { return all_direct(); }, 1500ms));
}

TEST_F(Paths, AnAgentBehindANatReachesAndIsReachedByThoseInPublic) {
    Nat home{*IpAddress::parse("198.51.100.1")};
    Agent& gateway = add_agent("203.0.113.1:41641");
    Agent& laptop = add_agent("192.168.1.5:41641", &home);
    EXPECT_TRUE(world.run_until([&] { return all_direct(); }, 1500ms));
    EXPECT_EQ(talk(laptop, gateway, 5s), 50u);
    EXPECT_EQ(talk(gateway, laptop, 5s), 50u);
    EXPECT_EQ(gateway.path_to(laptop).endpoint->address, home.outside());
}

TEST_F(Paths, TwoBehindOneNatUseTheirLan) {
    Nat home{*IpAddress::parse("198.51.100.1")};
    Agent& laptop = add_agent("192.168.1.5:41641", &home);
    Agent& printer = add_agent("192.168.1.6:41641", &home);
    EXPECT_TRUE(world.run_until([&] { return all_direct(); }, 1500ms));
    EXPECT_EQ(laptop.path_to(printer).endpoint, printer.socket());
}

TEST_F(Paths, ANatThatForgetsCostsNoMoreThanTheTrustInAPath) {
    Nat home{*IpAddress::parse("198.51.100.1")};
    Agent& gateway = add_agent("203.0.113.1:41641");
    Agent& laptop = add_agent("192.168.1.5:41641", &home);
    ASSERT_TRUE(world.run_until([&] { return all_direct(); }, 1500ms));
    ASSERT_EQ(talk(laptop, gateway, 2s), 20u);
    home.forget();
    talk(laptop, gateway, 6500ms);
    EXPECT_EQ(talk(gateway, laptop, 2s), 20u) << "the gateway has noticed the new mapping";
}

TEST_F(Paths, AnAgentThatMovesIsFoundAgain) {
    Agent& gateway = add_agent("203.0.113.1:41641");
    Agent& laptop = add_agent("203.0.113.2:41641");
    ASSERT_TRUE(world.run_until([&] { return all_direct(); }, 1500ms));
    talk(gateway, laptop, 1s);
    laptop.move_to(*Endpoint::parse("198.51.100.77:50000"));
    talk(gateway, laptop, PathBook::kTrustFor);
    EXPECT_EQ(talk(gateway, laptop, 10s), 100u);
    EXPECT_EQ(gateway.path_to(laptop).endpoint, laptop.socket());
}

/// Two who talk with each other, ten times a second, and could do so over a relay.
struct Talk {
    World world;
    Internet internet{world, 10ms};
    Endpoint stun = *Endpoint::parse("203.0.113.200:3478");
    Relays relays{world, 20ms, 2, stun};
    Control control{world};
    std::string key = control.auth_key("alice");
    Agent gateway{world, internet, control, "gateway", *Endpoint::parse("203.0.113.1:41641"), nullptr, &relays};
    Agent laptop{world, internet, control, "laptop", *Endpoint::parse("203.0.113.2:41641"), nullptr, &relays};

    Talk() {
        internet.attach_stun(stun);
        gateway.join(key);
        laptop.join(key);
        control.publish();
        go_on(10s);
        EXPECT_TRUE(gateway.trusts_path_to(laptop) && laptop.trusts_path_to(gateway));
    }
    /// How many packets were lost, both ways.
    std::size_t go_on(Duration time) {
        std::size_t sent = 0, before = gateway.packets_from(laptop) + laptop.packets_from(gateway);
        for (Duration passed{}; passed < time; passed += 100ms, sent += 2) {
            gateway.send_packet(laptop);
            laptop.send_packet(gateway);
            world.run_for(100ms);
        }
        return sent - (gateway.packets_from(laptop) + laptop.packets_from(gateway) - before);
    }
};

TEST(KilledAgent, LosesNothingOnADirectPathWheneverItIsKilled) {
    for (Duration phase = 0ms; phase < 3100ms; phase += 100ms)
        for (Duration away : {500ms, 4000ms, 20000ms}) {
            Talk talk;
            talk.go_on(phase);
            talk.gateway.kill();
            EXPECT_EQ(talk.go_on(away), 0u) << phase.count() << ", dead";
            talk.gateway.start();
            EXPECT_EQ(talk.go_on(20s), 0u) << phase.count() << ", back after " << away.count();
            EXPECT_TRUE(talk.gateway.trusts_path_to(talk.laptop) && talk.laptop.trusts_path_to(talk.gateway));
        }
}

TEST_F(Paths, SilenceCostsNothing) {
    for (int i = 1; i <= 20; ++i) add_agent(fmt::format("203.0.113.{}:41641", i));
    world.run_for(1min);
    std::size_t before = internet.datagrams();
    world.run_for(1h);
    EXPECT_EQ(internet.datagrams(), before);
}

} // namespace
} // namespace tailrace::sim
