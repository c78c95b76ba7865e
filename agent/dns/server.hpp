// agent/dns/server.hpp - listens for questions of this host at the service addresses, UDP and TCP port 53 (dns.md 1).
#pragma once
#include "agent/dns/ask.hpp"
#include "base/io/socket.hpp"
#include "base/net.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace tailrace {

class DnsServer {
public:
    static constexpr int kMostQueries = 256;    ///< at a time; more are not answered. Source: dns.md 1
    static constexpr int kMostConnections = 64; ///< over TCP
    static constexpr auto kIdle = std::chrono::seconds{45};
    static constexpr std::size_t kMostTcpQuery = 4096;
    /// Empty bytes, or an error: nothing is said.
    using Answer = std::function<Task<Result<Bytes>>(Bytes query, DnsTransport transport)>;
    /// Whether a question from there is one of this host.
    using IsOurs = std::function<bool(const IpAddress&)>;

    DnsServer(Reactor& reactor, Answer answer, IsOurs is_ours, std::uint16_t port = 53);
    ~DnsServer();

    /// Listens on these and on no others. Call again when one could not be had.
    void set_addresses(const std::vector<IpAddress>& addresses);
    /// Of each address that was asked for.
    bool is_listening() const { return trouble_.empty() && !sockets_.empty(); }
    const std::string& trouble() const { return trouble_; }
    /// Where it listens; port() of the options may be 0 in tests.
    std::vector<Endpoint> endpoints() const;

private:
    struct Sockets;
    Result<std::shared_ptr<Sockets>> open(const IpAddress& address);
    static Task<void> hear(std::shared_ptr<bool> alive, DnsServer* self, std::shared_ptr<Sockets> sockets);
    static Task<void> reply(std::shared_ptr<bool> alive, DnsServer* self, std::shared_ptr<Sockets> sockets,
                            Datagram question);
    static Task<void> accept(std::shared_ptr<bool> alive, DnsServer* self, std::shared_ptr<Sockets> sockets);
    static Task<void> serve(std::shared_ptr<bool> alive, DnsServer* self, std::unique_ptr<Stream> stream);

    Reactor& reactor_;
    Answer answer_;
    IsOurs is_ours_;
    std::uint16_t port_;
    std::map<IpAddress, std::shared_ptr<Sockets>> sockets_;
    std::string trouble_;
    int queries_ = 0, connections_ = 0;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// The answer to a question over UDP as it is sent: marked where it is longer than the client takes. Pure.
Bytes fit_udp_answer(BytesView query, Bytes answer);

} // namespace tailrace
