// Whatever happens to a tailnet, and in whatever order, every agent ends up knowing exactly what a new stream would
// tell.
#include "base/json/json.hpp"
#include "tests/sim/tailnet.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace tailrace::sim {
namespace {

using namespace std::chrono_literals;

const std::vector<std::string> kPolicies = {
    "{}",
    R"({"acls": [{"action": "accept", "src": ["alice@"], "dst": ["bob@:22"]}]})",
    R"({"acls": [{"action": "accept", "src": ["bob@"], "dst": ["*:443"]}, {"action": "accept", "src": ["alice@"], "dst": ["alice@:*"]}]})",
    R"({"acls": []})",
};

struct Tailnet {
    World world;
    Internet internet{world, 10ms};
    Control control{world};
    std::vector<std::unique_ptr<Agent>> agents;
    std::set<NodeId> gone, silent;

    Agent& add_agent(const std::string& user) {
        int number = static_cast<int>(agents.size());
        Endpoint socket{IpAddress::v4(0xcb007101u + static_cast<std::uint32_t>(number)), 41641};
        agents.push_back(std::make_unique<Agent>(world, internet, control, "host", socket));
        agents.back()->join(control.auth_key(user));
        return *agents.back();
    }
    static std::set<std::string> texts(const std::vector<wire::Node>& peers) {
        std::set<std::string> out;
        for (const wire::Node& peer : peers) {
            std::string endpoints;
            for (const Endpoint& endpoint : peer.endpoints) endpoints += endpoint.text() + " ";
            out.insert(fmt::format("{} {} {} {} online={} expired={} {}", peer.id, peer.name, peer.key.text(),
                                   peer.disco_key.text(), peer.online.value_or(false), peer.expired, endpoints));
        }
        return out;
    }
    void expect_everybody_knows_everything() {
        for (const auto& agent : agents) {
            if (gone.contains(agent->id()) || silent.contains(agent->id())) continue;
            auto wanted = control.whole_map(agent->id());
            std::vector<wire::Node> peers;
            for (const auto& [id, peer] : agent->netmap().peers()) peers.push_back(peer);
            auto known = texts(peers), told = texts(wanted.peers.value_or(std::vector<wire::Node>{}));
            for (const std::string& text : known)
                EXPECT_TRUE(told.contains(text)) << agent->id() << " believes in " << text;
            for (const std::string& text : told) EXPECT_TRUE(known.contains(text)) << agent->id() << " lacks " << text;
            ASSERT_TRUE(wanted.packet_filters);
            EXPECT_EQ(json::write(agent->netmap().filter_rules()), json::write(wanted.packet_filters->at("base")))
                << "agent " << agent->id();
        }
    }
    void one_change(std::mt19937& dice) {
        auto pick = [&](std::size_t below) { return std::uniform_int_distribution<std::size_t>{0, below - 1}(dice); };
        Agent& agent = *agents[pick(agents.size())];
        bool there = !gone.contains(agent.id());
        switch (pick(9)) {
        case 0:
            if (agents.size() < 40) add_agent(pick(2) == 0 ? "alice" : "bob");
            break;
        case 1:
            control.set_policy(kPolicies[pick(kPolicies.size())]);
            break;
        case 2:
            if (there && agents.size() - gone.size() > 5 && control.tailnet().delete_node(agent.id()))
                gone.insert(agent.id());
            break;
        case 3:
            if (there)
                EXPECT_TRUE(control.tailnet().rename_node(agent.id(),
                                                          fmt::format("name-{}", pick(1000) + 1000 * agents.size())));
            break;
        case 4:
            if (there && silent.insert(agent.id()).second) agent.close_stream();
            break;
        case 5:
            if (there && silent.erase(agent.id()) > 0) agent.open_stream();
            break;
        case 6:
            if (there)
                agent.move_to({IpAddress::v4(0xc6336401u + static_cast<std::uint32_t>(pick(200))),
                               static_cast<std::uint16_t>(1024 + pick(60000))});
            break;
        case 7:
            agent.read_slowly(std::chrono::milliseconds{1 + pick(3000)});
            break;
        case 8:
            if (there)
                EXPECT_TRUE(control.tailnet().expire_node(world.wall(), agent.id(),
                                                          world.wall().plus(std::chrono::seconds{pick(60)})));
            break;
        }
        control.publish();
    }
};

TEST(Netmaps, ConvergeOnWhatANewStreamWouldTell) {
    std::size_t looked_at = 0;
    for (unsigned seed = 1; seed <= 60 && !testing::Test::HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        Tailnet net;
        std::mt19937 dice{seed};
        while (net.agents.size() < 12) net.add_agent(net.agents.size() % 2 == 0 ? "alice" : "bob");
        for (int change = 0; change < 60; ++change) {
            net.one_change(dice);
            net.world.run_for(std::chrono::milliseconds{dice() % 500});
        }
        for (int minute = 0; minute < 3; ++minute) { // grace periods and expiries pass, slow readers catch up
            net.world.run_for(1min);
            net.control.publish();
        }
        net.world.run_for(10s);
        net.expect_everybody_knows_everything();
        looked_at += net.agents.size() - net.gone.size();
    }
    EXPECT_GT(looked_at, 600u);
}

TEST(Netmaps, OfASlowReaderMissNothingAndHoldNobodyUp) {
    Tailnet net;
    Agent& slow = net.add_agent("alice");
    Agent& quick = net.add_agent("alice");
    slow.read_slowly(20s);
    net.world.run_for(1s);
    for (int i = 0; i < 10; ++i) net.add_agent("bob");
    net.world.run_for(1s);
    EXPECT_EQ(quick.netmap().peers().size(), 11u);
    EXPECT_LT(slow.netmap().peers().size(), 11u);
    net.world.run_for(1min);
    net.expect_everybody_knows_everything();
}

} // namespace
} // namespace tailrace::sim
