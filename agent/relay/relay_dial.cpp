#include "agent/relay/relay_dial.hpp"
#include "base/io/proxy.hpp"
#include "base/io/socket.hpp"
#include "base/io/tls.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr auto kDialNode = std::chrono::milliseconds{1500};
constexpr auto kDialProxy = std::chrono::seconds{5}; // and the relay from there
constexpr auto kTls = std::chrono::seconds{3};
constexpr auto kHeadStart = std::chrono::milliseconds{200}; // of an address over a name, which costs a look-up
constexpr std::uint16_t kPlainTestPort = 3340;              // a development relay without TLS
constexpr std::string_view kPin = "sha256-raw:";

Result<TlsContext> tls_for(const wire::DerpNode& node) {
    if (node.cert_name.starts_with(kPin)) {
        auto sha256 = parse_certificate_pin(node.cert_name);
        if (!sha256) return sha256.error().with("CertName of relay {}", node.name);
        return TlsContext::pinned(*sha256);
    }
    return TlsContext::client(node.insecure_for_tests ? TlsContext::Verify::None : TlsContext::Verify::Strict,
                              node.cert_name);
}

struct Race {
    explicit Race(Reactor& reactor) : news(reactor), hurry(reactor) {}
    Event news, hurry;
    std::size_t running = 0;
    std::unique_ptr<Stream> won;
    std::optional<Error> lost; ///< the first reason
    bool over = false;
};

Task<Result<std::unique_ptr<Stream>>> enter(Reactor& reactor, RelayDoor door, std::uint16_t port, std::uint32_t mark) {
    TimePoint deadline = reactor.now() + kDialNode;
    auto addresses = co_await resolve(reactor, door.host);
    if (!addresses) co_return addresses.error();
    std::erase_if(*addresses, [&](const IpAddress& address) { return address.is_v6() != door.v6; });
    auto last = Error::make("{} has no {} address", door.host, door.v6 ? "IPv6" : "IPv4");
    auto left = static_cast<std::int64_t>(addresses->size());
    for (const IpAddress& address : *addresses) {
        DialOptions options;
        options.timeout = (deadline - reactor.now()) / left--; // a silent one must not eat the time of the next
        if (options.timeout <= Duration{}) break;
        if (!address.is_loopback()) options.mark = mark;
        auto socket = co_await dial_tcp(reactor, address.text(), port, options);
        if (socket) co_return std::move(socket);
        last = socket.error();
    }
    co_return last;
}

Task<void> run(Reactor& reactor, std::shared_ptr<Race> race, RelayDoor door, std::uint16_t port, std::uint32_t mark,
               Duration delay) {
    if (delay > Duration{}) (void)co_await race->hurry.wait_for(delay); // until a rival fails, or time
    if (!race->over) {
        auto socket = co_await enter(reactor, std::move(door), port, mark);
        if (socket && !race->won)
            race->won = std::move(*socket);
        else if (!socket && !race->lost)
            race->lost = socket.error();
    }
    --race->running;
    race->hurry.notify();
    race->news.notify();
}

Task<Result<std::unique_ptr<Stream>>> by_proxy(Reactor& reactor, HttpProxy proxy, std::string host, std::uint16_t port,
                                               std::uint32_t mark) {
    DialOptions options;
    options.timeout = kDialProxy;
    options.mark = mark;
    co_return co_await dial_through(reactor, std::move(proxy), std::move(host), port, options);
}

/// The first family that connects.
Task<Result<std::unique_ptr<Stream>>> race(Reactor& reactor, std::vector<RelayDoor> doors, std::uint16_t port,
                                           std::uint32_t mark) {
    auto race = std::make_shared<Race>(reactor);
    race->running = doors.size();
    bool any_literal = std::ranges::any_of(doors, &RelayDoor::literal);
    for (const RelayDoor& door : doors) {
        Duration delay = any_literal && !door.literal ? Duration{kHeadStart} : Duration{};
        spawn(reactor, "relay dial", run(reactor, race, door, port, mark, delay));
    }
    while (!race->won && race->running > 0) co_await race->news.wait();
    race->over = true;
    if (race->won) co_return std::move(race->won);
    co_return race->lost ? *race->lost : Error::make("the DERP map names no address and disables look-ups");
}

} // namespace

std::vector<RelayDoor> relay_doors(const wire::DerpNode& node) {
    std::vector<RelayDoor> out;
    auto name = IpAddress::parse(node.host_name);
    bool named_by_address = name && name->valid();
    for (bool v6 : {false, true}) {
        const std::string& text = v6 ? node.ipv6 : node.ipv4;
        auto address = IpAddress::parse(text);
        if (address && address->valid() && address->is_v6() == v6)
            out.push_back({v6, true, text});
        else if (text.empty() && named_by_address && name->is_v6() == v6)
            out.push_back({v6, true, node.host_name});
        else if (text.empty() && !named_by_address)
            out.push_back({v6, false, node.host_name});
    }
    return out;
}

std::optional<NodeKey> key_in_certificates(const TlsPeer& peer) {
    constexpr std::string_view kPrefix = "derpkey";
    if (!peer.tls13) return std::nullopt; // before 1.3 certificates travel in the clear
    for (const TlsPeer::Certificate& certificate : peer.certificates) {
        std::string_view name = certificate.common_name;
        if (!name.starts_with(kPrefix) || !certificate.serial || *certificate.serial > 255) continue;
        auto key = hex_decode(name.substr(kPrefix.size()));
        if (!key || key->size() != NodeKey::kSize) return std::nullopt;
        std::array<std::byte, NodeKey::kSize> raw{};
        std::copy(key->begin(), key->end(), raw.begin());
        return NodeKey{raw};
    }
    return std::nullopt;
}

Task<Result<std::unique_ptr<Stream>>> dial_relay_node(Reactor& reactor, wire::DerpNode node, std::uint32_t mark) {
    std::uint16_t port = node.derp_port == 0 ? 443 : static_cast<std::uint16_t>(node.derp_port);
    auto proxy = ProxySettings::of_environment().find(true, node.host_name, port);
    if (!proxy) co_return proxy.error();
    auto dialling =
        *proxy ? by_proxy(reactor, **proxy, node.host_name, port, mark) : race(reactor, relay_doors(node), port, mark);
    auto socket = co_await std::move(dialling);
    if (!socket || (node.insecure_for_tests && port == kPlainTestPort)) co_return std::move(socket);
    auto context = tls_for(node);
    if (!context) co_return context.error();
    co_return co_await tls_connect(*context, std::move(*socket), node.host_name, kTls);
}

} // namespace tailrace
