#include "agent/relay/relay_dial.hpp"
#include "base/io/socket.hpp"
#include "base/io/tls.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr auto kDialNode = std::chrono::seconds{3};
constexpr std::uint16_t kPlainTestPort = 3340; // a development relay without TLS
constexpr std::string_view kPin = "sha256-raw:";

Result<TlsContext> tls_for(const wire::DerpNode& node) {
    if (node.cert_name.starts_with(kPin)) {
        auto digest = hex_decode(std::string_view{node.cert_name}.substr(kPin.size()));
        std::array<std::byte, 32> sha256{};
        if (!digest || digest->size() != sha256.size())
            return Error::make("relay {}: CertName \"{}\" is no SHA-256", node.name, node.cert_name);
        std::copy(digest->begin(), digest->end(), sha256.begin());
        return TlsContext::pinned(sha256);
    }
    return TlsContext::client(node.insecure_for_tests ? TlsContext::Verify::None : TlsContext::Verify::Strict);
}

} // namespace

std::vector<std::string> relay_hosts(const wire::DerpNode& node) {
    std::vector<std::string> out;
    for (const std::string& literal : {node.ipv4, node.ipv6}) {
        auto address = IpAddress::parse(literal);
        if (address && address->valid()) out.push_back(literal);
    }
    if (out.empty()) out.push_back(node.host_name);
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

Task<Result<std::unique_ptr<Stream>>> dial_relay_node(Reactor& reactor, wire::DerpNode node, std::string host,
                                                      std::uint32_t mark) {
    std::uint16_t port = node.derp_port == 0 ? 443 : static_cast<std::uint16_t>(node.derp_port);
    DialOptions options;
    options.timeout = kDialNode;
    auto address = IpAddress::parse(host);
    if (!address || !address->is_loopback()) options.mark = mark;
    auto socket = co_await dial_tcp(reactor, host, port, options);
    if (!socket || (node.insecure_for_tests && port == kPlainTestPort)) co_return std::move(socket);
    auto context = tls_for(node);
    if (!context) co_return context.error();
    std::string name = node.host_name;
    if (!node.cert_name.empty() && !node.cert_name.starts_with(kPin)) name = node.cert_name;
    co_return co_await tls_connect(*context, std::move(*socket), name, kDialNode);
}

} // namespace tailrace
