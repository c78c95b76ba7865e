#include "agent/path/own_endpoints.hpp"
#include "agent/relay/relay_addresses.hpp"

#include "tests/unit/agent/relayed_path.hpp"

namespace tailrace {
namespace {

TEST(OutsideEndpoints, ABetOnAForwardedPortOnlyBehindAHardNat) { // 57
    NetReport report;
    report.global_v4 = *Endpoint::parse("203.0.113.9:5000");
    report.global_v6 = *Endpoint::parse("[2001:db8::9]:41641");
    report.other_globals = {kOther};
    const OwnEndpoint seen4{*report.global_v4, 2}, seen6{*report.global_v6, 2}, other{kOther, 2}, bet{kPublic, 4};
    const OwnEndpoint forwarded{*Endpoint::parse("203.0.113.9:7"), 3};
    EXPECT_THAT(outside_endpoints(std::nullopt, report, 41641), ElementsAre(seen4, seen6, other)) << "not known";
    report.mapping_varies_by_destination = false;
    EXPECT_THAT(outside_endpoints(std::nullopt, report, 41641), ElementsAre(seen4, seen6, other));
    report.mapping_varies_by_destination = true;
    EXPECT_THAT(outside_endpoints(forwarded.endpoint, report, 41641), ElementsAre(forwarded, seen4, seen6, other, bet));
    EXPECT_THAT(outside_endpoints(std::nullopt, report, 0), ElementsAre(seen4, seen6, other)) << "no port of our own";
    report.global_v4.reset();
    EXPECT_THAT(outside_endpoints(std::nullopt, report, 41641), ElementsAre(seen6, other));
}

TEST(EndpointMemoryTest, KeepsForFiveMinutesWhatWasSeen) {
    EndpointMemory memory;
    const OwnEndpoint first{kPublic, 2}, second{kOther, 2};
    memory.note(at(0s), first);
    memory.note(at(10s), second);
    EXPECT_THAT(memory.recent(at(310s)), ElementsAre(second, first));
    EXPECT_THAT(memory.recent(at(311s)), ElementsAre(second));
    memory.note(at(311s), first); // again
    EXPECT_THAT(memory.recent(at(312s)), ElementsAre(first, second));
    EXPECT_THAT(memory.recent(at(1000s)), IsEmpty());
}

TEST(EndpointMemoryTest, KeepsSixPortsOfAnAddress) {
    EndpointMemory memory;
    memory.note(at(0s), {kOther, 2});
    for (std::uint16_t port = 1; port <= 100; ++port) memory.note(at(1s), {{kPublic.address, port}, 2});
    auto recent = memory.recent(at(2s));
    ASSERT_EQ(recent.size(), EndpointMemory::kMostPerAddress + 1);
    EXPECT_EQ(recent.front().endpoint.port, 100);
    EXPECT_EQ(recent.back().endpoint, kOther);
    memory.clear();
    EXPECT_THAT(memory.recent(at(2s)), IsEmpty());
}

TEST(RelayAddressesTest, AreTheSameEachTimeAndNeverShared) {
    RelayAddresses first, second;
    std::set<IpAddress> seen;
    for (int i = 0; i < 5000; ++i) {
        IpAddress address = first.of(key(i));
        EXPECT_TRUE(RelayAddresses::range().contains(address));
        EXPECT_TRUE(seen.insert(address).second);
        EXPECT_EQ(first.peer_at(address), key(i));
        EXPECT_EQ(second.of(key(i)), address);
    }
    first.keep_only({key(3)});
    EXPECT_EQ(first.peer_at(second.of(key(4))), std::nullopt);
}

TEST(RelayAddressesTest, WhatAnEarlierAgentGaveComesFirst) {
    RelayAddresses addresses;
    IpAddress wished = RelayAddresses{}.of(kAlice);
    EXPECT_TRUE(addresses.adopt(key(2), wished));
    EXPECT_FALSE(addresses.adopt(key(3), wished));
    EXPECT_FALSE(addresses.adopt(key(3), *IpAddress::parse("127.0.0.1")));
    EXPECT_NE(addresses.of(kAlice), wished);
    EXPECT_EQ(addresses.of(key(2)), wished);
}

} // namespace
} // namespace tailrace
