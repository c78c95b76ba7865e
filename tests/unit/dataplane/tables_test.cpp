// The pure half of the data plane: filter rules to flat tables. That packets meet the right verdict is tests/bpf.
#include "policy/tables.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace tailrace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

IpAddress address(const std::string& text) {
    return *IpAddress::parse(text);
}
FilterRule rule(std::vector<std::string> sources, const std::string& to, PortRange ports) {
    FilterRule out;
    out.src_ips = std::move(sources);
    out.dst_ports = {{to, ports, false}};
    return out;
}
FilterInput input_with(std::vector<FilterRule> rules) {
    FilterInput input;
    input.rules = std::move(rules);
    input.own_addresses = {address("100.64.0.1")};
    return input;
}
std::string peer(int number) {
    return "100.64." + std::to_string(number / 250 + 1) + "." + std::to_string(number % 250);
}

TEST(Tables, PeersInTheSameRulesShareAClass) {
    std::vector<std::string> group;
    for (int i = 0; i < 500; ++i) group.push_back(peer(i));
    TableNumbers numbers;
    PolicyTables tables = compile_tables(input_with({rule(group, "100.64.0.1", {22, 22})}), numbers);
    EXPECT_EQ(tables.hosts.size(), 501u); // and our own address
    EXPECT_EQ(tables.pairs.size(), 1u);
    EXPECT_EQ(tables.rows.size(), 2u); // TCP and UDP
}

TEST(Tables, ARuleKeepsItsNumberWhenAPeerJoins) {
    TableNumbers numbers;
    auto rules = std::vector{rule({peer(1)}, "100.64.0.1", {22, 22}), rule({peer(2)}, "100.64.0.1", {80, 80})};
    auto before = numbers.rules(rules);
    rules.insert(rules.begin(), rule({peer(3)}, "100.64.0.1", {443, 443}));
    rules[1].src_ips.push_back(peer(4));
    auto after = numbers.rules(rules);
    EXPECT_EQ(after[1], before[0]);
    EXPECT_EQ(after[2], before[1]);
    EXPECT_NE(after[0], before[0]);
    EXPECT_NE(after[0], before[1]);
}

TEST(Tables, ASmallChangeLeavesTheOtherEntriesAlone) {
    TableNumbers numbers;
    std::vector<FilterRule> rules;
    for (int i = 0; i < 200; ++i)
        rules.push_back(rule({peer(i)}, "100.64.0.1", {static_cast<std::uint16_t>(1000 + i), 2000}));
    PolicyTables before = compile_tables(input_with(rules), numbers);
    rules[7].src_ips.push_back(peer(900));
    PolicyTables after = compile_tables(input_with(rules), numbers);
    std::size_t changed = 0;
    std::map<IpPrefix, std::uint32_t> classes;
    for (const auto& host : before.hosts) classes[host.prefix] = host.value.address_class;
    for (const auto& host : after.hosts)
        changed += !classes.count(host.prefix) || classes[host.prefix] != host.value.address_class;
    EXPECT_EQ(changed, 1u);
}

TEST(Tables, WhatDoesNotFitIsLeftOutAndNamed) {
    TableNumbers numbers;
    std::vector<std::string> many;
    for (int i = 0; i < 300; ++i) many.push_back(peer(i));
    TableLimits limits;
    limits.hosts = 100;
    PolicyTables tables =
        compile_tables(input_with({rule({peer(1)}, "100.64.0.1", {22, 22}), rule(many, "100.64.0.1", {80, 80}),
                                   rule({peer(2)}, "100.64.0.1", {443, 443})}),
                       numbers, limits);
    EXPECT_THAT(tables.left_out, ElementsAre(1u));
    EXPECT_EQ(tables.warnings.size(), 1u);
    EXPECT_LE(tables.hosts.size(), 100u);
    EXPECT_EQ(tables.rules.size(), 2u);
}

/// Two policies in a row that together need more numbers for port classes than a map's key has room for.
TEST(Tables, DestinationsOutsideTheLocalNetsAreNotStored) {
    TableNumbers numbers;
    PolicyTables tables = compile_tables(input_with({rule({"*"}, "10.0.0.0/8", PortRange::all())}), numbers);
    for (const auto& net : tables.nets) EXPECT_EQ(net.side, TR_SIDE_SOURCE) << net.prefix.text();
    EXPECT_THAT(tables.pairs, IsEmpty());
}

} // namespace
} // namespace tailrace
