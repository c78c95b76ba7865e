#include "bench/storm/node.hpp"

#include "base/io/http1.hpp"
#include "base/io/sealed_stream.hpp"
#include "base/io/socket.hpp"
#include "base/text.hpp"
#include "proto/control/map.hpp"
#include "proto/control/register.hpp"
#include "proto/map_frame.hpp"
#include "proto/noise.hpp"

namespace tailrace::bench {
namespace {

constexpr int kVersion = 131; // control-protocol.md 7

Task<Result<std::unique_ptr<Stream>>> dial(Reactor& reactor, Url url) {
    DialOptions options;
    auto stream = co_await dial_tcp(reactor, url.host, url.port, options);
    co_return stream;
}

Kept<wire::Hostinfo> hostinfo_of(int number) {
    wire::Hostinfo info;
    info.hostname = fmt::format("storm-{}", number);
    info.os = "linux";
    info.ipn_version = "storm";
    info.backend_log_id = std::string(64, '0');
    return {std::move(info), {}};
}

} // namespace

Task<Result<Server>> find_server(Reactor& reactor, std::string text) {
    auto url = Url::parse(text);
    if (!url) co_return url.error();
    if (url->scheme != "http") co_return Error::make("the load client speaks to http:// servers only");
    auto stream = co_await dial(reactor, *url);
    if (!stream) co_return stream.error();
    Http1Client client{std::move(*stream)};
    HttpRequest request;
    request.target = fmt::format("/key?v={}", kVersion);
    request.authority = url->authority();
    auto answer = co_await client.request(request, 65536);
    if (!answer) co_return answer.error();
    auto keys = wire::parse_public_key_response(answer->body);
    if (!keys) co_return keys.error().with("the answer of {}/key", text);
    Server server{*url, keys->public_key};
    co_return server;
}

std::size_t StableIds::number_of(std::string_view id) {
    auto known = numbers_.find(id);
    if (known != numbers_.end()) return known->second;
    return numbers_.emplace(id, numbers_.size()).first->second;
}

std::size_t find_text(std::string_view in, std::string_view what, std::size_t from) {
    const void* found = ::memmem(in.data() + from, in.size() - from, what.data(), what.size());
    if (found == nullptr) return std::string_view::npos;
    return static_cast<std::size_t>(static_cast<const char*>(found) - in.data());
}

Node::Node(Reactor& reactor, const Server& server, StableIds& ids, int number)
    : reactor_(reactor), server_(server), ids_(ids), number_(number) {}

Task<Result<void>> Node::connect() {
    auto stream = co_await dial(reactor_, server_.url);
    if (!stream) co_return stream.error();
    auto noise = NoiseClient::begin(kVersion, machine_, server_.key);
    if (!noise) co_return noise.error();
    Http1Client http{std::move(*stream)};
    HttpRequest upgrade;
    upgrade.method = "POST";
    upgrade.target = "/ts2021";
    upgrade.authority = server_.url.authority();
    upgrade.headers = {{"Upgrade", "tailscale-control-protocol"},
                       {"Connection", "upgrade"},
                       {"X-Tailscale-Handshake", base64_encode(noise->initiation())}};
    auto answer = co_await http.start(upgrade);
    if (!answer) co_return answer.error();
    if (answer->status != 101) co_return Error::make("/ts2021 answered {}", answer->status);
    auto raw = http.take_stream();
    NoiseResponse response{};
    auto read = co_await raw->read_exactly(response);
    if (!read) co_return read.error();
    auto session = noise->finish(response);
    if (!session) co_return session.error();
    std::unique_ptr<Stream> sealed = std::make_unique<SealedStream>(std::move(raw), std::move(*session));
    EarlyPayloadReader early;
    for (;;) {
        std::array<std::byte, 4096> buffer;
        auto count = co_await sealed->read_some(buffer);
        if (!count) co_return count.error();
        if (*count == 0) co_return Error::make("the server closed after the handshake");
        auto decided = early.feed(BytesView{buffer}.first(*count));
        if (!decided) co_return decided.error();
        if (*decided) break;
    }
    connection_ = Http2Client::start(replay(std::move(sealed), early.take_rest()), Http2Options{});
    co_return Result<void>{};
}

Task<Result<std::shared_ptr<Http2Answer>>> Node::post(std::string path, std::string body) {
    if (!connection_) {
        auto connected = co_await connect();
        if (!connected) co_return connected.error();
    }
    HttpRequest request;
    request.method = "POST";
    request.target = std::move(path);
    request.authority = server_.url.authority();
    request.body = std::move(body);
    auto answer = co_await connection_->request(std::move(request));
    co_return answer;
}

Task<Result<void>> Node::register_with(std::string auth_key) {
    wire::RegisterRequest request;
    request.version = kVersion;
    request.node_key = node_.public_key();
    request.auth = wire::RegisterAuth{std::move(auth_key)};
    request.hostinfo = hostinfo_of(number_);
    auto answer = co_await post("/machine/register", wire::write_register_request(request));
    if (!answer) co_return answer.error();
    auto body = co_await (*answer)->read_all(1 << 20);
    if (!body) co_return body.error();
    if ((*answer)->status() != 200) co_return Error::make("register answered {}: {}", (*answer)->status(), *body);
    auto response = wire::parse_register_response(*body);
    if (!response) co_return response.error();
    if (!response->error.empty()) co_return Error::make("register: {}", response->error);
    if (!response->auth_url.empty())
        co_return Error::make("register: the key was not enough, the server wants a login");
    co_return Result<void>{};
}

Task<Result<void>> Node::announce(std::string endpoint) {
    wire::MapRequest request;
    request.version = kVersion;
    request.compress = "zstd";
    request.keep_alive = true;
    request.node_key = node_.public_key();
    request.disco_key = disco_.public_key();
    request.hostinfo = hostinfo_of(number_);
    auto parsed = Endpoint::parse(endpoint);
    if (!parsed) co_return parsed.error();
    request.endpoints = {*parsed};
    request.endpoint_types = {static_cast<int>(wire::EndpointType::Local)};
    request.omit_peers = true;
    auto answer = co_await post("/machine/map", wire::write_map_request(request));
    if (!answer) co_return answer.error();
    auto body = co_await (*answer)->read_all(1 << 20);
    if (!body) co_return body.error();
    if ((*answer)->status() != 200) co_return Error::make("lite update answered {}: {}", (*answer)->status(), *body);
    co_return Result<void>{};
}

// Every node object has one StableID; parsing a million nodes as JSON would measure the client.
void Node::note_nodes(std::string_view json) {
    constexpr std::string_view kMark = "\"StableID\":\"";
    for (std::size_t at = find_text(json, kMark); at != std::string_view::npos; at = find_text(json, kMark, at)) {
        at += kMark.size();
        std::size_t node = ids_.number_of(json.substr(at, json.find('"', at) - at));
        if (node >= seen_.size()) seen_.resize(std::max(node + 1, seen_.size() * 2));
        if (!seen_[node]) ++nodes_seen_;
        seen_[node] = true;
    }
}

Task<Result<void>> Node::follow_map(std::function<void(Node&, std::string_view)> on_frame) {
    wire::MapRequest request;
    request.version = kVersion;
    request.compress = "zstd";
    request.keep_alive = true;
    request.stream = true;
    request.node_key = node_.public_key();
    request.disco_key = disco_.public_key();
    request.hostinfo = hostinfo_of(number_);
    auto answer = co_await post("/machine/map", wire::write_map_request(request));
    if (!answer) co_return answer.error();
    if ((*answer)->status() != 200) {
        auto text = co_await (*answer)->read_all(4096);
        co_return Error::make("map answered {}: {}", (*answer)->status(), text ? *text : "");
    }
    MapFrameReader frames{MapCompression::Zstd};
    for (;;) {
        auto piece = co_await (*answer)->read_some();
        if (!piece) co_return piece.error();
        if (piece->empty()) co_return Error::make("the server ended the map stream");
        frames.feed(as_bytes(*piece));
        for (;;) {
            auto frame = frames.next();
            if (!frame) co_return frame.error();
            if (!*frame) break;
            note_nodes(**frame);
            on_frame(*this, **frame);
        }
    }
}

} // namespace tailrace::bench
