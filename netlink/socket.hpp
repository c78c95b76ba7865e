// A netlink socket that asks and waits for the answer. Not for events: see monitor.hpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/net.hpp"
#include "base/result.hpp"

struct nlmsghdr;
struct nlattr;

namespace tailrace {

/// One netlink message while it is written. Grows as needed up to what a netlink attribute can hold.
class NetlinkMessage {
public:
    NetlinkMessage(std::uint16_t type, std::uint16_t flags);

    static NetlinkMessage copy_of(const nlmsghdr& message); ///< for what libnftnl built

    /// Appends a fixed header (ifinfomsg, rtmsg, ...) right after the netlink header.
    void header(const void* data, std::size_t size_bytes);
    template <typename T>
    void header(const T& value) {
        header(&value, sizeof value);
    }

    void put(std::uint16_t type, const void* data, std::size_t size_bytes);
    void put_u8(std::uint16_t type, std::uint8_t value) { put(type, &value, sizeof value); }
    void put_u16(std::uint16_t type, std::uint16_t value) { put(type, &value, sizeof value); }
    void put_u32(std::uint16_t type, std::uint32_t value) { put(type, &value, sizeof value); }
    void put_address(std::uint16_t type, const IpAddress& address);
    void put_text(std::uint16_t type, std::string_view text); ///< with its final NUL
    void put_flag(std::uint16_t type) { put(type, nullptr, 0); }

    std::size_t begin_nest(std::uint16_t type); ///< returns what end_nest() wants back
    void end_nest(std::size_t nest);

    void wipe(); ///< for messages that carried a key
    std::size_t size_bytes() const { return bytes_.size(); }
    nlmsghdr* get() { return reinterpret_cast<nlmsghdr*>(bytes_.data()); }
    std::span<const std::byte> bytes() const { return bytes_; }

private:
    NetlinkMessage() = default;
    std::vector<std::byte> bytes_; ///< always a multiple of four long; nlmsg_len is kept equal
};

/// Blocking socket for requests. The kernel answers requests at once, so nothing here waits for the world; a time limit
/// of 5 s stands behind it all the same.
class NetlinkSocket {
public:
    static Result<NetlinkSocket> open(int protocol); ///< NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_NETFILTER

    using OnMessage = std::function<Result<void>(const nlmsghdr&)>;

    /// Sends and waits for the acknowledgement. Errors carry errno and the kernel's own sentence where it has one.
    Result<void> request(NetlinkMessage& message);
    /// The same for many, a few dozen in flight at once. All are tried; entry i is the outcome of message i.
    std::vector<Result<void>> request_all(std::span<NetlinkMessage> messages);
    /// Sends all as one datagram and collects what the kernel says to it: an nftables transaction. The first error
    /// counts.
    Result<void> transaction(std::span<NetlinkMessage> messages);
    /// Sends and hands every message of the answer to `on_message`; for NLM_F_DUMP and for single answers.
    /// A dump that the kernel calls inconsistent (NLM_F_DUMP_INTR) is an error with EINTR: begin again.
    Result<void> query(NetlinkMessage& message, const OnMessage& on_message);

    void wipe(); ///< forgets the last answer, after one that carried a key
    int fd() const { return fd_.get(); }
    std::uint32_t port_id() const { return port_id_; }

private:
    NetlinkSocket(Fd fd, std::uint32_t port_id);
    void number(NetlinkMessage& message);
    Result<void> send(std::span<const std::byte> bytes);
    Result<std::span<const std::byte>> receive(int flags);

    Fd fd_;
    std::uint32_t port_id_ = 0;
    std::uint32_t sequence_ = 0;
    std::unique_ptr<std::byte[]> buffer_; ///< touched only as far as answers are long
    std::size_t used_ = 0;                ///< of it, since wipe()
};

} // namespace tailrace
