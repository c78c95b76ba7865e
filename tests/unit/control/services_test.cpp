#include "control/tailnet/services.hpp"

#include "base/io/http1.hpp"
#include "control/map/composer.hpp"
#include "control/server/policy_input.hpp"
#include "tests/unit/control/tailnet_fixture.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kOnlyWeb = R"({
    "tagOwners": {"tag:server": ["alice@"], "tag:client": ["alice@"]},
    "acls": [{"action": "accept", "src": ["tag:client"], "dst": ["svc:web:443"]}],
    "autoApprovers": {"services": {"svc:web": ["tag:server"]}}
})";

struct ServicesOfControl : TailnetFixture {
    Machine server, client;

    void SetUp() override {
        TailnetFixture::SetUp();
        server.hostname = "server";
        client.hostname = "client";
        for (auto [machine, tag] : {std::pair{&server, "tag:server"}, std::pair{&client, "tag:client"}}) {
            TailnetState::KeyWish wish;
            wish.tags = {tag};
            ASSERT_TRUE(succeeded(join(*machine, make_key(wish))));
        }
    }
    NodeId id_of(const Machine& machine) { return node_of(machine)->id(); }
    Result<ServicePtr> create(std::string name = "svc:web", std::vector<std::string> ports = {"tcp:443"}) {
        return tailnet.create_service(at(now), {std::move(name), {"tag:server"}, std::move(ports)});
    }
    void announce(const Machine& machine, std::vector<std::string> ports = {"tcp:443"}, bool active = true,
                  std::string name = "svc:web") {
        tailnet.on_services_told(id_of(machine), {{{std::move(name), std::move(ports), active}}, "hash"});
    }
    HostState state(const Machine& machine) { return host_state(*tailnet.service("svc:web"), *node_of(machine)); }
};

TEST_F(ServicesOfControl, OneHasAddressesThatNoNodeHasOrGets) {
    auto made = create();
    ASSERT_TRUE(made) << made.error().message();
    Machine late;
    ASSERT_TRUE(succeeded(join(late, reusable_key())));
    for (const auto& [id, node] : tailnet.nodes()) {
        EXPECT_NE(node->record.v4, (*made)->v4);
        EXPECT_NE(node->record.v6, (*made)->v6);
    }
    EXPECT_TRUE(cgnat_prefix().contains((*made)->v4));
    EXPECT_TRUE(tailscale_ula_prefix().contains((*made)->v6));
}

TEST_F(ServicesOfControl, NamesAreCheckedAndSharedWithNodes) {
    for (const char* bad : {"web", "svc:", "svc:Web", "svc:a.b", "svc:-a"}) EXPECT_FALSE(create(bad)) << bad;
    EXPECT_THAT(create("svc:server").error().message(), HasSubstr("is already named server"));
    ASSERT_TRUE(create());
    EXPECT_FALSE(create());
    EXPECT_FALSE(tailnet.rename_node(id_of(client), "web"));
    Machine web;
    web.hostname = "web";
    ASSERT_TRUE(succeeded(join(web, reusable_key())));
    EXPECT_EQ(node_of(web)->record.given_name, "web-1");
}

TEST_F(ServicesOfControl, PortsAreOfTcp) {
    EXPECT_FALSE(create("svc:a", {"udp:53"}));
    EXPECT_FALSE(create("svc:a", {"443"}));
    EXPECT_FALSE(create("svc:a", {"tcp:0"}));
    auto any = create("svc:a", {"do-not-validate"});
    ASSERT_TRUE(any);
    EXPECT_THAT((*any)->ports, IsEmpty());
    auto several = create("svc:b", {"tcp:8000-8010", "tcp:443"});
    ASSERT_TRUE(several);
    EXPECT_THAT(service_ports_text((*several)->ports), ElementsAre("tcp:8000-8010", "tcp:443"));
}

TEST_F(ServicesOfControl, AHostSaysSoHasATagAndIsApproved) {
    ASSERT_TRUE(create());
    EXPECT_EQ(state(server), HostState::Stranger);
    announce(server);
    EXPECT_EQ(state(server), HostState::Unapproved);
    ASSERT_TRUE(tailnet.approve_host(at(now), "svc:web", id_of(server), Approval::Person));
    EXPECT_EQ(state(server), HostState::Serves);
    announce(server, {"tcp:443"}, false);
    EXPECT_EQ(state(server), HostState::Drained);
    announce(server, {"tcp:80", "udp:443"});
    EXPECT_EQ(state(server), HostState::PortsLack);
    for (const char* enough : {"*", "tcp:400-500", "443"}) {
        announce(server, {enough});
        EXPECT_EQ(state(server), HostState::Serves) << enough;
    }
    announce(server, {"tcp:443"}, true, "svc:other");
    EXPECT_EQ(state(server), HostState::Silent);
    announce(client);
    EXPECT_EQ(state(client), HostState::Untagged);
    EXPECT_FALSE(tailnet.approve_host(at(now), "svc:web", id_of(client), Approval::Person));
}

TEST_F(ServicesOfControl, WhatAPersonRevokedThePolicyDoesNotBringBack) {
    ASSERT_TRUE(create());
    announce(server);
    ASSERT_TRUE(tailnet.approve_host(at(now), "svc:web", id_of(server), Approval::Policy));
    EXPECT_EQ(state(server), HostState::Serves);
    ASSERT_TRUE(tailnet.revoke_host("svc:web", id_of(server)));
    ASSERT_TRUE(tailnet.approve_host(at(now), "svc:web", id_of(server), Approval::Policy));
    EXPECT_EQ(state(server), HostState::Revoked);
    ASSERT_TRUE(tailnet.approve_host(at(now), "svc:web", id_of(server), Approval::Person));
    EXPECT_EQ(state(server), HostState::Serves);
}

TEST_F(ServicesOfControl, ADeletedOneLeavesNoApprovals) {
    ASSERT_TRUE(create());
    ASSERT_TRUE(tailnet.approve_host(at(now), "svc:web", id_of(server), Approval::Person));
    ASSERT_TRUE(tailnet.delete_service("svc:web"));
    EXPECT_THAT(node_of(server)->record.hosting, IsEmpty());
    EXPECT_FALSE(tailnet.delete_service("svc:web"));
    ASSERT_TRUE(create());
    EXPECT_EQ(state(server), HostState::Stranger);
}

TEST_F(ServicesOfControl, WhatCouldNotBeWrittenIsUndone) {
    (void)tailnet.take_changes();
    ASSERT_TRUE(create());
    auto changes = tailnet.take_changes();
    EXPECT_TRUE(changes.services_changed);
    for (auto step = changes.undo.rbegin(); step != changes.undo.rend(); ++step) (*step)();
    EXPECT_EQ(tailnet.service("svc:web"), nullptr);
    EXPECT_THAT(tailnet.snapshot()->services, IsEmpty());
    EXPECT_TRUE(tailnet.take_changes().services_changed);
}

TEST_F(ServicesOfControl, AReportWithoutServicesTakesThemBack) {
    ASSERT_TRUE(create());
    auto report = server.map_request();
    report.hostinfo.value.services_hash = "hash";
    report.hostinfo.value.hostname = "server";
    tailnet.on_report(at(now), id_of(server), report);
    EXPECT_EQ(node_of(server)->report.services_hash, "hash");
    announce(server);
    report.hostinfo.value.services_hash.clear();
    tailnet.on_report(at(now), id_of(server), report);
    EXPECT_THAT(node_of(server)->report.announced.services, IsEmpty());
}

TEST_F(ServicesOfControl, MapsTellHostsAndWhoMayReachThem) {
    auto made = create();
    ASSERT_TRUE(made);
    announce(server);
    MapComposer::Fixed fixed;
    fixed.domain = "tail.lab";
    MapComposer composer{tailnet, fixed};
    auto document = Document::parse(kOnlyWeb);
    ASSERT_TRUE(document) << document.error().message();
    auto shared = std::make_shared<const Document>(std::move(*document));
    auto compile = [&] { composer.set_policy(compile_for(shared, tailnet.snapshot(), composer.policy())); };
    auto read = [&](const FramePieces& pieces) {
        std::string body;
        for (const SharedText& piece : pieces) body += *piece;
        MapFrameReader reader{MapCompression::None};
        reader.feed(as_bytes(body));
        auto json = reader.next();
        auto response = json && *json ? wire::parse_map_response(**json) : Result<wire::MapResponse>{Error::make("no")};
        EXPECT_TRUE(response) << response.error().message();
        return response ? *response : wire::MapResponse{};
    };
    compile();
    EXPECT_TRUE(composer.policy()->approves_service(id_of(server), "svc:web", {"tag:server"}));
    EXPECT_FALSE(composer.policy()->approves_service(id_of(client), "svc:web", {"tag:server"}));
    MapViewer host, user;
    host.compression = user.compression = MapCompression::None;
    host.id = id_of(server);
    user.id = id_of(client);
    EXPECT_THAT(read(composer.full(user, at(now))).dns_config->extra_records, IsEmpty());
    (void)composer.full(host, at(now));

    ASSERT_TRUE(tailnet.approve_host(at(now), "svc:web", id_of(server), Approval::Policy));
    for (const NodeEvent& event : tailnet.take_changes().events) composer.on_node_event(event);
    compile();
    auto to_host = read(composer.delta(host, at(now)));
    ASSERT_TRUE(to_host.node);
    auto told = to_host.node->cap_map.find("service-host");
    ASSERT_NE(told, to_host.node->cap_map.end());
    ASSERT_EQ(told->second.size(), 1u);
    EXPECT_EQ(told->second.front().text,
              fmt::format(R"({{"svc:web":["{}","{}"]}})", (*made)->v4.text(), (*made)->v6.text()));
    auto to_user = read(composer.delta(user, at(now)));
    ASSERT_EQ(to_user.peers_changed.size(), 1u);
    EXPECT_THAT(to_user.peers_changed[0].routes_to(), Contains(IpPrefix::single((*made)->v4)));
    EXPECT_THAT(to_user.peers_changed[0].primary_routes, IsEmpty());
    ASSERT_TRUE(to_user.dns_config);
    EXPECT_THAT(to_user.dns_config->extra_records,
                ElementsAre(wire::DnsRecord{"web.tail.lab", "", (*made)->v4.text()},
                            wire::DnsRecord{"web.tail.lab", "", (*made)->v6.text()}));

    ASSERT_TRUE(tailnet.revoke_host("svc:web", id_of(server)));
    for (const NodeEvent& event : tailnet.take_changes().events) composer.on_node_event(event);
    compile();
    to_user = read(composer.delta(user, at(now)));
    EXPECT_THAT(to_user.peers_removed, ElementsAre(id_of(server)));
    ASSERT_TRUE(to_user.dns_config);
    EXPECT_THAT(to_user.dns_config->extra_records, IsEmpty());
}

TEST(VipServices, AreReadAsStockClientsWriteThem) {
    auto told = wire::parse_vip_services(
        R"({"VIPServices":[{"Name":"svc:web","Ports":["tcp:80","tcp:443"],"Active":true},{"Name":"svc:db","Ports":null,"Active":false}],"ServicesHash":"abcd"})");
    ASSERT_TRUE(told) << told.error().message();
    EXPECT_THAT(told->services, ElementsAre(wire::VipService{"svc:web", {"tcp:80", "tcp:443"}, true},
                                            wire::VipService{"svc:db", {}, false}));
    EXPECT_EQ(told->hash, "abcd");
    EXPECT_EQ(wire::parse_vip_services(wire::write_vip_services(*told))->services, told->services);
    wire::VipServices many;
    many.services.resize(wire::VipServices::kMostServices + 1);
    EXPECT_FALSE(wire::parse_vip_services(wire::write_vip_services(many)));
    EXPECT_FALSE(wire::parse_vip_services(R"({"ServicesHash":")" + std::string(5000, 'a') + "\"}"));
}

TEST(HttpResponseInside, IsReadWithALengthInChunksAndToTheEnd) {
    for (const char* text : {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                             "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n{}",
                             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"}) {
        auto response = parse_http1_response(text);
        ASSERT_TRUE(response) << response.error().message();
        EXPECT_EQ(response->status, 200);
        EXPECT_EQ(response->body, "{}");
    }
    for (const char* bad : {"", "\r\n", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nA: b", "GET / HTTP/1.1\r\n\r\n",
                            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}"})
        EXPECT_FALSE(parse_http1_response(bad)) << bad;
}

} // namespace
} // namespace tailrace
