#include "netlink/wireguard_uapi.hpp"

#include "base/random.hpp"
#include "base/text.hpp"
#include "netlink/link.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace tailrace {
namespace {

constexpr std::size_t kAnswerLimitBytes = 64 << 20;
constexpr int kEndLimitMs = 5000;

void wipe(std::string& text) {
    sodium_memzero(text.data(), text.size());
}

void write_peer(const WireGuardPeerChange& change, std::string& out) {
    using Kind = WireGuardPeerChange::Kind;
    out += fmt::format("public_key={}\n", hex_encode(change.public_key));
    if (change.kind == Kind::Remove) {
        out += "remove=true\n";
        return;
    }
    if (change.kind == Kind::Update) out += "update_only=true\n";
    if (change.clear_preshared_key) out += fmt::format("preshared_key={}\n", hex_encode(WireGuardKey{}));
    if (change.endpoint) out += fmt::format("endpoint={}\n", change.endpoint->text());
    if (change.keepalive_seconds) out += fmt::format("persistent_keepalive_interval={}\n", *change.keepalive_seconds);
    if (change.replace_allowed_ips) out += "replace_allowed_ips=true\n";
    for (const auto& prefix : change.add_allowed_ips) out += fmt::format("allowed_ip={}\n", prefix.text());
}

Result<WireGuardKey> parse_key(std::string_view text) {
    auto bytes = hex_decode(text);
    if (!bytes) return bytes.error();
    WireGuardKey key{};
    if (bytes->size() != key.size()) return Error::make("a key of {} bytes", bytes->size());
    std::copy(bytes->begin(), bytes->end(), key.begin());
    sodium_memzero(bytes->data(), bytes->size());
    return key;
}

template <typename T>
Result<void> read_number(std::string_view text, T& into) {
    auto number = parse_number<T>(text);
    if (!number) return number.error();
    into = *number;
    return {};
}

/// One "key=value" line of a peer.
Result<void> read_peer_line(std::string_view name, std::string_view value, WireGuardPeerState& peer) {
    if (name == "endpoint") {
        auto endpoint = Endpoint::parse(value);
        if (!endpoint) return endpoint.error();
        peer.endpoint = *endpoint;
    } else if (name == "allowed_ip") {
        auto prefix = IpPrefix::parse(value);
        if (!prefix) return prefix.error();
        if (prefix->valid()) peer.allowed_ips.push_back(prefix->masked());
    } else if (name == "preshared_key") {
        auto key = parse_key(value);
        if (!key) return key.error();
        peer.has_preshared_key = *key != WireGuardKey{};
    } else if (name == "persistent_keepalive_interval") {
        return read_number(value, peer.keepalive_seconds);
    } else if (name == "rx_bytes") {
        return read_number(value, peer.rx_bytes);
    } else if (name == "tx_bytes") {
        return read_number(value, peer.tx_bytes);
    } else if (name == "last_handshake_time_sec" || name == "last_handshake_time_nsec") {
        std::int64_t number = 0;
        if (auto read = read_number(value, number); !read) return read.error();
        if (number == 0) return {};
        if (!peer.last_handshake) peer.last_handshake = WallTime::from_unix(0);
        if (name == "last_handshake_time_sec")
            peer.last_handshake->seconds = number;
        else
            peer.last_handshake->nanos = static_cast<std::int32_t>(std::clamp<std::int64_t>(number, 0, 999'999'999));
    }
    return {}; // protocol_version, and whatever newer implementations say
}

Result<void> read_device_line(std::string_view name, std::string_view value, WireGuardState& state) {
    if (name == "private_key") {
        auto key = parse_key(value);
        if (!key) return key.error();
        std::copy(key->begin(), key->end(), state.private_key.mutable_view().begin());
        sodium_memzero(key->data(), key->size());
    } else if (name == "listen_port") {
        return read_number(value, state.listen_port);
    } else if (name == "fwmark") {
        return read_number(value, state.fwmark);
    }
    return {};
}

} // namespace

std::string uapi_set_text(const WireGuardChanges& changes) {
    std::string out;
    out.reserve(256 + changes.peers.size() * 256 + changes.orphaned_allowed_ips.size() * 64);
    out += "set=1\n";
    if (changes.private_key) {
        std::string key = hex_encode(changes.private_key->view());
        out += fmt::format("private_key={}\n", key);
        wipe(key);
    }
    if (changes.fwmark) out += fmt::format("fwmark={}\n", *changes.fwmark);
    if (changes.listen_port) out += fmt::format("listen_port={}\n", *changes.listen_port);
    for (const auto& peer : changes.peers) write_peer(peer, out);
    if (!changes.orphaned_allowed_ips.empty()) {
        WireGuardPeerChange nobody;
        nobody.kind = WireGuardPeerChange::Kind::Add;
        nobody.public_key = random_array<32>();
        nobody.add_allowed_ips = changes.orphaned_allowed_ips;
        write_peer(nobody, out);
        write_peer({.kind = WireGuardPeerChange::Kind::Remove, .public_key = nobody.public_key}, out);
    }
    out += "\n";
    return out;
}

Result<WireGuardState> parse_uapi_state(std::string_view text) {
    WireGuardState state;
    bool ended = false;
    for (std::string_view line : split(text, '\n')) {
        if (line.empty()) continue;
        const auto equals = line.find('=');
        if (equals == std::string_view::npos) return Error::make("a line without \"=\" from the WireGuard socket");
        const auto name = line.substr(0, equals);
        const auto value = line.substr(equals + 1);
        if (name == "errno") {
            std::int64_t code = 0;
            if (auto read = read_number(value, code); !read) return read.error().with("errno");
            if (code != 0) return Error::from_errno(static_cast<int>(std::abs(code % 4096)), "WireGuard socket");
            ended = true;
            continue;
        }
        if (name == "public_key") {
            auto key = parse_key(value);
            if (!key) return key.error().with("public_key");
            WireGuardPeerState peer;
            peer.public_key = *key;
            state.peers.push_back(std::move(peer));
            continue;
        }
        auto read = state.peers.empty() ? read_device_line(name, value, state)
                                        : read_peer_line(name, value, state.peers.back());
        if (!read) return read.error().with("{} from the WireGuard socket", name);
    }
    if (!ended) return Error::make("the answer of the WireGuard socket ends early");
    for (auto& peer : state.peers) std::sort(peer.allowed_ips.begin(), peer.allowed_ips.end());
    return state;
}

std::string UapiWireGuard::socket_path(const std::string& name) {
    return fmt::format("{}/{}.sock", kSocketDirectory, name);
}

Result<Fd> UapiWireGuard::connect(const std::string& name) {
    const std::string path = socket_path(name);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return Error::from_errno(ENAMETOOLONG, "connect to {}", path);
    path.copy(address.sun_path, path.size());

    Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (!fd) return Error::from_errno(errno, "open unix socket");
    // It answers when all is done, and computes a shared secret for each new peer: thousands take seconds.
    timeval limit{.tv_sec = 30, .tv_usec = 0};
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        return Error::from_errno(errno, "connect to {}", path);
    return fd;
}

Result<std::unique_ptr<WireGuardDevice>> UapiWireGuard::open(const std::string& name) {
    if (auto answers = connect(name); !answers) return answers.error();
    return std::unique_ptr<WireGuardDevice>{new UapiWireGuard{name}};
}

Result<std::string> UapiWireGuard::talk(std::string_view request) {
    auto fd = connect(name_);
    if (!fd) return fd.error();
    while (!request.empty()) {
        ssize_t sent = ::send(fd->get(), request.data(), request.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return Error::from_errno(errno, "write to {}", socket_path(name_));
        request.remove_prefix(static_cast<std::size_t>(sent));
    }
    std::string answer;
    std::array<char, 16384> piece;
    while (!answer.ends_with("\n\n")) {
        ssize_t got = ::recv(fd->get(), piece.data(), piece.size(), 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return Error::from_errno(errno, "read from {}", socket_path(name_));
        if (got == 0) break;
        answer.append(piece.data(), static_cast<std::size_t>(got));
        if (answer.size() > kAnswerLimitBytes) return Error::make("the answer of {} does not end", socket_path(name_));
    }
    sodium_memzero(piece.data(), piece.size());
    return answer;
}

Result<WireGuardState> UapiWireGuard::read() {
    auto answer = talk("get=1\n\n");
    if (!answer) return answer.error().with("read WireGuard device {}", name_);
    auto state = parse_uapi_state(*answer);
    wipe(*answer);
    if (!state) return state.error().with("read WireGuard device {}", name_);
    return state;
}

Result<void> UapiWireGuard::apply(const WireGuardChanges& changes) {
    std::string request = uapi_set_text(changes);
    auto answer = talk(request);
    wipe(request);
    if (!answer) return answer.error().with("change WireGuard device {}", name_);
    if (auto outcome = parse_uapi_state(*answer); !outcome)
        return outcome.error().with("change WireGuard device {}", name_);
    return {};
}

Result<void> UapiWireGuard::remove() {
    // wireguard-go ends when its link goes, and takes its socket's file away at its end. Who starts the next before
    // that would lose the new one's file.
    auto links = Links::open();
    if (!links) return links.error();
    if (auto removed = links->remove(name_); !removed) return removed.error();
    const std::string path = socket_path(name_);
    for (int waited = 0; waited < kEndLimitMs && ::access(path.c_str(), F_OK) == 0; waited += 10) {
        if (auto alive = connect(name_); !alive && alive.error().code() == ECONNREFUSED)
            break; // left by one that was killed
        ::usleep(10000);
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return Error::from_errno(errno, "remove {}", path);
    return {};
}

} // namespace tailrace
