#include "agent/app_connector/app_connector.hpp"
#include "agent/cli/commands.hpp"
#include "agent/engine/wanted.hpp"
#include "base/bytes.hpp"
#include "base/text.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>

using namespace tailrace;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::UnorderedElementsAre;

namespace {

IpPrefix net(std::string_view text) {
    return *IpPrefix::parse(text);
}
std::vector<IpPrefix> nets(std::initializer_list<const char*> texts) {
    std::vector<IpPrefix> out;
    for (const char* text : texts) out.push_back(net(text));
    return out;
}

struct Record {
    std::string name, value; ///< an address, or the canonical name
};

void write_name(Writer& out, std::string_view name) {
    for (std::string_view label : split(name, '.')) {
        out.u8(static_cast<std::uint8_t>(label.size()));
        out.text(label);
    }
    out.u8(0);
}

Bytes answer(const std::vector<Record>& records, std::uint16_t dns_class = 1, std::uint16_t flags = 0x8180) {
    Writer out;
    for (std::uint16_t part : {std::uint16_t{7}, flags, std::uint16_t{1}, static_cast<std::uint16_t>(records.size()),
                               std::uint16_t{0}, std::uint16_t{0}})
        out.be16(part);
    write_name(out, records.empty() ? "example.com" : records.front().name);
    out.be16(1);
    out.be16(1);
    for (const Record& record : records) {
        auto address = IpAddress::parse(record.value);
        Writer data;
        if (address)
            data.bytes(address->bytes());
        else
            write_name(data, record.value);
        write_name(out, record.name);
        out.be16(!address ? 5 : address->is_v4() ? 1 : 28);
        out.be16(dns_class);
        out.be32(60);
        out.be16(static_cast<std::uint16_t>(data.view().size()));
        out.bytes(data.view());
    }
    return out.take();
}

AppConnectorConfig config(std::vector<std::string> domains, std::vector<IpPrefix> routes = {}) {
    return {std::move(domains), std::move(routes)};
}
AppConnector connector(std::vector<std::string> domains, std::vector<IpPrefix> routes = {}) {
    AppConnector out;
    out.configure(config(std::move(domains), std::move(routes)), true);
    return out;
}

RawJson entry(std::string connectors, std::string domains, std::string routes = "[]") {
    return {fmt::format(R"({{"name":"n","connectors":{},"domains":{},"routes":{}}})", connectors, domains, routes)};
}

TEST(AppConnectorConfigTest, TakesTheEntriesForAllConnectorsAndForItsTags) {
    auto read = app_connector_config(
        {entry(R"(["*"])", R"(["Example.COM","*.example.com","example.com"])", R"(["10.0.0.0/8"])"),
         entry(R"(["tag:mine"])", R"(["mine.test."])", R"(["10.0.0.0/8","fd00::/64"])"),
         entry(R"(["tag:other"])", R"(["other.test"])", R"(["192.168.0.0/16"])"),
         {"{}"}},
        {"tag:a", "tag:mine"});
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_THAT(read->domains, ElementsAre("*.example.com", "example.com", "mine.test"));
    EXPECT_EQ(read->routes, nets({"10.0.0.0/8", "fd00::/64"}));
}

TEST(AppConnectorConfigTest, OffersNeitherEverythingNorWhatEndsAtThisHost) {
    auto read = app_connector_config(
        {entry(
            R"(["*"])", "[]",
            R"(["0.0.0.0/0","::/0","127.0.0.0/8","126.0.0.0/7","::1/128","224.0.0.0/8","ff02::/16","10.1.2.3/8","10.0.0.0/8"])")},
        {});
    ASSERT_TRUE(read);
    EXPECT_EQ(read->routes, nets({"10.0.0.0/8"}));
}

TEST(AppConnectorConfigTest, SaysWhatItDoesNotUnderstand) {
    EXPECT_FALSE(app_connector_config({{"[]"}}, {}));
    EXPECT_FALSE(app_connector_config({entry(R"(["*"])", "[]", R"(["10.0.0.0"])")}, {}));
}

TEST(AppConnectorTest, OffersTheRoutesOfThePolicyAtOnce) {
    EXPECT_EQ(connector({}, nets({"10.0.0.0/8"})).routes_beside(nets({"192.168.7.0/24"})),
              nets({"192.168.7.0/24", "10.0.0.0/8"}));
}

TEST(AppConnectorTest, OffersWhatItsNamesResolveTo) {
    AppConnector it = connector({"example.com"});
    EXPECT_TRUE(it.observe(answer({{"EXAMPLE.com", "198.51.100.1"}, {"example.com", "2001:db8::1"}})));
    EXPECT_EQ(it.routes_beside({}), nets({"198.51.100.1/32", "2001:db8::1/128"}));
    EXPECT_FALSE(it.observe(answer({{"example.com", "198.51.100.1"}}))) << "that is known";
    EXPECT_FALSE(it.observe(answer({{"www.example.com", "198.51.100.2"}, {"example.org", "198.51.100.3"}})));
    EXPECT_EQ(it.routes_beside(it.routes_beside({})), it.routes_beside({}));
}

TEST(AppConnectorTest, AWildcardIsWhatIsBelowIt) {
    AppConnector it = connector({"*.example.com"});
    EXPECT_FALSE(it.observe(answer({{"example.com", "198.51.100.1"}})));
    EXPECT_FALSE(it.observe(answer({{"badexample.com", "198.51.100.1"}})));
    EXPECT_TRUE(it.observe(answer({{"a.b.example.com", "198.51.100.1"}})));
    EXPECT_THAT(it.routes().domains, ElementsAre(testing::Key("a.b.example.com")));
    EXPECT_THAT(it.routes().wildcards, ElementsAre("example.com"));
}

TEST(AppConnectorTest, GoesBackAlongAliases) {
    AppConnector it = connector({"app.example.com"});
    std::vector<Record> records{
        {"app.example.com", "a.cdn.test"}, {"a.cdn.test", "b.cdn.test"}, {"b.cdn.test", "198.51.100.1"}};
    EXPECT_TRUE(it.observe(answer(records)));
    EXPECT_THAT(it.routes().domains,
                ElementsAre(testing::Pair("app.example.com", ElementsAre(*IpAddress::parse("198.51.100.1")))));
    std::ranges::reverse(records);
    records.front().value = "198.51.100.2";
    EXPECT_TRUE(it.observe(answer(records))) << "in any order";
}

TEST(AppConnectorTest, DoesNotFollowAliasesForEver) {
    AppConnector it = connector({"app.example.com"});
    EXPECT_FALSE(it.observe(answer({{"a.test", "b.test"}, {"b.test", "a.test"}, {"a.test", "198.51.100.1"}})));
    std::vector<Record> chain{{"app.example.com", "0.test"}};
    for (int i = 0; i < 20; ++i) chain.push_back({fmt::format("{}.test", i), fmt::format("{}.test", i + 1)});
    chain.push_back({"20.test", "198.51.100.1"});
    EXPECT_FALSE(it.observe(answer(chain)));
}

TEST(AppConnectorTest, OffersNothingThatIsThisHostsOrNear) {
    AppConnector it = connector({"example.com"});
    for (const char* address :
         {"127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "169.254.169.254", "100.64.0.7", "100.100.100.100",
          "100.115.92.1", "::", "::1", "ff02::1", "fe80::1", "fd7a:115c:a1e0::7", "::ffff:198.51.100.1"})
        EXPECT_FALSE(it.observe(answer({{"example.com", address}}))) << address;
    EXPECT_THAT(it.routes_beside({}), IsEmpty());
    EXPECT_TRUE(it.observe(answer({{"example.com", "10.0.0.1"}}))) << "a network of its own is what many are for";
}

TEST(AppConnectorTest, LearnsFromAnswersOnly) {
    AppConnector it = connector({"example.com"});
    EXPECT_FALSE(it.observe({}));
    EXPECT_FALSE(it.observe(answer({{"example.com", "198.51.100.1"}}, 3))) << "class CHAOS";
    EXPECT_FALSE(it.observe(answer({{"example.com", "198.51.100.1"}}, 1, 0x0100))) << "a question";
    Bytes cut = answer({{"example.com", "198.51.100.1"}});
    cut.pop_back();
    EXPECT_FALSE(it.observe(cut));
}

TEST(AppConnectorTest, WhatIsCoveredNeedsNoRouteOfItsOwn) {
    AppConnector it = connector({"example.com"});
    it.observe(answer({{"example.com", "198.51.100.1"}, {"example.com", "203.0.113.1"}}));
    EXPECT_EQ(it.routes_beside(nets({"198.51.100.0/24"})), nets({"198.51.100.0/24", "203.0.113.1/32"}));
    EXPECT_THAT(it.routes_beside(nets({"0.0.0.0/0", "::/0"})), SizeIs(4)) << "an exit node is another thing";
}

TEST(AppConnectorTest, ARouteOfThePolicyReplacesTheAddressesInIt) {
    AppConnector it = connector({"example.com"});
    it.observe(
        answer({{"example.com", "198.51.100.1"}, {"example.com", "198.51.100.2"}, {"example.com", "203.0.113.1"}}));
    auto routes = it.routes_beside({});
    it.configure(config({"example.com"}, nets({"198.51.100.0/24"})), false);
    EXPECT_THAT(it.routes_beside(routes), UnorderedElementsAre(net("198.51.100.0/24"), net("203.0.113.1/32")));
    it.configure(config({"example.com"}, nets({"203.0.113.1/32"})), false);
    EXPECT_THAT(it.routes_beside(nets({"203.0.113.1/32"})), Contains(net("203.0.113.1/32")));
}

TEST(AppConnectorTest, TakesBackWhatIsNotAskedForAnyMoreWhereItMay) {
    for (bool take_back : {true, false}) {
        AppConnector it;
        it.configure(config({"a.test", "b.test", "*.c.test"}, nets({"10.0.0.0/8"})), take_back);
        it.observe(answer({{"a.test", "198.51.100.1"}, {"a.test", "198.51.100.9"}}));
        it.observe(answer({{"b.test", "198.51.100.2"}, {"b.test", "198.51.100.9"}}));
        it.observe(answer({{"x.c.test", "198.51.100.3"}}));
        auto before = it.routes_beside(nets({"192.168.7.0/24"}));
        EXPECT_THAT(before, SizeIs(6));
        it.configure(config({"b.test", "*.c.test"}), take_back);
        auto after = it.routes_beside(before);
        if (take_back)
            EXPECT_THAT(after, UnorderedElementsAre(net("192.168.7.0/24"), net("198.51.100.2/32"),
                                                    net("198.51.100.3/32"), net("198.51.100.9/32")));
        else
            EXPECT_EQ(after, before);
        it.configure(config({"b.test", "*.c.test"}), take_back);
        EXPECT_EQ(it.routes_beside(before), after) << "until it is done";
        it.routes_are_saved();
        EXPECT_EQ(it.routes_beside(nets({"198.51.100.1/32"})).front(), net("198.51.100.1/32"))
            << "by hand it may be offered";
    }
}

TEST(AppConnectorTest, KnowsEverythingAgainAfterARestart) {
    AppConnector it = connector({"*.example.com"}, nets({"10.0.0.0/8"}));
    it.observe(answer({{"a.example.com", "198.51.100.1"}}));
    std::string text = write_app_connector_routes(it.routes());
    EXPECT_EQ(text,
              R"({"Control":["10.0.0.0/8"],"Domains":{"a.example.com":["198.51.100.1"]},"Wildcards":["example.com"]})");
    AppConnector again;
    again.restore(*parse_app_connector_routes(text));
    EXPECT_EQ(again.routes(), it.routes());
    EXPECT_EQ(again.routes_beside({}), it.routes_beside({}));
    again.configure(config({}), true);
    EXPECT_THAT(again.routes_beside(it.routes_beside({})), IsEmpty());
    again.restore(*parse_app_connector_routes(R"({"Domains":{"a.test":["127.0.0.1","198.51.100.1","198.51.100.1"]}})"));
    EXPECT_EQ(again.routes_beside({}), nets({"198.51.100.1/32"}));
}

TEST(AppConnectorTest, RoutesThatSomebodyChoseStandUntilANameIsAskedForAgain) {
    AppConnector it = connector({"example.com"}, nets({"10.0.0.0/8"}));
    it.observe(answer({{"example.com", "198.51.100.1"}}));
    it.forget_learned();
    EXPECT_EQ(it.routes_beside({}), nets({"10.0.0.0/8"}));
    EXPECT_TRUE(it.observe(answer({{"example.com", "198.51.100.1"}})));
}

TEST(AppConnectorTest, HoldsSoManyAndNoMore) {
    AppConnector it = connector({"*.example.com"});
    std::uint32_t at = 0x0b000000;
    for (std::size_t i = 0; i < AppConnector::kMostAddresses + 500; i += 100) {
        std::vector<Record> records;
        for (int k = 0; k < 100; ++k) records.push_back({fmt::format("{}.example.com", i), IpAddress::v4(++at).text()});
        it.observe(answer(records));
    }
    EXPECT_THAT(it.routes_beside({}), SizeIs(AppConnector::kMostAddresses));
    EXPECT_TRUE(it.is_full());
    for (std::size_t i = 0; i < AppConnector::kMostNames + 10; ++i)
        it.observe(answer({{fmt::format("n{}.example.com", i), "12.0.0.1"}}));
    EXPECT_LE(it.routes().domains.size(), AppConnector::kMostNames);
}

TEST(AppConnectorTest, PeersMayAskForNamesWhereTheyMayReachTheInternet) {
    Prefs prefs;
    auto zero = *IpAddress::parse("0.0.0.0");
    auto has_zero = [&] {
        auto found = local_nets({net("100.64.0.1/32")}, prefs, {});
        return std::ranges::any_of(found, [&](const IpPrefix& one) { return one.contains(zero); });
    };
    EXPECT_FALSE(has_zero());
    prefs.app_connector.advertise = true;
    EXPECT_TRUE(has_zero());
}

TEST(AppConnectorTest, ShowsWhatItHasLearned) {
    using cli::AppConnectorView;
    AppConnectorRoutes routes;
    EXPECT_EQ(cli::app_connector_text(routes, AppConnectorView::Counts), "");
    EXPECT_EQ(cli::app_connector_text(routes, AppConnectorView::Map), "{}\n");
    routes.control = nets({"10.0.0.0/8"});
    routes.domains["long.example.com"] = {};
    routes.domains["b.test"] = {*IpAddress::parse("198.51.100.1")};
    routes.domains["a.test"] = {*IpAddress::parse("198.51.100.1")};
    EXPECT_EQ(cli::app_connector_text(routes, AppConnectorView::Counts),
              "a.test           1\nb.test           1\nlong.example.com 0\n");
    EXPECT_EQ(cli::app_connector_text(routes, AppConnectorView::Map),
              "{\"a.test\":[\"198.51.100.1\"],\"b.test\":[\"198.51.100.1\"],\"long.example.com\":[]}\n");
    routes.domains.erase("a.test");
    routes.domains.erase("long.example.com");
    EXPECT_EQ(cli::app_connector_text(routes, AppConnectorView::All),
              "Learned Routes\n==============\n{\n   \"b.test\": [\n     \"198.51.100.1\"\n   ]\n }\n\n"
              "Routes from Policy\n==================\n[\n   \"10.0.0.0/8\"\n ]\n\n");
}

} // namespace
