// As many port classes as there are ports.
#include "policy/tables.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace tailrace {
namespace {

using ::testing::IsEmpty;

FilterInput input_with(FilterRule rule) {
    FilterInput input;
    input.rules = {std::move(rule)};
    input.own_addresses = {*IpAddress::parse("100.64.0.1")};
    return input;
}

TEST(PortClasses, AreNeverMixedUp) {
    // Ports 1 to `singles` one by one, the next ones in `pairs` ranges of two.
    auto many_ranges = [](std::uint32_t singles, std::uint32_t pairs) {
        FilterRule rule;
        rule.src_ips = {"100.64.1.1"};
        rule.ip_proto = {6};
        auto add = [&](std::uint32_t first, std::uint32_t last) {
            rule.dst_ports.push_back(
                {"100.64.0.1", {static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)}, false});
        };
        for (std::uint32_t port = 1; port <= singles; ++port) add(port, port);
        for (std::uint32_t i = 0; i < pairs; ++i) add(singles + 1 + 2 * i, singles + 2 + 2 * i);
        return rule;
    };
    TableNumbers numbers;
    for (auto [singles, pairs] : {std::pair{40000u, 0u}, {10000u, 27000u}, {40000u, 0u}}) {
        PolicyTables tables = compile_tables(input_with(many_ranges(singles, pairs)), numbers);
        EXPECT_THAT(tables.warnings, IsEmpty());
        std::map<std::uint16_t, std::uint32_t> ports_of;
        for (std::uint32_t port = 0; port < TR_PORTS; ++port) ++ports_of[tables.ports->class_of[port]];
        EXPECT_EQ(ports_of.size(), singles + pairs + 1); // each range a class of its own, and the rest
        EXPECT_EQ(ports_of[0], TR_PORTS - singles - 2 * pairs);
    }
}

TEST(PortClasses, WhenEveryPortIsInARangeOfItsOwnTheLastOneIsClosedAndNamed) {
    FilterRule all;
    all.src_ips = {"100.64.1.1"};
    all.ip_proto = {6};
    for (std::uint32_t port = 0; port < TR_PORTS; ++port)
        all.dst_ports.push_back(
            {"100.64.0.1", {static_cast<std::uint16_t>(port), static_cast<std::uint16_t>(port)}, false});
    TableNumbers numbers;
    TableLimits room;
    room.rows = 2 * TR_PORTS;
    PolicyTables tables = compile_tables(input_with(all), numbers, room);
    EXPECT_EQ(tables.warnings.size(), 1u);
    EXPECT_EQ(tables.ports->class_of[65535], 0);
    EXPECT_NE(tables.ports->class_of[65534], 0);
    EXPECT_EQ(tables.rows.size(), 65535u);
}

} // namespace
} // namespace tailrace
