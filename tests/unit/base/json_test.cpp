#include "base/json/json.hpp"

#include "base/net.hpp"
#include "base/time.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

struct Inner {
    std::int64_t id = 0;
    std::string name;
    bool operator==(const Inner&) const = default;
};
struct Outer {
    std::int64_t id = 0;
    std::uint16_t port = 0;
    std::string text;
    bool flag = false;
    std::optional<bool> online;
    std::vector<Inner> inner;
    std::optional<std::vector<IpPrefix>> allowed;
    std::map<std::int64_t, std::string> regions;
    Bytes signature;
    WallTime when;
    IpAddress address;
    RawJson raw;
    double latency = 0;
    Boxed<Inner> boxed;
};

} // namespace

template <>
struct JsonFields<Inner> {
    static constexpr auto fields = field_table(field("ID", &Inner::id), field("Name", &Inner::name, Omit::Empty));
};
template <>
struct JsonFields<Outer> {
    static constexpr auto fields =
        field_table(field("ID", &Outer::id), field("Port", &Outer::port, Omit::Empty),
                    field("Text", &Outer::text, Omit::Empty), field("Flag", &Outer::flag, Omit::Empty),
                    field("Online", &Outer::online, Omit::Empty), field("Inner", &Outer::inner, Omit::Empty),
                    field("AllowedIPs", &Outer::allowed, Omit::Zero), field("Regions", &Outer::regions, Omit::Empty),
                    field("Signature", &Outer::signature), field("When", &Outer::when),
                    field("Address", &Outer::address, Omit::Zero), field("Raw", &Outer::raw, Omit::Zero),
                    field("Latency", &Outer::latency, Omit::Empty), field("Boxed", &Outer::boxed, Omit::Zero));
};

namespace {

TEST(Json, WritesZeroValuesAsGoDoes) {
    EXPECT_EQ(json::write(Outer{}), R"({"ID":0,"Signature":null,"When":"0001-01-01T00:00:00Z"})");
}

TEST(Json, WhatIsBoxedIsThereOrNot) {
    auto with = json::parse<Outer>(R"({"ID":1,"Boxed":{"ID":7,"Name":"x"}})");
    ASSERT_TRUE(with);
    ASSERT_TRUE(with->boxed);
    EXPECT_EQ(*with->boxed, (Inner{7, "x"}));
    EXPECT_EQ(json::write(*with),
              R"({"ID":1,"Signature":null,"When":"0001-01-01T00:00:00Z","Boxed":{"ID":7,"Name":"x"}})");
    Boxed<Inner> copy = with->boxed;
    EXPECT_EQ(copy, with->boxed);
    copy->id = 8;
    EXPECT_NE(copy, with->boxed) << "a copy has a value of its own";
    copy.reset();
    EXPECT_NE(copy, with->boxed);
    EXPECT_EQ(copy, Boxed<Inner>{});
    auto without = json::parse<Outer>(R"({"Boxed":null})");
    ASSERT_TRUE(without);
    EXPECT_FALSE(without->boxed);
}

TEST(Json, OmitZeroKeepsAnEmptyList) {
    Outer outer;
    outer.allowed.emplace();
    outer.online = false;
    EXPECT_EQ(json::write(outer),
              R"({"ID":0,"Online":false,"AllowedIPs":[],"Signature":null,"When":"0001-01-01T00:00:00Z"})");
}

TEST(Json, GoesBothWays) {
    constexpr std::string_view kText =
        R"({"ID":5,"Port":7,"Text":"a\u003cb","Flag":true,"Online":true,"Inner":[{"ID":1,"Name":"x"}],"AllowedIPs":["10.0.0.0/8"],)"
        R"("Regions":{"1":"one","900":"lab"},"Signature":"YWJj","When":"2026-01-02T03:04:05Z","Address":"::1","Raw":{"a":[1]},"Latency":0.000637752})";
    auto outer = json::parse<Outer>(kText);
    ASSERT_TRUE(outer) << outer.error().message();
    EXPECT_EQ(outer->text, "a<b");
    EXPECT_EQ(json::write(*outer), kText);
}

TEST(Json, MatchesNamesIgnoringCaseAndIgnoresTheUnknown) {
    auto outer = json::parse<Outer>(R"({"id":3,"TEXT":"t","nope":[{}]})");
    ASSERT_TRUE(outer);
    EXPECT_EQ(outer->id, 3);
    EXPECT_EQ(outer->text, "t");
}

TEST(Json, NullIsNeverAnError) {
    auto outer = json::parse<Outer>(
        R"({"ID":null,"Text":null,"Online":null,"Inner":null,"AllowedIPs":null,"Regions":null,"Signature":null,"When":null,"Address":null})");
    ASSERT_TRUE(outer) << outer.error().message();
    EXPECT_FALSE(outer->allowed);
}

TEST(Json, IntegersMustBePlainAndInRange) {
    EXPECT_FALSE(json::parse<Outer>(R"({"ID":1.0})"));
    EXPECT_FALSE(json::parse<Outer>(R"({"ID":1e2})"));
    EXPECT_FALSE(json::parse<Outer>(R"({"Port":65536})"));
    EXPECT_EQ(json::parse<Outer>(R"({"Inner":[{"ID":"x"}]})").error().message(),
              "Inner: [0]: ID: expected an integer in range, got \"x\"");
}

TEST(Json, SaysWhereATruncatedDocumentEnds) {
    EXPECT_EQ(json::parse<Outer>(R"({"ID":1)").error().message(), "JSON ends early, after 7 bytes");
    EXPECT_FALSE(json::parse<Outer>(""));
    EXPECT_FALSE(json::parse<Outer>("{} x"));
    EXPECT_TRUE(json::parse<Outer>("{}\n"));
    EXPECT_FALSE(json::parse<Outer>(std::string(100000, '[')));
}

TEST(Json, EscapesLikeGo) {
    EXPECT_EQ(json::write(std::string("a&\x01\xe2\x80\xa8\"\\\n")), "\"a\\u0026\\u0001\\u2028\\\"\\\\\\n\"");
    EXPECT_EQ(json::write(1e-7), "1e-7");
}

} // namespace
} // namespace tailrace
