// tests/bpf/tun_room.hpp - a network namespace with one TUN device: what is written to it comes in as from a peer.
#pragma once
#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "tests/bpf/packet.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace tailrace::test {

/// The addresses of the device are 100.64.0.16 and fd7a:115c:a1e0::10; the thread is in the namespace while a test
/// runs.
class TunRoom : public ::testing::Test {
public:
    static constexpr const char* kDevice = "trtest0";
    static constexpr const char* kR = "100.64.0.16";
    static constexpr const char* kR6 = "fd7a:115c:a1e0::10";
    static constexpr const char* kA = "100.64.0.19";
    static constexpr const char* kA6 = "fd7a:115c:a1e0::13";
    static constexpr const char* kB = "100.64.0.17";

protected:
    void SetUp() override;
    void TearDown() override;

    /// A packet comes in.
    void arrive(const Packet& packet) { arrive(packet.bytes()); }
    void arrive(const Bytes& packet);
    /// The next packet that left by the device.
    std::optional<Bytes> depart();
    /// A socket bound to the wildcard address of a family.
    static Fd udp_socket(int family, std::uint16_t port);
    /// The datagrams that wait in a socket.
    static int received(const Fd& socket);
    static int run(const std::string& command);

private:
    Fd home_, tun_;
};

} // namespace tailrace::test
