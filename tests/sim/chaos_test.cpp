// Many agents behind all kinds of NATs, while networks lose packets, boxes reboot, relays die and lids are closed. When
// that is over, every pair that could be direct is direct, and every other pair talks over a relay.
#include "tests/sim/tailnet.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

namespace tailrace::sim {
namespace {

using namespace std::chrono_literals;

class Chaos {
public:
    Chaos(unsigned seed, std::size_t count) : dice_(seed) {
        internet_.attach_stun(kStun);
        while (agents_.size() < count) add_place(count - agents_.size());
        for (auto& agent : agents_) agent->join(key_);
        world_.run_for(10s);
    }

    /// People talk, and once a second something happens.
    void rage(Duration time) {
        internet_.lose(0.05, dice_());
        for (TimePoint end = world_.now() + time; world_.now() < end;) {
            for (std::size_t i = 0; i < agents_.size() / 4; ++i) any().send_packet(any());
            happen();
            world_.run_for(1s);
        }
        internet_.lose(0, 0);
        for (auto& agent : agents_) agent->wake();
        for (int region = 1; region <= relays_.regions(); ++region) relays_.set_alive(region, true);
        control_.publish();
        world_.run_for(30s);
    }

    /// Lets everybody talk to everybody for a while, some pairs at a time: each agent with the one `step` places on.
    /// Not all of these rounds where there are many.
    void expect_that_all_reach_all(std::size_t every = 1) {
        for (std::size_t step = 1; step <= agents_.size() / 2 && !testing::Test::HasFailure(); step += every) {
            std::vector<std::pair<Agent*, Agent*>> pairs;
            for (std::size_t i = 0; i < agents_.size(); ++i)
                if (Agent& other = *agents_[(i + step) % agents_.size()];
                    agents_[i].get() < &other || 2 * step < agents_.size())
                    pairs.emplace_back(agents_[i].get(), &other);
            expect_that_they_reach_each_other(pairs);
        }
    }

    std::size_t direct = 0, relayed = 0;

private:
    static inline const Endpoint kStun = *Endpoint::parse("203.0.113.2:3478");

    std::size_t pick(std::size_t below) { return std::uniform_int_distribution<std::size_t>{0, below - 1}(dice_); }
    Agent& any() { return *agents_[pick(agents_.size())]; }
    IpAddress next_public() { return IpAddress::v4(0xc6120000u + ++public_addresses_); } // 198.18.0.0/15
    std::uint16_t any_port() { return static_cast<std::uint16_t>(1024 + pick(60000)); }
    Endpoint next_socket(Nat* box) {
        if (box == nullptr) return {next_public(), any_port()};
        return {IpAddress::v4(0x0a000000u + ++private_addresses_), any_port()}; // 10.0.0.0/8
    }

    /// A machine in public, or a NAT with one to four machines behind it.
    void add_place(std::size_t people_at_most) {
        std::size_t kind = pick(4);
        Nat* box = nullptr;
        if (kind > 0) {
            boxes_.push_back(std::make_unique<Nat>(next_public(), kind == 1 ? Nat::Kind::Hard : Nat::Kind::Easy));
            box = boxes_.back().get();
        }
        for (std::size_t i = 0, people = box == nullptr ? 1 : 1 + pick(4); i < std::min(people, people_at_most); ++i)
            agents_.push_back(
                std::make_unique<Agent>(world_, internet_, control_, "host", next_socket(box), box, &relays_));
    }

    void happen() {
        Agent& agent = any();
        switch (pick(8)) {
        case 0:
            boxes_[pick(boxes_.size())]->forget();
            break;
        case 1:
            if (agent.is_asleep()) break;
            agent.sleep();
            world_.after(std::chrono::seconds{1 + pick(300)}, [&agent, this] { // hours, as the sleeper sees it
                agent.wake();
                control_.publish();
            });
            break;
        case 2:
            if (!agent.is_asleep()) {
                Nat* box = pick(2) == 0 ? nullptr : boxes_[pick(boxes_.size())].get();
                agent.move_to(next_socket(box), box);
            }
            break;
        case 3: {
            int region = 1 + static_cast<int>(pick(static_cast<std::size_t>(relays_.regions())));
            relays_.set_alive(region, false);
            world_.after(std::chrono::seconds{1 + pick(60)}, [region, this] { relays_.set_alive(region, true); });
            break;
        }
        case 4:
            internet_.lose(0.01 * static_cast<double>(pick(20)), dice_());
            break;
        default:
            break; // a quiet second
        }
        control_.publish();
    }

    static bool could_be_direct(const Agent& a, const Agent& b) {
        if (a.behind() == nullptr || b.behind() == nullptr || a.behind() == b.behind()) return true;
        return a.behind()->kind() == Nat::Kind::Easy && b.behind()->kind() == Nat::Kind::Easy;
    }

    void expect_that_they_reach_each_other(const std::vector<std::pair<Agent*, Agent*>>& pairs) {
        constexpr int kRounds = 40; // of half a second
        auto settled = [](const Agent& a, const Agent& b) {
            return !could_be_direct(a, b) || (a.trusts_path_to(b) && b.trusts_path_to(a));
        };
        for (int round = 0; round < kRounds; ++round) {
            bool all = true;
            for (auto [a, b] : pairs) {
                a->send_packet(*b);
                b->send_packet(*a);
                all = all && settled(*a, *b);
            }
            if (all && round >= 2) break;
            world_.run_for(500ms);
            control_.publish();
        }
        world_.run_for(200ms); // nothing is under way now
        for (auto [a, b] : pairs) {
            EXPECT_TRUE(settled(*a, *b)) << describe(*a) << " and " << describe(*b);
            std::size_t before = b->packets_from(*a) + a->packets_from(*b);
            a->send_packet(*b);
            b->send_packet(*a);
            world_.run_for(100ms);
            EXPECT_EQ(b->packets_from(*a) + a->packets_from(*b), before + 2) << describe(*a) << " to " << describe(*b);
            ++(could_be_direct(*a, *b) ? direct : relayed);
        }
    }
    static std::string describe(const Agent& agent) {
        const char* kind = agent.behind() == nullptr                   ? "in public"
                           : agent.behind()->kind() == Nat::Kind::Easy ? "behind an easy NAT"
                                                                       : "behind a hard NAT";
        return fmt::format("agent {} at {} {}", agent.id(), agent.socket().text(), kind);
    }

    std::mt19937 dice_;
    World world_;
    Internet internet_{world_, 10ms};
    Relays relays_{world_, 20ms, 3, kStun};
    Control control_{world_};
    std::string key_ = control_.auth_key("alice");
    std::uint32_t public_addresses_ = 0, private_addresses_ = 0;
    std::vector<std::unique_ptr<Nat>> boxes_;
    std::vector<std::unique_ptr<Agent>> agents_;
};

TEST(Chaos, SmallTailnetsFindThemselvesAgain) {
    for (unsigned seed = 1; seed <= 20 && !testing::Test::HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        Chaos chaos{seed, 16};
        chaos.rage(5min);
        chaos.expect_that_all_reach_all();
    }
}

TEST(Chaos, TwoHundredAgentsFindEachOtherAgain) {
    Chaos chaos{4711, 200};
    chaos.rage(2min);
    bool all = std::getenv("TAILRACE_SIM_ALL_PAIRS") != nullptr; // a minute
    chaos.expect_that_all_reach_all(all ? 1 : 9);
    EXPECT_EQ(chaos.direct + chaos.relayed, all ? 200u * 199 / 2 : 11 * 200u + 100);
    EXPECT_GT(chaos.direct, chaos.relayed);
    EXPECT_GT(chaos.relayed, 200u);
}

} // namespace
} // namespace tailrace::sim
