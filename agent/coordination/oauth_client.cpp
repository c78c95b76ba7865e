#include "agent/coordination/oauth_client.hpp"

#include "agent/coordination/control_link.hpp"
#include "base/form.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr std::string_view kBeginning = "tskey-client-";
constexpr std::size_t kMostSecret = 4096;        // bytes
constexpr std::size_t kMostAnswer = 64 << 10;    // bytes
constexpr std::int64_t kKeyLifetime = 24 * 3600; // seconds; the key is used at once, if it ever is

struct OAuthKeyCreate {
    bool reusable = false, ephemeral = false, preauthorized = false;
    std::vector<std::string> tags;
};
struct OAuthKeyDevices {
    OAuthKeyCreate create;
};
struct OAuthKeyCapabilities {
    OAuthKeyDevices devices;
};
struct OAuthKeyWish {
    OAuthKeyCapabilities capabilities;
    std::int64_t expiry_seconds = 0;
};
/// Of the answers, what we go by: one or the other is in it.
struct OAuthReply {
    std::string access_token, key, message;
};

/// As Go's strconv.ParseBool has it.
Result<bool> go_bool(std::string_view text) {
    for (const char* yes : {"1", "t", "T", "true", "TRUE", "True"})
        if (text == yes) return true;
    for (const char* no : {"0", "f", "F", "false", "FALSE", "False"})
        if (text == no) return false;
    return Error::make("\"{}\" is neither true nor false", text);
}

bool is_secret(std::string_view text) {
    return text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") ==
           std::string_view::npos;
}

/// Fit for the head of a request: no blanks, nothing unprintable.
bool is_plain_ascii(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

/// What a server says to people is printed: one line of it, and no control characters.
std::string said(std::string text) {
    if (text.size() > 300) text.resize(300);
    for (char& c : text)
        if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';
    return std::string{trim(text)};
}

} // namespace

template <>
struct JsonFields<OAuthKeyCreate> {
    using S = OAuthKeyCreate;
    static constexpr auto fields = field_table(field("reusable", &S::reusable), field("ephemeral", &S::ephemeral),
                                               field("preauthorized", &S::preauthorized), field("tags", &S::tags));
};
template <>
struct JsonFields<OAuthKeyDevices> {
    static constexpr auto fields = field_table(field("create", &OAuthKeyDevices::create));
};
template <>
struct JsonFields<OAuthKeyCapabilities> {
    static constexpr auto fields = field_table(field("devices", &OAuthKeyCapabilities::devices));
};
template <>
struct JsonFields<OAuthKeyWish> {
    using S = OAuthKeyWish;
    static constexpr auto fields =
        field_table(field("capabilities", &S::capabilities), field("expirySeconds", &S::expiry_seconds));
};
template <>
struct JsonFields<OAuthReply> {
    using S = OAuthReply;
    static constexpr auto fields =
        field_table(field("access_token", &S::access_token), field("key", &S::key), field("message", &S::message));
};

bool OAuthClientSecret::is_one(std::string_view text) {
    return trim(text).starts_with(kBeginning);
}

Result<OAuthClientSecret> OAuthClientSecret::parse(std::string_view text) {
    text = trim(text);
    if (!is_one(text)) return Error::make("an OAuth client's secret begins with {}", kBeginning);
    if (text.size() > kMostSecret) return Error::make("an OAuth client's secret is not that long");
    OAuthClientSecret out;
    auto mark = text.find('?');
    out.secret = text.substr(0, mark);
    if (!is_secret(out.secret)) return Error::make("an OAuth client's secret has letters, digits and dashes only");
    auto fields = parse_form(mark == std::string_view::npos ? std::string_view{} : text.substr(mark + 1));
    if (!fields) return fields.error().with("what follows the ? of the OAuth client's secret");
    for (const auto& [name, value] : *fields) {
        if (name == "baseURL") {
            if (value.empty()) continue;
            auto url = Url::parse(value);
            if (!url) return url.error().with("baseURL of the OAuth client's secret");
            if (url->target.find('?') != std::string::npos || !is_plain_ascii(value))
                return Error::make("baseURL of the OAuth client's secret: want https://HOST and nothing after it");
            out.base_url = value;
        } else if (name == "ephemeral" || name == "preauthorized") {
            if (value.empty()) continue;
            auto is_so = go_bool(value);
            if (!is_so) return is_so.error().with("{} of the OAuth client's secret", name);
            (name == "ephemeral" ? out.ephemeral : out.preauthorized) = *is_so;
        } else {
            return Error::make("an OAuth client's secret is followed by ?ephemeral=, preauthorized= and baseURL=, and "
                               "nothing else");
        }
    }
    return out;
}

Result<void> check_oauth_login(std::string_view auth_key, const std::vector<std::string>& tags) {
    if (!OAuthClientSecret::is_one(auth_key)) return {};
    if (auto parsed = OAuthClientSecret::parse(auth_key); !parsed) return parsed.error();
    if (tags.empty())
        return Error::make("an OAuth client lets in nodes with tags only: say which with --advertise-tags=tag:NAME, or "
                           "advertise-tags in tailraced.yaml");
    return {};
}

HttpRequest oauth_token_request(const OAuthClientSecret& client) {
    HttpRequest request;
    request.method = "POST";
    request.target = "/api/v2/oauth/token";
    request.headers.add("Content-Type", "application/x-www-form-urlencoded");
    // The server finds the client by its secret; the id is for those that want to see one.
    request.body = "grant_type=client_credentials&client_id=tailrace&client_secret=" + percent_encode(client.secret);
    return request;
}

HttpRequest oauth_key_request(const OAuthClientSecret& client, const std::vector<std::string>& tags,
                              std::string_view access_token) {
    OAuthKeyWish wish;
    wish.capabilities.devices.create = {false, client.ephemeral, client.preauthorized, tags};
    wish.expiry_seconds = kKeyLifetime;
    HttpRequest request;
    request.method = "POST";
    request.target = "/api/v2/tailnet/-/keys";
    request.headers.add("Content-Type", "application/json");
    request.headers.add("Authorization", fmt::format("Bearer {}", access_token));
    request.body = json::write(wish);
    return request;
}

namespace {

Result<OAuthAnswer> read_oauth_answer(const HttpResponse& response, std::string OAuthReply::*wanted) {
    auto reply = json::parse<OAuthReply>(response.body);
    if (response.status / 100 == 2) {
        if (!reply) return reply.error().with("the answer makes no sense");
        const std::string& text = (*reply).*wanted;
        if (text.empty() || text.size() > kMostSecret || !is_plain_ascii(text))
            return Error::make("the answer has nothing in it that can be used");
        return OAuthAnswer{text, ""};
    }
    std::string why = reply ? said(reply->message) : "";
    if (why.empty()) why = fmt::format("the server answered {}", response.status);
    // Too early, too late, too often, and faults of the server: another time it may go well.
    const bool passes = response.status >= 500 || response.status == 408 || response.status == 429;
    if (passes || response.status / 100 != 4) return Error::make("{}", why);
    return OAuthAnswer{"", std::move(why)};
}

} // namespace

Result<OAuthAnswer> parse_oauth_token(const HttpResponse& response) {
    return read_oauth_answer(response, &OAuthReply::access_token);
}

Result<OAuthAnswer> parse_oauth_key(const HttpResponse& response) {
    return read_oauth_answer(response, &OAuthReply::key);
}

Task<Result<OAuthAnswer>> make_auth_key(ControlDialer& dialer, OAuthClientSecret client,
                                        std::vector<std::string> tags) {
    auto first = co_await dialer.ask(oauth_token_request(client), kMostAnswer);
    if (!first) co_return first.error();
    auto token = parse_oauth_token(*first);
    if (!token) co_return token.error().with("ask for an access token");
    if (!token->refusal.empty()) co_return std::move(*token);
    auto second = co_await dialer.ask(oauth_key_request(client, tags, token->text), kMostAnswer);
    if (!second) co_return second.error();
    auto key = parse_oauth_key(*second);
    if (!key) co_return key.error().with("ask for an auth key");
    co_return std::move(*key);
}

} // namespace tailrace
