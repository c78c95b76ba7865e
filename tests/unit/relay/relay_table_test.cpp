#include "relay/table/relay_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace::relay {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

NodeKey key(unsigned char fill) {
    std::array<std::byte, 32> raw;
    raw.fill(std::byte{fill});
    return NodeKey{raw};
}
const NodeKey kAlice = key(1), kBob = key(2);
const ConnectionRef kWatcher{1, 50, 7}, kLink{0, 90, 1}, kOtherLink{1, 91, 1};

class RelayTableTest : public ::testing::Test {
protected:
    void add(Slot slot, const NodeKey& who) {
        table.add(slot, {who, slot + 1000, *Endpoint::parse("192.0.2.7:40000")});
    }
    Slot active(const NodeKey& who) {
        Route route = table.route(who);
        EXPECT_EQ(route.kind, Route::Kind::Local);
        return route.local;
    }
    bool is_unknown(const NodeKey& who) { return table.route(who).kind == Route::Kind::Unknown; }
    // "to slot: type key" of each notice, and "left key".
    std::vector<std::string> actions() {
        std::vector<std::string> out;
        for (const TableAction& action : table.take_actions()) {
            if (const auto* left = std::get_if<KeyLeft>(&action)) {
                out.push_back(fmt::format("left {}", static_cast<int>(left->key.raw()[0])));
                continue;
            }
            const Tell& tell = std::get<Tell>(action);
            out.push_back(fmt::format("{}: {} {}", tell.to.slot,
                                      tell.type == derp::FrameType::PeerGone ? "gone" : "present",
                                      static_cast<int>(tell.payload.at(0))));
        }
        return out;
    }
    RelayTable table{0};
};

TEST_F(RelayTableTest, KnowsWhoIsHere) {
    EXPECT_TRUE(is_unknown(kAlice));
    add(3, kAlice);
    EXPECT_EQ(active(kAlice), 3U);
    table.remove(3);
    EXPECT_TRUE(is_unknown(kAlice));
    EXPECT_THAT(actions(), ElementsAre("left 1"));
}

TEST_F(RelayTableTest, TheNewestConnectionOfAKeyIsActiveUntilAnotherSpeaks) {
    add(0, kAlice);
    add(1, kAlice);
    EXPECT_EQ(active(kAlice), 1U);
    EXPECT_EQ(table.duplicate_keys(), 1U);
    table.on_frame(0);
    EXPECT_EQ(active(kAlice), 0U);
    table.on_frame(1);
    EXPECT_EQ(active(kAlice), 1U);
}

TEST_F(RelayTableTest, ClosingTheNewerMakesTheOlderActiveWithoutANotice) {
    add(0, kAlice);
    add(1, kAlice);
    table.remove(1);
    EXPECT_EQ(active(kAlice), 0U);
    EXPECT_EQ(table.duplicate_keys(), 0U);
    EXPECT_THAT(actions(), IsEmpty());
    table.remove(0);
    EXPECT_THAT(actions(), ElementsAre("left 1"));
}

TEST_F(RelayTableTest, OfThreeSilentOnesClosingTheThirdMakesTheFirstActive) {
    add(0, kAlice);
    add(1, kAlice);
    add(2, kAlice);
    table.remove(2);
    EXPECT_EQ(active(kAlice), 0U);
}

TEST_F(RelayTableTest, TheLastSpeakerIsNextInLine) {
    add(0, kAlice);
    add(1, kAlice);
    add(2, kAlice);
    table.on_frame(1);
    table.on_frame(2);
    table.remove(2);
    EXPECT_EQ(active(kAlice), 1U);
}

TEST_F(RelayTableTest, ADepartureIsToldToThoseWhoWereSentSomethingAndEachTimeAgain) {
    add(0, kAlice);
    add(1, kBob);
    table.on_key_left(kAlice);
    EXPECT_THAT(actions(), IsEmpty()) << "bob has heard nothing of alice";
    table.on_delivered(1, kAlice);
    table.on_delivered(1, kAlice);
    table.on_key_left(kAlice);
    EXPECT_THAT(actions(), ElementsAre("1: gone 1"));
    table.on_key_left(kAlice);
    EXPECT_THAT(actions(), IsEmpty());
    table.on_delivered(1, kAlice);
    table.on_key_left(kAlice);
    EXPECT_THAT(actions(), ElementsAre("1: gone 1"));
}

TEST_F(RelayTableTest, AReceiverThatHasLeftIsNotTold) {
    add(0, kAlice);
    add(1, kBob);
    table.on_delivered(1, kAlice);
    table.remove(1);
    (void)actions();
    table.on_key_left(kAlice);
    EXPECT_THAT(actions(), IsEmpty());
}

TEST_F(RelayTableTest, WatchersGetAFloodAndThenEachChange) {
    add(0, kAlice);
    table.add_watcher(kWatcher);
    EXPECT_THAT(actions(), ElementsAre("50: present 1"));
    add(1, kBob);
    add(2, kBob); // a second connection is told again
    EXPECT_THAT(actions(), ElementsAre("50: present 2", "50: present 2"));
    table.remove(1);
    EXPECT_THAT(actions(), IsEmpty());
    table.remove(2);
    EXPECT_THAT(actions(), ElementsAre("50: gone 2", "left 2"));
    table.remove_watcher(kWatcher);
    table.remove(0);
    EXPECT_THAT(actions(), ElementsAre("left 1"));
}

TEST_F(RelayTableTest, TheEarliestForwarderIsUsedAndLocalClientsComeFirst) {
    table.add_forwarder(kBob, kLink);
    table.add_forwarder(kBob, kOtherLink);
    table.add_forwarder(kBob, kLink); // presence is repeated for duplicates
    EXPECT_EQ(table.route(kBob).kind, Route::Kind::Forward);
    EXPECT_EQ(table.route(kBob).link, kLink);
    add(1, kBob);
    EXPECT_EQ(active(kBob), 1U);
    table.remove(1);
    EXPECT_THAT(actions(), IsEmpty()) << "bob is still reachable through the mesh";
    table.remove_forwarder(kBob, kLink);
    EXPECT_EQ(table.route(kBob).link, kOtherLink);
    table.remove_forwarder(kBob, kOtherLink);
    EXPECT_TRUE(is_unknown(kBob));
    EXPECT_THAT(actions(), ElementsAre("left 2"));
}

TEST_F(RelayTableTest, ALostLinkTakesAllItsKeysAlong) {
    table.add_forwarder(kAlice, kLink);
    table.add_forwarder(kBob, kLink);
    table.add_forwarder(kBob, kOtherLink);
    table.remove_link(kLink);
    EXPECT_TRUE(is_unknown(kAlice));
    EXPECT_EQ(table.route(kBob).link, kOtherLink);
    EXPECT_THAT(actions(), ElementsAre("left 1"));
    EXPECT_EQ(table.forwarded_keys(), 1U);
}

TEST_F(RelayTableTest, NamesAllConnectionsOfAKey) {
    EXPECT_THAT(table.connections_of(kAlice), IsEmpty());
    add(4, kAlice);
    EXPECT_THAT(table.connections_of(kAlice), ElementsAre(4));
    add(5, kAlice);
    EXPECT_THAT(table.connections_of(kAlice), UnorderedElementsAre(4, 5));
}

TEST(HomeCore, SpreadsKeysAndStays) {
    std::vector<int> counts(4);
    for (unsigned i = 0; i < 4000; ++i) {
        std::array<std::byte, 32> raw{};
        raw[0] = static_cast<std::byte>(i);
        raw[1] = static_cast<std::byte>(i >> 8);
        std::uint32_t core = home_core(NodeKey{raw}, 4);
        ASSERT_LT(core, 4U);
        EXPECT_EQ(core, home_core(NodeKey{raw}, 4));
        ++counts[core];
    }
    for (int count : counts) EXPECT_GT(count, 800);
}

} // namespace
} // namespace tailrace::relay
