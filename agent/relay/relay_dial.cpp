#include "agent/relay/relay_dial.hpp"
#include "base/io/proxy.hpp"
#include "base/io/socket.hpp"
#include "base/io/tls.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

// Source: tailscale derp/derphttp/derphttp_client.go.
constexpr Duration kDialNode = std::chrono::milliseconds{1500}; // look-up and connection, of both families
constexpr Duration kHeadStart = std::chrono::milliseconds{200};
constexpr std::uint16_t kPlainTestPort = 3340; // a development relay without TLS
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
    Race(Reactor& reactor, std::uint16_t to_port, std::uint32_t so_mark, TimePoint until)
        : port(to_port), mark(so_mark), deadline(until), news(reactor), hurry(reactor) {}
    std::uint16_t port;
    std::uint32_t mark;
    TimePoint deadline;
    Event news, hurry;
    std::size_t running = 0;
    std::unique_ptr<Stream> won;
    std::optional<Error> lost; ///< the first reason
    bool over = false;
};

Task<Result<std::unique_ptr<Stream>>> enter(Reactor& reactor, std::shared_ptr<Race> race, RelayDoor door) {
    auto addresses = co_await resolve(reactor, door.host);
    if (!addresses) co_return addresses.error();
    std::erase_if(*addresses, [&](const IpAddress& address) { return address.is_v6() != door.v6; });
    auto last = Error::make("{} has no {} address", door.host, door.v6 ? "IPv6" : "IPv4");
    auto left = static_cast<std::int64_t>(addresses->size());
    for (const IpAddress& address : *addresses) {
        DialOptions options;
        options.timeout = (race->deadline - reactor.now()) / left--; // a silent one must not eat the time of the next
        if (options.timeout <= Duration{}) break;
        if (!address.is_loopback()) options.mark = race->mark;
        auto socket = co_await dial_tcp(reactor, address.text(), race->port, options);
        if (socket) co_return std::move(socket);
        last = socket.error();
    }
    co_return last;
}

Task<void> run(Reactor& reactor, std::shared_ptr<Race> race, RelayDoor door, Duration delay) {
    if (delay > Duration{}) (void)co_await race->hurry.wait_for(delay); // until a rival fails, or time
    if (!race->over) {
        auto socket = co_await enter(reactor, race, std::move(door));
        if (socket && !race->over && !race->won)
            race->won = std::move(*socket);
        else if (!socket && !race->lost)
            race->lost = socket.error();
    }
    --race->running;
    race->hurry.notify();
    race->news.notify();
}

Task<Result<std::unique_ptr<Stream>>> by_proxy(Reactor& reactor, HttpProxy proxy, std::string host, std::uint16_t port,
                                               std::uint32_t mark, Duration limit) {
    DialOptions options;
    options.timeout = limit;
    options.mark = mark;
    co_return co_await dial_through(reactor, std::move(proxy), std::move(host), port, options);
}

/// The first family that connects. Who is slower ends by itself, later.
Task<Result<std::unique_ptr<Stream>>> first_of(Reactor& reactor, std::vector<RelayDoor> doors, std::uint16_t port,
                                               std::uint32_t mark, Duration limit, bool v6_works) {
    auto race = std::make_shared<Race>(reactor, port, mark, reactor.now() + limit);
    race->running = doors.size();
    auto delays = head_starts(doors, v6_works);
    for (std::size_t i = 0; i < doors.size(); ++i)
        spawn(reactor, "relay dial", run(reactor, race, doors[i], delays[i]));
    while (!race->won && race->running > 0 && reactor.now() < race->deadline)
        (void)co_await race->news.wait_for(race->deadline - reactor.now());
    race->over = true;
    if (race->won) co_return std::move(race->won);
    if (race->lost) co_return *race->lost;
    if (doors.empty()) co_return Error::make("the DERP map names no address and disables look-ups");
    co_return Error::from_errno(ETIMEDOUT, "connect to port {}", port);
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

std::vector<Duration> head_starts(const std::vector<RelayDoor>& doors, bool v6_works) {
    bool prefer_v6 = v6_works && std::ranges::any_of(doors, &RelayDoor::v6);
    bool any_literal = std::ranges::any_of(doors, &RelayDoor::literal);
    std::vector<Duration> out;
    for (const RelayDoor& door : doors) {
        bool waits = prefer_v6 ? !door.v6 : any_literal && !door.literal;
        out.push_back(waits ? kHeadStart : Duration{});
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

Task<Result<std::unique_ptr<Stream>>> dial_relay_node(Reactor& reactor, wire::DerpNode node, std::uint32_t mark,
                                                      RelayDialOptions options) {
    TimePoint deadline = reactor.now() + options.limit;
    std::uint16_t port = node.derp_port == 0 ? 443 : static_cast<std::uint16_t>(node.derp_port);
    auto proxy = ProxySettings::of_environment().find(true, node.host_name, port);
    if (!proxy) co_return proxy.error();
    auto dialling =
        *proxy ? by_proxy(reactor, **proxy, node.host_name, port, mark, options.limit)
               : first_of(reactor, relay_doors(node), port, mark, std::min(kDialNode, options.limit), options.v6_works);
    auto socket = co_await std::move(dialling);
    if (!socket || (node.insecure_for_tests && port == kPlainTestPort)) co_return std::move(socket);
    auto context = tls_for(node);
    if (!context) co_return context.error();
    Duration left = deadline - reactor.now();
    if (left <= Duration{}) co_return Error::from_errno(ETIMEDOUT, "TLS with {}", node.host_name);
    co_return co_await tls_connect(*context, std::move(*socket), node.host_name, left);
}

} // namespace tailrace
