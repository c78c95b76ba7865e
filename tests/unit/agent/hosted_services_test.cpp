#include "agent/cli/format.hpp"
#include "agent/cli/pref_flags.hpp"
#include "agent/coordination/hostinfo.hpp"
#include "agent/engine/wanted.hpp"
#include "agent/services/hosted_services.hpp"
#include "tests/unit/addresses.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

Prefs offering(std::vector<std::string> services) {
    Prefs prefs;
    prefs.advertise_services = std::move(services);
    return prefs;
}

wire::Node host_of(const char* service_host) {
    wire::Node self;
    self.id = 1;
    self.addresses = {prefix("100.64.0.1/32"), prefix("fd7a:115c:a1e0::1/128")};
    self.cap_map[kServiceHostCap] = {RawJson{service_host}};
    return self;
}

TEST(OfferedServices, AreHashedAsTheReferenceClientHashesThem) {
    wire::VipServices offered = offered_services(offering({"svc:web", "svc:db"}));
    EXPECT_THAT(offered.services,
                ElementsAre(wire::VipService{"svc:db", {"*"}, true}, wire::VipService{"svc:web", {"*"}, true}));
    // sha256sum of [{"Name":"svc:db","Ports":["*"],"Active":true},{"Name":"svc:web",...}] and a newline
    EXPECT_EQ(offered.hash, "be32a5b7aa02fefa75c40f34dd8bf39985a2636741cf7aa9e7c32954549329b1");
    EXPECT_EQ(hostinfo_for({}, offering({"svc:db", "svc:web"})).services_hash, offered.hash);
    EXPECT_EQ(offered_services(Prefs{}), wire::VipServices{}) << "who hosts none has no hash";
}

TEST(HostedServices, HaveTheAddressesThatControlGives) {
    const wire::Node self = host_of(R"({"svc:web":["100.64.0.9","fd7a:115c:a1e0::9"],"svc:db":["100.64.0.8"]})");
    HostedServices hosted = hosted_services(self, offering({"svc:web"}));
    EXPECT_THAT(hosted.addresses, ElementsAre(*IpAddress::parse("100.64.0.9"), *IpAddress::parse("fd7a:115c:a1e0::9")));
    EXPECT_THAT(hosted.notes, IsEmpty());
    EXPECT_THAT(hosted_services(self, Prefs{}).addresses, IsEmpty()) << "control alone makes nobody a host";
}

TEST(HostedServices, SaysWhatControlDoesNotLetItHost) {
    HostedServices hosted =
        hosted_services(host_of(R"({"svc:web":["100.64.0.9"]})"), offering({"svc:web", "svc:db", "svc:mail"}));
    EXPECT_THAT(hosted.addresses, ElementsAre(*IpAddress::parse("100.64.0.9")));
    EXPECT_THAT(hosted.notes, ElementsAre(HasSubstr("host svc:db, svc:mail, and control does not let it")));
}

TEST(HostedServices, TakesNoAddressThatWouldStayOrThatIsOurOwn) {
    HostedServices hosted = hosted_services(host_of(R"({"svc:web":["192.168.1.1","100.64.0.1","::ffff:100.64.0.9"]})"),
                                            offering({"svc:web"}));
    EXPECT_THAT(hosted.addresses, ElementsAre(*IpAddress::parse("100.64.0.9")));
    EXPECT_THAT(hosted.notes, ElementsAre(HasSubstr("192.168.1.1"), HasSubstr("100.64.0.1")));
    hosted = hosted_services(host_of(R"(["svc:web"])"), offering({"svc:web"}));
    EXPECT_THAT(hosted.addresses, IsEmpty());
    EXPECT_THAT(hosted.notes, ElementsAre(HasSubstr("is not understood")));
}

TEST(Wanted, AnswersAtTheAddressesOfItsServices) {
    wire::Node self = host_of(R"({"svc:web":["100.64.0.9","fd7a:115c:a1e0::9"]})");
    const IpPrefix v4 = prefix("100.64.0.9/32"), v6 = prefix("fd7a:115c:a1e0::9/128");
    auto wanted = [&](const Prefs& prefs) { return compute_wanted(self, {}, prefs, {}, WallTime::now()); };
    Wanted out = wanted(offering({"svc:web"}));
    EXPECT_THAT(out.router.quiet_addresses, AllOf(Contains(v4), Contains(v6)));
    EXPECT_THAT(out.router.routes, AllOf(Contains(v4), Contains(v6)));
    EXPECT_THAT(out.local_nets, AllOf(Contains(v4), Contains(v6)));
    EXPECT_THAT(out.addresses, ElementsAre(self.addresses[0], self.addresses[1])) << "nothing leaves from a service's";

    self.addresses.pop_back();
    out = wanted(offering({"svc:web"}));
    EXPECT_THAT(out.router.routes, AllOf(Contains(v4), Not(Contains(v6)))) << "this node has no IPv6";
    EXPECT_THAT(out.router.quiet_addresses, Not(Contains(v6)));
    EXPECT_THAT(out.local_nets, Not(Contains(v6)));

    out = wanted(offering({"svc:db"}));
    EXPECT_THAT(out.router.quiet_addresses, Not(Contains(v4)));
    EXPECT_THAT(out.router.routes, Not(Contains(v4)));
    EXPECT_THAT(out.local_nets, ElementsAre(self.addresses[0]));
    EXPECT_THAT(out.notes, Contains(HasSubstr("svc:db")));
}

TEST(Services, AreFoundByTheirNameInTheTailnet) {
    Status status;
    status.magic_dns_suffix = "tail.lab";
    EXPECT_THAT(cli::addresses_of_service(status, "web"), IsEmpty());
    status.extra_records = RawJson{
        R"([{"Name":"web.tail.lab","Value":"100.64.0.9"},{"Name":"web.tail.lab.","Type":"AAAA","Value":"fd7a:115c:a1e0::9"},
            {"Name":"db.tail.lab","Value":"100.64.0.8"},{"Name":"web","Type":"TXT","Value":"text"}])"};
    for (const char* name : {"web", "svc:web", "Web.tail.lab", "web.tail.lab."})
        EXPECT_THAT(cli::addresses_of_service(status, name),
                    ElementsAre(*IpAddress::parse("100.64.0.9"), *IpAddress::parse("fd7a:115c:a1e0::9")))
            << name;
    for (const char* name : {"", "mail", "tail.lab", "svc:", "b.tail.lab"})
        EXPECT_THAT(cli::addresses_of_service(status, name), IsEmpty()) << name;
}

TEST(PrefFlags, NamesServicesWithAndWithoutTheirPrefix) {
    auto set = [](const char* value) { return cli::prefs_of_set({{"advertise-services", value}}, Prefs{}); };
    auto two = set("svc:web, db,svc:web");
    ASSERT_TRUE(two);
    EXPECT_THAT(two->services(), ElementsAre("svc:db", "svc:web"));
    EXPECT_TRUE(check_prefs(*two));
    auto none = cli::prefs_of_set({{"advertise-services", ""}}, *two);
    ASSERT_TRUE(none);
    EXPECT_EQ(*none, Prefs{});
    for (const char* bad : {"svc:", "tag:web", "svc:Web", "svc:a.b", "-"}) EXPECT_FALSE(set(bad)) << bad;
    EXPECT_FALSE(check_prefs(offering({"web"})));
    EXPECT_FALSE(check_prefs(offering(std::vector<std::string>(1000, "svc:web"))));
}

} // namespace
} // namespace tailrace
