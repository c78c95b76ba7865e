// What a cloud's metadata service says of our public addresses.
#include "agent/path/cloud_addresses.hpp"
#include "agent/path/own_endpoints.hpp"
#include "base/io/http1.hpp"
#include "base/io/socket.hpp"
#include "tests/fakes/run_task.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

IpAddress cloud_address(const char* text) {
    return *IpAddress::parse(text);
}

TEST(CloudAddressesTest, OnlyTheFirmwareOfAmazonsInstancesNamesThem) {
    for (const char* vendor : {"Amazon EC2\n", "Amazon EC2", "4.11.amazon\n", "4.2.amazon"})
        EXPECT_TRUE(is_amazon(vendor)) << vendor;
    for (const char* vendor :
         {"", "\n", "Google", "Microsoft Corporation", "Amazon", "amazon", "SeaBIOS", "4.amazonia"})
        EXPECT_FALSE(is_amazon(vendor)) << vendor;
}

TEST(CloudAddressesTest, AnAddressIsALineAndOtherLinesAreNone) {
    EXPECT_THAT(parse_cloud_addresses("203.0.113.5\n2001:db8::5\r\n\nnonsense\n0.0.0.0\n"),
                ElementsAre(cloud_address("203.0.113.5"), cloud_address("2001:db8::5")));
    EXPECT_THAT(parse_cloud_addresses(""), IsEmpty());
}

TEST(CloudAddressesTest, GoWithOurPortAndCountAsOurOwn) {
    EXPECT_THAT(cloud_endpoints(
                    {cloud_address("203.0.113.5"), cloud_address("100.64.0.7"), cloud_address("2001:db8::5")}, 41641),
                ElementsAre(OwnEndpoint{*Endpoint::parse("203.0.113.5:41641"), 1},
                            OwnEndpoint{*Endpoint::parse("[2001:db8::5]:41641"), 1}))
        << "none of the tailnet's";
}

/// A metadata service on 127.0.0.1.
class FakeMetadata {
public:
    explicit FakeMetadata(Reactor& reactor) : reactor_(reactor), listener_(open(reactor)) {
        spawn(reactor, "metadata", accept());
    }
    ~FakeMetadata() { listener_.close(); }
    Endpoint at() const { return listener_.local(); }

    std::string server = "EC2ws", token = "secret-token==";
    bool silent = false;
    std::map<std::string, std::string> pages{{"/", "0a:1b/\n0a:2c/\n"},
                                             {"/0a:1b/public-ipv4s", "203.0.113.9\n203.0.113.5"},
                                             {"/0a:2c/ipv6s", "2001:db8::5\n"}};
    std::vector<std::string> asked;

private:
    static Listener open(Reactor& reactor) {
        auto listener = Listener::tcp(reactor, Endpoint{IpAddress::v4(0x7f000001), 0});
        EXPECT_TRUE(listener);
        return std::move(*listener);
    }
    Task<void> accept() {
        for (;;) {
            auto stream = co_await listener_.accept();
            if (!stream) co_return;
            HttpHandler handler = [this](HttpRequest request) { return answer(std::move(request)); };
            spawn(reactor_, "connection", serve_http1(std::move(*stream), std::move(handler), Http1ServerOptions{}));
        }
    }
    Task<HttpResponse> answer(HttpRequest request) {
        asked.push_back(request.method + " " + request.target);
        if (silent) co_await reactor_.sleep(5s);
        HttpResponse response = HttpResponse::text(404, "");
        response.headers.add("Server", server);
        constexpr std::string_view kRoot = "/latest/meta-data/network/interfaces/macs";
        if (request.method == "PUT" && request.target == "/latest/api/token") {
            EXPECT_EQ(request.headers.get("X-aws-ec2-metadata-token-ttl-seconds"), "10");
            response.status = 200;
            response.body = token;
        } else if (request.headers.get("X-aws-ec2-metadata-token") != token) {
            response.status = 401;
        } else if (request.target.starts_with(kRoot) && pages.contains(request.target.substr(kRoot.size()))) {
            response.status = 200;
            response.body = pages[request.target.substr(kRoot.size())];
        }
        co_return response;
    }
    Reactor& reactor_;
    Listener listener_;
};

TEST(CloudAddressesTest, AreThoseOfAllInterfacesSorted) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeMetadata service{reactor};
        auto told = co_await ask_amazon(reactor, service.at(), 0);
        EXPECT_TRUE(told) << told.error().message();
        EXPECT_THAT(*told, ElementsAre(cloud_address("203.0.113.5"), cloud_address("203.0.113.9"),
                                       cloud_address("2001:db8::5")));
        EXPECT_EQ(service.asked.size(), 6u);
        EXPECT_EQ(service.asked.front(), "PUT /latest/api/token") << "never without a token: some count that";
        service.pages.clear();
        told = co_await ask_amazon(reactor, service.at(), 0);
        EXPECT_TRUE(told);
        EXPECT_THAT(*told, IsEmpty());
        service.pages = {{"/", "0a:1b/"}, {"/0a:1b/public-ipv4s", "203.0.113.5"}};
        told = co_await ask_amazon(reactor, service.at(), 0);
        EXPECT_THAT(*told, ElementsAre(cloud_address("203.0.113.5"))) << "without IPv6";
    });
}

TEST(CloudAddressesTest, SomebodyElseAtThatAddressIsNotBelieved) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeMetadata service{reactor};
        service.server = "nginx";
        auto told = co_await ask_amazon(reactor, service.at(), 0);
        EXPECT_FALSE(told);
        EXPECT_EQ(service.asked.size(), 1u);
        service.server = "EC2ws";
        service.token = "a b";
        told = co_await ask_amazon(reactor, service.at(), 0);
        EXPECT_FALSE(told);
        EXPECT_THAT(told.error().message(), HasSubstr("token"));
        EXPECT_EQ(service.asked.size(), 2u);
    });
}

TEST(CloudAddressesTest, ASilentServiceIsGivenUpAfterTwoSeconds) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeMetadata service{reactor};
        service.silent = true;
        TimePoint begun = reactor.now();
        auto told = co_await ask_amazon(reactor, service.at(), 0);
        EXPECT_FALSE(told);
        EXPECT_LT(reactor.now() - begun, 3s);
        EXPECT_GE(reactor.now() - begun, 1900ms);
    });
}

TEST(CloudAddressesTest, AMachineOfManyInterfacesEndsTheQuestionsSomewhere) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeMetadata service{reactor};
        service.pages["/"] = "";
        for (int i = 0; i < 40; ++i) {
            const std::string mac = fmt::format("{:02x}", i);
            service.pages["/"] += mac + "\n";
            service.pages["/" + mac + "/public-ipv4s"] =
                fmt::format("203.0.113.{0}\n198.51.100.{0}\n192.0.2.{0}", i + 1);
        }
        auto told = co_await ask_amazon(reactor, service.at(), 0);
        EXPECT_TRUE(told);
        EXPECT_EQ(told->size(), 64u);
        EXPECT_EQ(service.asked.size(), 2u + 2 * 32);
    });
}

} // namespace
} // namespace tailrace
