// Policies that nest too deep or are oddly spelled: a correct answer, or an error with its place and its cure. Those
// that are too large: tests/unit/large.
#include "policy/check.hpp"
#include "policy/hujson_format.hpp"
#include "tests/unit/policy/refusal.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

TEST(PolicyLimits, WhatNestsTooDeepIsASyntaxError) {
    EXPECT_THAT(refusal("{\"acls\": " + std::string(100'000, '[')), HasSubstr("nested deeper than 500 levels"));
}

TEST(PolicyLimits, EveryNetworkIsSpelledInOneWay) {
    const auto grant = [](const std::string& destination) {
        return refusal(R"({"grants": [{"src": ["*"], "dst": [")" + destination + R"("], "ip": ["*"]}]})");
    };
    EXPECT_THAT(grant("0.0.0.0/0"), HasSubstr("use \"*\" or \"autogroup:internet\""));
    EXPECT_THAT(grant("1.2.3.4/0"), HasSubstr("use \"*\" or \"autogroup:internet\"")); // host bits do not hide it
    for (const char* odd : {"0.0.0.0/00", "0/0", "::/00", "0.0/0", "00.0.0.0/0", "0.0.0.0/000"})
        EXPECT_THAT(grant(odd), EndsWith(": write 0.0.0.0/0, ::/0 or *")) << odd;
    EXPECT_THAT(grant("0.0.0.0/-0"), HasSubstr("invalid address"));
    for (const char* odd : {"::ffff:0.0.0.0/96", "::ffff:10.0.0.1", "0:0:0:0:0:ffff::/96"})
        EXPECT_THAT(grant(odd), HasSubstr("IPv4 addresses are written as ")) << odd;
    EXPECT_THAT(grant("10.0.0.0/33"), EndsWith("write prefixes as 192.0.2.0/24 or 2001:db8::/32"));
    EXPECT_THAT(refusal(R"({"hosts": {"all": "0/0"}})"), EndsWith(": write 0.0.0.0/0, ::/0 or *"));
    EXPECT_THAT(refusal(R"({"ipsets": {"ipset:all": ["0/0"]}})"), EndsWith(": write 0.0.0.0/0, ::/0 or *"));
    // Names keep the service's words.
    EXPECT_EQ(grant("%bogus%"), "line 1, column 36: dst=\"%bogus%\": \"%bogus%\": invalid address");
}

TEST(PolicyLimits, HostsCanNotPassForSomethingElse) {
    const auto host = [](const std::string& name) {
        return refusal(R"({"tagOwners": {"tag:web": []}, "hosts": {")" + name + R"(": "10.0.0.1"}})");
    };
    for (const char* name :
         {"tag:web", "group:ops", "autogroup:member", "a@b.c", "*", "10.0.0.0/8", "fd7a::1", "", "a b"})
        EXPECT_THAT(host(name), AllOf(StartsWith("line 1, column 42: hosts["), HasSubstr("host names can not contain")))
            << name;
    EXPECT_THAT(host("10.0.0.2"), HasSubstr("a host name can not be an address"));
    EXPECT_EQ(host("web"), "accepted");
}

TEST(PolicyLimits, PortsDoNotOverflow) {
    const auto ports = [](const std::string& ports) {
        return refusal(R"({"acls": [{"action": "accept", "src": ["*"], "dst": ["*:)" + ports + "\"]}]}");
    };
    for (const char* port : {"65536", "18446744073709551616", "18446744073709551638", "4294967318", "99999-99999"})
        EXPECT_THAT(ports(port), EndsWith("invalid first integer: ports are 1-65535")) << port;
    for (const char* port : {"1-65536", "22-18446744073709551616"})
        EXPECT_THAT(ports(port), EndsWith("invalid last integer: ports are 1-65535")) << port;
    EXPECT_THAT(ports("-1"), EndsWith("invalid first integer"));
    EXPECT_EQ(ports("1-65535"), "accepted");
}

TEST(PolicyLimits, OldAndNewNamesOfAFieldDoNotMeet) {
    const auto acl = [](const std::string& members) { return refusal("{\"acls\": [{" + members + "}]}"); };
    EXPECT_EQ(acl(R"("action": "accept", "src": ["*"], "users": ["a@b.c"], "dst": ["*:22"])"),
              "line 1, column 46: acls: \"users\" is the old name of \"src\": keep one of them, with everything in it");
    EXPECT_THAT(acl(R"("action": "accept", "Ports": ["*:22"], "DST": ["*:23"], "src": ["*"])"),
                HasSubstr("acls: \"Ports\" is the old name of \"DST\""));
    EXPECT_THAT(acl(R"("action": "accept", "src": ["*"], "users": null, "dst": ["*:22"])"), HasSubstr("old name"));
    const auto test = [](const std::string& members) { return refusal("{\"tests\": [{" + members + "}]}"); };
    EXPECT_THAT(test(R"("src": "a@b.c", "user": "d@e.f", "accept": ["x:22"])"),
                HasSubstr("tests: \"user\" is the old name of \"src\""));
    EXPECT_THAT(test(R"("src": "a@b.c", "allow": ["y:22"], "accept": ["x:22"])"),
                HasSubstr("tests: \"allow\" is the old name of \"accept\""));
    EXPECT_EQ(test(R"("user": "a@b.c", "allow": ["y:22"])"), "accepted");
}

} // namespace
} // namespace tailrace
