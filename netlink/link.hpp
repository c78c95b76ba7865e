// Network interfaces: find, make, change and list them.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/net.hpp"
#include "base/result.hpp"
#include "netlink/socket.hpp"

namespace tailrace {

struct InterfaceAddress {
    IpPrefix prefix;         ///< host bits kept: 192.168.1.5/24
    bool deprecated = false; ///< usable, but not for new connections
    bool tentative = false;  ///< IPv6: not proven to be unique (yet)
};

struct Link {
    int index = 0;
    std::string name;
    std::string kind; ///< "wireguard", "tun", "veth"...; empty for hardware and loopback
    std::uint32_t mtu = 0;
    bool up = false;      ///< the administrator wants it
    bool running = false; ///< and it has a carrier
    bool loopback = false;
    bool point_to_point = false;
    std::vector<InterfaceAddress> addresses; ///< only from list() and find()
};

enum class LinkState { Down, Up };

/// The kernel's interfaces in the network namespace in which it was opened.
class Links {
public:
    static Result<Links> open();

    Result<std::vector<Link>> list();                          ///< with addresses, by index
    Result<std::optional<Link>> find(const std::string& name); ///< with addresses; empty: no such interface
    /// Makes a link that has no settings of its own ("wireguard", "dummy"), down. An existing name is an error
    /// (EEXIST).
    Result<Link> create(const std::string& name, const std::string& kind);
    Result<void> remove(const std::string& name); ///< no such interface is success
    Result<void> set_state(int index, LinkState state);
    Result<void> set_mtu(int index, std::uint32_t mtu);

private:
    explicit Links(NetlinkSocket socket) : socket_(std::move(socket)) {}
    Result<std::vector<Link>> links(const std::string& only);
    Result<void> add_addresses(std::vector<Link>& links, int only);

    NetlinkSocket socket_;
};

} // namespace tailrace
