#include "control/store/sqlite_store.hpp"

#include "base/file.hpp"
#include "base/random.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace tailrace {
namespace {

using testing::HasSubstr;

struct TemporaryDirectory {
    std::filesystem::path path = std::filesystem::temp_directory_path() / fmt::format("tailrace-{:x}", random_u64());
    TemporaryDirectory() { std::filesystem::create_directories(path); }
    ~TemporaryDirectory() { std::filesystem::remove_all(path); }
    std::string file(const char* name) const { return path / name; }
};

NodePtr some_node(NodeId id) {
    Node node;
    node.record.id = id;
    node.record.machine_key = MachinePrivateKey::generate().public_key();
    node.record.node_key = NodePrivateKey::generate().public_key();
    node.record.hostname = "Laptop \"x\" \xc3\xa4";
    node.record.given_name = fmt::format("laptop-{}", id);
    node.record.user = 1;
    node.record.tags = {"tag:a", "tag:b"};
    node.record.v4 = *IpAddress::parse("100.64.0.1");
    node.record.v6 = *IpAddress::parse("fd7a:115c:a1e0::1");
    node.record.ephemeral = true;
    node.record.created = *WallTime::parse("2026-01-02T03:04:05.123456789Z");
    node.record.approved_routes = {*IpPrefix::parse("10.0.0.0/8")};
    node.record.policy_routes = node.record.approved_routes;
    node.record.revoked_routes = {*IpPrefix::parse("10.1.0.0/16")};
    node.record.primary_routes = node.record.approved_routes;
    node.record.regional_routes = {{*IpPrefix::parse("10.0.0.0/8"), {900, 901}}};
    node.record.router_since = *WallTime::parse("2026-01-03T03:04:05Z");
    node.record.router_falls = 3;
    node.record.router_gone = true;
    node.record.attributes = {{"custom:tier", {std::string{"gold"}, *WallTime::parse("2026-02-03T03:04:05Z")}}};
    node.record.hosting = {{"svc:db", HostApproval::Policy}, {"svc:old", HostApproval::Revoked}};
    node.report.announced = {{{"svc:db", {"tcp:5432"}, true}}, "abcd"};
    node.report.disco_key = DiscoPrivateKey::generate().public_key();
    node.report.endpoints = {*Endpoint::parse("1.2.3.4:41641"), *Endpoint::parse("[2001:db8::1]:41641")};
    node.report.home_derp = 900;
    node.report.cap_version = 145;
    node.report.hostinfo = R"({"OS":"linux"})";
    node.report.routable_ips = {*IpPrefix::parse("10.0.0.0/8")};
    node.report.last_seen = node.record.created;
    node.report.online = true;
    return std::make_shared<const Node>(node);
}

TEST(SqliteStore, GivesBackWhatWasCommitted) {
    TemporaryDirectory directory;
    auto user =
        std::make_shared<const User>(User{1, "alice@example.com", "Alice", WallTime::from_unix(1), UserRole::ItAdmin});
    AuthKey key{7, "abc", {}, 1, {"tag:x"}, true, true, true, WallTime::from_unix(2), {}, {}, {}, "for the fleet"};
    key.secret_hash.fill(std::byte{0xab});
    key.oauth_client = 3;
    OAuthClient client{3, "0123", {}, {"auth_keys"}, {"tag:a", "tag:b"}, WallTime::from_unix(4), {}, "for the fleet"};
    client.secret_hash.fill(std::byte{0xcd});
    Service service{"svc:db", *IpAddress::parse("100.64.0.9"), *IpAddress::parse("fd7a:115c:a1e0::9"), {"tag:a"}, {},
                    {}};
    service.ports = {{5432, 5432}, {8000, 8010}};
    auto gone = std::make_shared<const Service>(Service{"svc:gone", service.v4, service.v6, {}, {}, {}});
    auto node = some_node(5);
    {
        auto store = SqliteStore::open(directory.file("control.db"));
        ASSERT_TRUE(store) << store.error().message();
        auto done = (*store)->commit({{PutUser{user}},
                                      {PutAuthKey{std::make_shared<const AuthKey>(key)}, PutNode{node}},
                                      {PutOAuthClient{std::make_shared<const OAuthClient>(client)}},
                                      {PutService{gone}, DeleteService{"svc:gone"}},
                                      {PutService{std::make_shared<const Service>(service)}},
                                      {PutReport{node}, PutPolicy{"// policy\n{}"}}});
        ASSERT_TRUE(done) << done.error().message();
    }
    auto store = SqliteStore::open(directory.file("control.db"));
    ASSERT_TRUE(store) << store.error().message();
    auto loaded = (*store)->load();
    ASSERT_TRUE(loaded) << loaded.error().message();
    ASSERT_EQ(loaded->users.size(), 1u);
    EXPECT_EQ(loaded->users[0], *user);
    ASSERT_EQ(loaded->auth_keys.size(), 1u);
    EXPECT_EQ(loaded->auth_keys[0], key);
    ASSERT_EQ(loaded->oauth_clients.size(), 1u);
    EXPECT_EQ(loaded->oauth_clients[0], client);
    EXPECT_EQ(loaded->last_oauth_client, 3);
    ASSERT_EQ(loaded->services.size(), 1u);
    EXPECT_EQ(loaded->services[0], service);
    ASSERT_EQ(loaded->nodes.size(), 1u);
    EXPECT_EQ(loaded->nodes[0], *node);
    EXPECT_EQ(loaded->policy, "// policy\n{}");
    EXPECT_EQ(loaded->last_node, 5);
    EXPECT_EQ(std::filesystem::status(directory.file("control.db")).permissions(),
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST(SqliteStore, NeverGivesAnIdTwice) {
    TemporaryDirectory directory;
    auto store = SqliteStore::open(directory.file("control.db"));
    ASSERT_TRUE(store) << store.error().message();
    ASSERT_TRUE((*store)->commit({{PutNode{some_node(9)}}, {DeleteNode{9}}}));
    EXPECT_EQ((*store)->load()->last_node, 9);
    EXPECT_TRUE((*store)->load()->nodes.empty());
}

TEST(SqliteStore, WritesNoReportOfANodeThatIsGone) {
    TemporaryDirectory directory;
    auto store = SqliteStore::open(directory.file("control.db"));
    ASSERT_TRUE(store);
    auto done = (*store)->commit({{PutReport{some_node(9)}}});
    EXPECT_TRUE(done) << done.error().message();
}

TEST(SqliteStore, CommitsAllOrNothing) {
    TemporaryDirectory directory;
    auto store = SqliteStore::open(directory.file("control.db"));
    ASSERT_TRUE(store);
    auto first = some_node(1);
    Node twin = *some_node(2);
    twin.record.node_key = first->record.node_key; // breaks the unique index
    auto done = (*store)->commit({{PutNode{first}}, {PutNode{std::make_shared<const Node>(twin)}}});
    EXPECT_FALSE(done);
    EXPECT_TRUE((*store)->load()->nodes.empty());
}

TEST(SqliteStore, LeavesADamagedFileAloneAndKeepsACopy) {
    TemporaryDirectory directory;
    std::string path = directory.file("control.db");
    std::string garbage(8192, 'x');
    ASSERT_TRUE(write_file_atomically(path, garbage, 0600));
    auto store = SqliteStore::open(path);
    ASSERT_FALSE(store);
    EXPECT_THAT(store.error().message(), HasSubstr("is damaged"));
    EXPECT_THAT(store.error().message(), HasSubstr("restore a backup"));
    EXPECT_EQ(*read_file(path), garbage);
    EXPECT_EQ(*read_file(path + ".damaged"), garbage);
}

TEST(SqliteStore, SaysWhenItMayNotWrite) {
    auto store = SqliteStore::open("/proc/nowhere/control.db");
    ASSERT_FALSE(store);
    EXPECT_THAT(store.error().message(), HasSubstr("/proc/nowhere/control.db"));
}

} // namespace
} // namespace tailrace
