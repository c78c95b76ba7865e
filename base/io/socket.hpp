// base/io/socket.hpp - listening and dialling: TCP, Unix, UDP.
#pragma once
#include "base/io/stream.hpp"

#include <optional>
#include <string>
#include <sys/types.h>

namespace tailrace {

/// Who a local program is, as the kernel says (SO_PEERCRED).
struct PeerCredentials {
    pid_t pid = 0;
    uid_t uid = 0;
    gid_t gid = 0;
};
Result<PeerCredentials> peer_credentials(int unix_socket);

/// A listening socket, TCP or Unix. The Unix socket's file goes when the Listener goes.
class Listener {
public:
    /// An unspecified IPv6 address listens for both families. Port 0 lets the kernel choose.
    static Result<Listener> tcp(Reactor& reactor, const Endpoint& at);
    /// Replaces the file of a dead server, refuses (EADDRINUSE) when a live one answers. `mode` is the file's.
    static Result<Listener> unix_socket(Reactor& reactor, const std::string& path, mode_t mode);
    /// One that is listening already, such as the service manager gives; its file is not ours.
    static Listener adopt(Reactor& reactor, Fd socket) { return Listener{reactor, std::move(socket), ""}; }
    Listener(Listener&&) noexcept = default;
    Listener& operator=(Listener&&) = delete;
    ~Listener();

    /// Waits through passing troubles (too many open files) instead of failing for ever.
    Task<Result<std::unique_ptr<Stream>>> accept();
    Endpoint local() const;
    void close() { descriptor_.close(); }

private:
    Listener(Reactor& reactor, Fd socket, std::string path)
        : descriptor_(reactor, std::move(socket)), path_(std::move(path)) {}
    Descriptor descriptor_;
    std::string path_;
};

/// ":8080", "127.0.0.1:8080", "[::]:443", "8080".
Result<Endpoint> parse_listen_address(std::string_view text);

struct DialOptions {
    Duration timeout = std::chrono::seconds{10}; ///< for everything, name look-up included
    std::uint32_t mark = 0;                      ///< SO_MARK, 0 for none
};
/// Looks the name up on a worker and tries its addresses in turn.
Task<Result<std::unique_ptr<Stream>>> dial_tcp(Reactor& reactor, std::string host, std::uint16_t port,
                                               DialOptions options);
Task<Result<std::unique_ptr<Stream>>> dial_unix(Reactor& reactor, std::string path);

/// The addresses of a name, in the order to try them. A literal address is its own answer.
Task<Result<std::vector<IpAddress>>> resolve(Reactor& reactor, std::string host);

struct Datagram {
    Endpoint from;
    Endpoint to; ///< where the sender sent it (IP_RECVORIGDSTADDR), the zero value when unknown
    Bytes data;
};

/// A UDP socket of one family.
class UdpSocket {
public:
    struct Options {
        std::uint32_t mark = 0;            ///< SO_MARK, 0 for none
        bool original_destination = false; ///< fill Datagram::to
        std::string device;                ///< SO_BINDTODEVICE; empty: any
        bool reuse_address = false;        ///< SO_REUSEADDR: others listen for the same announcements
        bool transparent = false;          ///< IP_TRANSPARENT: may receive what tc assigns to it for foreign ports
        std::uint16_t avoid = 0;           ///< not this one, where the kernel chooses the port
    };
    static Result<UdpSocket> bind(Reactor& reactor, const Endpoint& at, Options options);

    Task<Result<Datagram>> receive();
    /// For who calls recvmsg(2) himself.
    Descriptor::Wait readable() { return descriptor_.readable(); }
    /// EAGAIN when there is none.
    Result<Datagram> try_receive();
    /// From now on only what this one sends is received, and that nobody is there is an error of receive().
    Result<void> connect(const Endpoint& to);
    /// EAGAIN when the send buffer is full: datagrams may be lost anyway, nobody waits for them.
    Result<void> send(const Endpoint& to, BytesView data);
    /// IPv4 only: from this local address, for a socket that is bound to none.
    Result<void> send_from(const IpAddress& from, const Endpoint& to, BytesView data);
    Endpoint local() const;
    int fd() const { return descriptor_.fd(); }
    void close() { descriptor_.close(); }

private:
    UdpSocket(Reactor& reactor, Fd socket) : descriptor_(reactor, std::move(socket)) {}
    Descriptor descriptor_;
    bool connected_ = false;
};

} // namespace tailrace
