#include "control/api/api.hpp"

#include "base/json/json.hpp"
#include "control/api/credentials.hpp"
#include "control/api/messages.hpp"
#include "control/tailnet/scopes.hpp"
#include "tests/unit/control/tailnet_fixture.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct ApiTest : TailnetFixture {
    Api api;

    ApiTest() {
        // tag:fleet owns tag:web.
        owners.tags_may = [](const std::vector<std::string>& tags, const std::string& tag) {
            return tag == "tag:web" && tags == std::vector<std::string>{"tag:fleet"};
        };
        tailnet = TailnetState{settings(), {}, owners, at(0s)};
    }
    std::string make_client(std::vector<std::string> scopes = {}, std::vector<std::string> tags = {"tag:fleet"}) {
        auto made = tailnet.create_oauth_client(at(now), {std::move(scopes), std::move(tags), "for the fleet"});
        EXPECT_TRUE(made);
        return made ? made->text : "";
    }
    HttpResponse post(std::string target, std::string body, std::string authorization = "") {
        HttpRequest request;
        request.method = "POST";
        request.target = std::move(target);
        request.body = std::move(body);
        if (!authorization.empty()) request.headers.add("Authorization", std::move(authorization));
        auto answer = api.answer(tailnet, at(now), request);
        EXPECT_EQ(answer.changed, tailnet.take_changes().needs_commit());
        return std::move(answer.response);
    }
    HttpResponse ask_token(const std::string& secret, const std::string& more = "") {
        tailnet.take_changes(); // whatever the test did before
        return post("/api/v2/oauth/token", "client_secret=" + secret + more);
    }
    std::string token(const std::string& secret, const std::string& more = "") {
        auto response = ask_token(secret, more);
        EXPECT_EQ(response.status, 200) << response.body;
        return json::parse<api::AccessToken>(response.body)->access_token;
    }
    HttpResponse make_key_with(const std::string& token, const std::string& tags, const std::string& more = "") {
        tailnet.take_changes();
        return post("/api/v2/tailnet/-/keys",
                    R"({"capabilities":{"devices":{"create":{"reusable":true,"ephemeral":true,"tags":)" + tags + "}}}" +
                        more + "}",
                    "Bearer " + token);
    }
    static std::string message(const HttpResponse& response) {
        auto failure = json::parse<api::Failure>(response.body);
        EXPECT_TRUE(failure) << response.body;
        return failure ? failure->message : "";
    }
};

TEST_F(ApiTest, ATokenMakesKeysThatLetTaggedNodesIn) {
    auto response = make_key_with(token(make_client()), R"(["tag:fleet","tag:web"])", R"(,"expirySeconds":60)");
    ASSERT_EQ(response.status, 200) << response.body;
    auto key = json::parse<api::Key>(response.body);
    ASSERT_TRUE(key) << response.body;
    EXPECT_EQ(key->key_type, "auth");
    EXPECT_EQ(key->expiry_seconds, 60);
    EXPECT_EQ(key->expires, at(now + 60s));
    EXPECT_EQ(key->user_id, "");
    EXPECT_TRUE(key->capabilities.devices.create.reusable);
    Machine machine;
    EXPECT_TRUE(succeeded(join(machine, key->key)));
    EXPECT_THAT(node_of(machine)->record.tags, ElementsAre("tag:fleet", "tag:web"));
    EXPECT_TRUE(node_of(machine)->record.ephemeral);
    EXPECT_FALSE(tailnet.tag_node(node_of(machine)->id(), {})) << "it would belong to nobody";
}

TEST_F(ApiTest, ZeroAndNoExpiryMeanNinetyDays) {
    std::string with = token(make_client());
    for (const char* more : {"", R"(,"expirySeconds":0,"keyType":"auth","description":"from Terraform-1")"}) {
        auto key = json::parse<api::Key>(make_key_with(with, R"(["tag:fleet"])", more).body);
        ASSERT_TRUE(key);
        EXPECT_EQ(key->expiry_seconds, 90 * 24 * 3600);
        EXPECT_EQ(key->expires, at(now).plus(std::chrono::hours{24 * 90}));
    }
}

TEST_F(ApiTest, KeysAreForTagsOfTheClientOrOwnedByThem) {
    std::string with = token(make_client());
    for (const char* tags : {R"(["tag:other"])", R"(["tag:fleet","tag:other"])", "[]", "null", R"(["fleet"])"}) {
        auto response = make_key_with(with, tags);
        EXPECT_EQ(response.status, 400) << tags;
        EXPECT_THAT(message(response), HasSubstr("are invalid or not permitted")) << tags;
    }
    EXPECT_THAT(tailnet.auth_keys(), IsEmpty());
}

TEST_F(ApiTest, ATokenMayHaveLessThanItsClient) {
    std::string secret = make_client({"all"}, {"tag:fleet", "tag:other"});
    EXPECT_EQ(make_key_with(token(secret, "&tags=tag%3Aother"), R"(["tag:fleet"])").status, 400);
    EXPECT_EQ(make_key_with(token(secret, "&tags=tag%3Aother"), R"(["tag:other"])").status, 200);
    auto refused = make_key_with(token(secret, "&scope=auth_keys:read"), R"(["tag:fleet"])");
    EXPECT_EQ(refused.status, 403);
    EXPECT_THAT(message(refused), HasSubstr("does not have enough permissions"));
    EXPECT_EQ(ask_token(make_client(), "&scope=all").status, 400);
    EXPECT_EQ(ask_token(make_client(), "&tags=tag:alien").status, 400);
    EXPECT_EQ(ask_token(make_client(), "&grant_type=password").status, 400);
    EXPECT_EQ(ask_token(make_client(), "&scope=%").status, 400);
}

TEST_F(ApiTest, TokensEndWithTheirHourAndWithTheirClient) {
    std::string secret = make_client();
    std::string first = token(secret);
    now = 3599s;
    EXPECT_EQ(make_key_with(first, R"(["tag:fleet"])").status, 200);
    std::string second = token(secret);
    now = 3600s;
    EXPECT_EQ(make_key_with(first, R"(["tag:fleet"])").status, 401);
    EXPECT_EQ(make_key_with(second, R"(["tag:fleet"])").status, 200);
    ASSERT_TRUE(tailnet.revoke_oauth_client(at(now), 1));
    auto response = make_key_with(second, R"(["tag:fleet"])");
    EXPECT_EQ(response.status, 401);
    EXPECT_EQ(message(response), "API token invalid");
    response = ask_token(secret);
    EXPECT_EQ(response.status, 401);
    EXPECT_EQ(message(response), "this OAuth client has been revoked");
    EXPECT_FALSE(tailnet.revoke_oauth_client(at(now), 1)) << "twice";
}

TEST_F(ApiTest, WhoShowsNoTokenIsNobody) {
    std::string secret = make_client(), with = token(secret);
    tailnet.take_changes();
    auto status = [&](const std::string& authorization) {
        return post("/api/v2/tailnet/-/keys", "{}", authorization).status;
    };
    std::string other = with;
    other.back() = other.back() == '0' ? '1' : '0';
    for (const std::string& wrong :
         {std::string{}, std::string{"Bearer "}, "Bearer " + other, "Bearer " + secret, "Basic " + with, with,
          "Basic " + base64_encode(as_bytes(":")), "Basic " + base64_encode(as_bytes(":" + with))})
        EXPECT_EQ(status(wrong), 401) << wrong;
    for (const std::string& right :
         {"Bearer " + with, "bearer " + with, "Basic " + base64_encode(as_bytes(with + ":"))})
        EXPECT_EQ(status(right), 400) << right; // no tags were asked for
    std::string stranger = secret;
    stranger.back() = stranger.back() == '0' ? '1' : '0';
    for (const std::string& wrong : {stranger, with, std::string{}, std::string{"some-client-id"}}) {
        auto response = ask_token(wrong);
        EXPECT_EQ(response.status, 401);
        EXPECT_THAT(response.body, HasSubstr(R"("error":"invalid_client")"));
    }
}

TEST_F(ApiTest, EveryRefusalIsAnObjectWithAMessage) {
    std::string bearer = "Bearer " + token(make_client());
    tailnet.take_changes();
    std::string keys = "/api/v2/tailnet/-/keys";
    for (const auto& [target, body, wanted] : std::vector<std::tuple<std::string, std::string, int>>{
             {"/api/v2/tailnet/someone.example/keys", "{}", 404},
             {"/api/v2/tailnet//keys", "{}", 404},
             {"/api/v2/tailnet/-/devices", "{}", 404},
             {"/api/v1/tailnet/-/keys", "{}", 404},
             {"/api/", "", 404},
             {keys, "no JSON", 400},
             {keys, std::string(Api::kMostBody + 1, ' '), 413},
             {keys, R"({"keyType":"client"})", 400},
             {keys, R"({"expirySeconds":-1})", 400},
             {keys, R"({"expirySeconds":7776001})", 400},
             {keys, R"({"description":"under_score"})", 400},
             {keys, R"({"description":")" + std::string(51, 'a') + "\"}", 400}}) {
        auto response = post(target, body, bearer);
        EXPECT_EQ(response.status, wanted) << target << " " << body.substr(0, 60);
        EXPECT_NE(message(response), "");
    }
    EXPECT_EQ(post("/api/v2/tailnet/tail.lab/keys", "{}", bearer).status, 400) << "by its name";
    HttpRequest get;
    get.target = "/api/v2/oauth/token";
    EXPECT_EQ(api.answer(tailnet, at(now), get).response.status, 405);
    EXPECT_THAT(tailnet.auth_keys(), IsEmpty());
}

TEST_F(ApiTest, KeysThatAreOfNoUseAreForgottenAfterADay) {
    std::string secret = make_client(), by_hand = reusable_key();
    Machine machine;
    auto one_off = [&] {
        tailnet.take_changes();
        auto response =
            post("/api/v2/tailnet/-/keys", R"({"capabilities":{"devices":{"create":{"tags":["tag:web"]}}}})",
                 "Bearer " + token(secret));
        return json::parse<api::Key>(response.body)->key;
    };
    std::string used = one_off(), unused = one_off();
    ASSERT_TRUE(succeeded(join(machine, used)));
    now += 24h - 1s;
    (void)one_off();
    EXPECT_EQ(tailnet.auth_keys().size(), 4u);
    now += 1s;
    (void)one_off();
    EXPECT_EQ(tailnet.auth_keys().size(), 4u) << "one gone, one new";
    EXPECT_EQ(join(Machine{}, used).error, "invalid authkey");
    EXPECT_TRUE(succeeded(join(Machine{}, unused)));
    EXPECT_TRUE(succeeded(join(machine, used))) << "who is in stays in";
    EXPECT_TRUE(succeeded(join(Machine{}, by_hand)));
}

TEST_F(ApiTest, AnOAuthClientNeedsTagsAndKnownScopes) {
    auto complaint = [&](std::vector<std::string> scopes, std::vector<std::string> tags) {
        auto made = tailnet.create_oauth_client(at(now), {std::move(scopes), std::move(tags), ""});
        return made ? "" : made.error().message();
    };
    EXPECT_THAT(complaint({}, {}), HasSubstr("needs tags"));
    EXPECT_THAT(complaint({"auth_keys:read", "all"}, {}), HasSubstr("needs tags"));
    EXPECT_THAT(complaint({"dance"}, {"tag:a"}), HasSubstr("\"dance\" is no scope"));
    EXPECT_THAT(complaint({}, {"a"}), HasSubstr("is not a tag"));
    EXPECT_EQ(complaint({"auth_keys:read"}, {}), "");
}

TEST_F(ApiTest, AnOAuthClientThatCouldNotBeWrittenIsGone) {
    std::string secret = make_client();
    auto changes = tailnet.take_changes();
    for (auto step = changes.undo.rbegin(); step != changes.undo.rend(); ++step) (*step)();
    EXPECT_EQ(ask_token(secret).status, 401);
    EXPECT_THAT(tailnet.oauth_clients(), IsEmpty());
}

TEST(AccessTokens, OfOneClientTheOldestMakesRoom) {
    AccessTokens tokens;
    std::string first = tokens.issue(at(0s), {1, {}, {}}), other = tokens.issue(at(0s), {2, {}, {}}), last;
    for (std::size_t i = 0; i < AccessTokens::kMostOfClient; ++i) last = tokens.issue(at(1s), {1, {}, {}});
    EXPECT_EQ(tokens.find(at(1s), first), nullptr);
    EXPECT_NE(tokens.find(at(1s), other), nullptr);
    EXPECT_NE(tokens.find(at(1s), last), nullptr);
    EXPECT_EQ(tokens.size(), AccessTokens::kMostOfClient + 1);
    (void)tokens.issue(at(3601s), {3, {}, {}});
    EXPECT_EQ(tokens.size(), 1u) << "what is over is forgotten";
}

TEST(Scopes, AWriteScopeIncludesItsRead) {
    EXPECT_TRUE(scopes_cover({"auth_keys"}, "auth_keys:read"));
    EXPECT_FALSE(scopes_cover({"auth_keys:read"}, "auth_keys"));
    EXPECT_TRUE(scopes_cover({"all"}, "auth_keys"));
    EXPECT_TRUE(scopes_cover({"all:read"}, "auth_keys:read"));
    EXPECT_FALSE(scopes_cover({"all:read"}, "auth_keys"));
    EXPECT_FALSE(scopes_cover({}, "auth_keys"));
}

TEST(Credentials, TheSecretComesInTheHeadOrInTheForm) {
    HttpHeaders basic{{"Authorization", "Basic " + base64_encode(as_bytes("some-client-id:tskey-client-a-b"))}};
    HttpHeaders empty{{"Authorization", "Basic Og=="}}; // made of empty values
    EXPECT_EQ(parse_token_request(basic, "grant_type=client_credentials")->secret, "tskey-client-a-b");
    EXPECT_EQ(parse_token_request(empty, "client_secret=x")->secret, "x");
    EXPECT_EQ(parse_token_request({}, "client_secret=x")->secret, "x");
    EXPECT_THAT(parse_token_request({}, "scope=a++b&tags=c")->scopes, ElementsAre("a", "b"));
    EXPECT_FALSE(parse_token_request({}, "client_secret=x&client_secret=y"));
    EXPECT_FALSE(parse_basic("Basic not base64!"));
    EXPECT_FALSE(parse_basic("Basic " + base64_encode(as_bytes("no colon"))));
}

} // namespace
} // namespace tailrace
