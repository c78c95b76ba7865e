// A flood of forged handshake initiations: right in all that costs nothing to make right (length, type, mac1), each
// from another source address. For measurements and tests, on networks of one's own.
#include "base/fd.hpp"
#include "base/net.hpp"
#include "base/random.hpp"
#include "base/result.hpp"
#include "base/text.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

namespace {

using namespace tailrace;

constexpr std::size_t kInitiationBytes = 148, kHeaderBytes = 14 + 20 + 8;
constexpr std::size_t kPool = 1024; // different messages: each takes a hash to make
constexpr std::size_t kBatch = 64;
constexpr std::uint32_t kSources = 0xc6120000; // 198.18.0.0/15, for measurements. RFC 2544
using Frame = std::array<unsigned char, kHeaderBytes + kInitiationBytes>;

struct Options {
    std::string interface, to, mac, key;
    std::uint16_t port = 41641;
    std::uint64_t rate = 0;
    double seconds = 5;
};

std::atomic<bool> stopped{false};

/// BLAKE2s-128 of `data` keyed with BLAKE2s-256("mac1----" | public key). Source: WireGuard, section 5.4.4.
void write_mac1(unsigned char* mac, const unsigned char* data, std::size_t bytes,
                const std::vector<unsigned char>& key) {
    std::unique_ptr<EVP_MAC, void (*)(EVP_MAC*)> method{::EVP_MAC_fetch(nullptr, "BLAKE2SMAC", nullptr),
                                                        &::EVP_MAC_free};
    std::unique_ptr<EVP_MAC_CTX, void (*)(EVP_MAC_CTX*)> context{::EVP_MAC_CTX_new(method.get()), &::EVP_MAC_CTX_free};
    std::size_t size = 16;
    OSSL_PARAM wanted[] = {::OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size), ::OSSL_PARAM_construct_end()};
    ::EVP_MAC_init(context.get(), key.data(), key.size(), wanted);
    ::EVP_MAC_update(context.get(), data, bytes);
    ::EVP_MAC_final(context.get(), mac, &size, size);
}

std::vector<unsigned char> mac1_key(BytesView public_key) {
    std::vector<unsigned char> text(8 + public_key.size()), out(32);
    std::copy_n("mac1----", 8, text.begin());
    std::transform(public_key.begin(), public_key.end(), text.begin() + 8,
                   [](std::byte b) { return std::to_integer<unsigned char>(b); });
    unsigned size = 32;
    ::EVP_Digest(text.data(), text.size(), out.data(), &size, ::EVP_blake2s256(), nullptr);
    return out;
}

void put16(unsigned char* at, std::uint32_t value) {
    at[0] = static_cast<unsigned char>(value >> 8);
    at[1] = static_cast<unsigned char>(value);
}

void put32(unsigned char* at, std::uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}

/// All but the source address and port, which change with each packet.
Frame forge(const Options& options, const std::array<unsigned char, 6>& mac, const IpAddress& to,
            const std::vector<unsigned char>& key) {
    Frame frame{};
    std::copy(mac.begin(), mac.end(), frame.begin());
    frame[6] = 2; // from nobody's address, a local one
    put16(&frame[12], 0x0800);
    unsigned char* ip = &frame[14];
    ip[0] = 0x45;
    put16(ip + 2, static_cast<std::uint32_t>(frame.size() - 14));
    ip[8] = 64;
    ip[9] = IPPROTO_UDP;
    put32(ip + 16, to.v4_value());
    unsigned char* udp = ip + 20;
    put16(udp + 2, options.port);
    put16(udp + 4, 8 + kInitiationBytes); // no checksum: IPv4 lets that be
    unsigned char* message = udp + 8;
    auto noise = random_array<kInitiationBytes>();
    for (std::size_t i = 0; i < noise.size(); ++i) message[i] = std::to_integer<unsigned char>(noise[i]);
    message[0] = 1;
    message[1] = message[2] = message[3] = 0;
    write_mac1(message + 116, message, 116, key);
    std::fill_n(message + 132, 16, static_cast<unsigned char>(0)); // no cookie
    return frame;
}

void give_source(Frame& frame, std::uint32_t random) {
    unsigned char* ip = &frame[14];
    put32(ip + 12, kSources | (random & 0x1ffff));
    put16(ip + 20, 1024 + (random >> 17));
    put16(ip + 10, 0);
    std::uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2) sum += static_cast<std::uint32_t>(ip[i] << 8 | ip[i + 1]);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    put16(ip + 10, ~sum & 0xffff);
}

Result<int> flood(const Options& options) {
    auto to = IpAddress::parse(options.to);
    if (!to || !to->is_v4()) return Error::make("--to {}: want an IPv4 address", options.to);
    std::array<unsigned char, 6> mac{};
    if (std::sscanf(options.mac.c_str(), "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
                    &mac[5]) != 6)
        return Error::make("--mac {}: want six bytes", options.mac);
    auto public_key = hex_decode(options.key);
    if (!public_key || public_key->size() != 32) return Error::make("--key: want 64 hexadecimal digits");
    sockaddr_ll where{};
    where.sll_family = AF_PACKET;
    where.sll_ifindex = static_cast<int>(::if_nametoindex(options.interface.c_str()));
    if (where.sll_ifindex == 0) return Error::from_errno(errno, "--interface {}", options.interface);
    Fd socket{::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)};
    if (!socket) return Error::from_errno(errno, "open a packet socket");
    int yes = 1;
    (void)::setsockopt(socket.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes); // faster; without it works too

    auto key = mac1_key(*public_key);
    std::vector<Frame> frames;
    for (std::size_t i = 0; i < kPool; ++i) frames.push_back(forge(options, mac, *to, key));
    std::array<iovec, kBatch> pieces{};
    std::array<mmsghdr, kBatch> messages{};
    for (std::size_t i = 0; i < kBatch; ++i) {
        messages[i].msg_hdr.msg_name = &where;
        messages[i].msg_hdr.msg_namelen = sizeof where;
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    std::uint64_t state = random_u64() | 1, sent = 0;
    std::size_t next = 0;
    auto begun = std::chrono::steady_clock::now();
    auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count(); };
    while (!stopped && elapsed() < options.seconds) {
        if (options.rate != 0 && static_cast<double>(sent) > elapsed() * static_cast<double>(options.rate)) {
            std::this_thread::sleep_for(std::chrono::microseconds{100});
            continue;
        }
        for (std::size_t i = 0; i < kBatch; ++i, next = (next + 1) % kPool) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17; // xorshift: sources, no secrets
            give_source(frames[next], static_cast<std::uint32_t>(state >> 32));
            pieces[i] = {frames[next].data(), frames[next].size()};
        }
        int done = ::sendmmsg(socket.get(), messages.data(), kBatch, 0);
        if (done > 0)
            sent += static_cast<std::uint64_t>(done);
        else if (errno != ENOBUFS && errno != EAGAIN)
            return Error::from_errno(errno, "send to {}", options.interface);
    }
    fmt::print("{{\"sent\":{},\"seconds\":{:.3f}}}\n", sent, elapsed());
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app{"Sends forged WireGuard handshake initiations, each from another address in 198.18.0.0/15.", "flood"};
    app.add_option("--interface", options.interface, "where to send")->required();
    app.add_option("--to", options.to, "IPv4 address")->required();
    app.add_option("--mac", options.mac, "Ethernet address of it")->required();
    app.add_option("--key", options.key, "its public key, hexadecimal")->required();
    app.add_option("--port", options.port)->capture_default_str();
    app.add_option("--rate", options.rate, "a second; 0: as fast as it goes")->capture_default_str();
    app.add_option("--seconds", options.seconds)->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    struct sigaction stop {};
    stop.sa_handler = [](int) { stopped = true; };
    ::sigaction(SIGINT, &stop, nullptr);
    ::sigaction(SIGTERM, &stop, nullptr);
    auto outcome = flood(options);
    if (outcome) return *outcome;
    fmt::print(stderr, "flood: {}\n", outcome.error().message());
    return 1;
}
