#include "netlink/socket.hpp"

#include "netlink/attributes.hpp"

#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <sodium.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

namespace tailrace {
namespace {

constexpr std::size_t kReceiveBytes = 32768; // the most the kernel puts into one datagram of a dump
constexpr std::size_t kInFlight = 64; // their acknowledgements fit into the default receive buffer with room to spare

/// The outcome in an NLMSG_ERROR message, with the kernel's own words where it says any.
Result<void> outcome_of(const nlmsghdr& message) {
    if (message.nlmsg_len < NLMSG_HDRLEN + sizeof(nlmsgerr)) return Error::from_errno(EBADMSG, "netlink answer");
    nlmsgerr outcome{};
    std::memcpy(&outcome, mnl_nlmsg_get_payload(&message), sizeof outcome);
    if (outcome.error == 0) return {};

    std::string_view words;
    if (message.nlmsg_flags & NLM_F_ACK_TLVS) {
        std::size_t skip = sizeof(nlmsgerr);
        if (!(message.nlmsg_flags & NLM_F_CAPPED) && outcome.msg.nlmsg_len >= NLMSG_HDRLEN)
            skip += NLMSG_ALIGN(outcome.msg.nlmsg_len) - NLMSG_HDRLEN;
        words = Attributes::of_message(message, skip).text(NLMSGERR_ATTR_MSG);
    }
    if (words.empty()) return Error::from_errno(-outcome.error, "kernel");
    return Error::from_errno(-outcome.error, "kernel: {}", words);
}

template <typename OnEach>
void for_each_message(std::span<const std::byte> datagram, OnEach&& on_each) {
    int left = static_cast<int>(datagram.size());
    const auto* message = reinterpret_cast<const nlmsghdr*>(datagram.data());
    while (mnl_nlmsg_ok(message, left)) {
        on_each(*message);
        message = mnl_nlmsg_next(message, &left);
    }
}

} // namespace

NetlinkMessage::NetlinkMessage(std::uint16_t type, std::uint16_t flags) {
    bytes_.reserve(512); // enough for every message with a key, so that no copy of one is left behind
    bytes_.resize(NLMSG_HDRLEN);
    get()->nlmsg_type = type;
    get()->nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
    get()->nlmsg_len = static_cast<std::uint32_t>(bytes_.size());
}

NetlinkMessage NetlinkMessage::copy_of(const nlmsghdr& message) {
    NetlinkMessage copy;
    const auto* first = reinterpret_cast<const std::byte*>(&message);
    copy.bytes_.assign(first, first + message.nlmsg_len);
    copy.bytes_.resize(NLMSG_ALIGN(message.nlmsg_len));
    copy.get()->nlmsg_len = static_cast<std::uint32_t>(copy.bytes_.size());
    return copy;
}

void NetlinkMessage::header(const void* data, std::size_t size_bytes) {
    std::size_t at = bytes_.size();
    bytes_.resize(at + NLMSG_ALIGN(size_bytes));
    std::memcpy(bytes_.data() + at, data, size_bytes);
    get()->nlmsg_len = static_cast<std::uint32_t>(bytes_.size());
}

void NetlinkMessage::put(std::uint16_t type, const void* data, std::size_t size_bytes) {
    nlattr attribute{static_cast<std::uint16_t>(NLA_HDRLEN + size_bytes), type};
    std::size_t at = bytes_.size();
    bytes_.resize(at + NLA_HDRLEN + NLA_ALIGN(size_bytes));
    std::memcpy(bytes_.data() + at, &attribute, sizeof attribute);
    if (size_bytes > 0) std::memcpy(bytes_.data() + at + NLA_HDRLEN, data, size_bytes);
    get()->nlmsg_len = static_cast<std::uint32_t>(bytes_.size());
}

void NetlinkMessage::put_address(std::uint16_t type, const IpAddress& address) {
    put(type, address.bytes().data(), address.bytes().size());
}

void NetlinkMessage::put_text(std::uint16_t type, std::string_view text) {
    std::string with_nul{text};
    put(type, with_nul.c_str(), with_nul.size() + 1);
}

std::size_t NetlinkMessage::begin_nest(std::uint16_t type) {
    std::size_t at = bytes_.size();
    put(static_cast<std::uint16_t>(type | NLA_F_NESTED), nullptr, 0);
    return at;
}

void NetlinkMessage::end_nest(std::size_t nest) {
    auto size_bytes = static_cast<std::uint16_t>(bytes_.size() - nest); // nla_len is the first field
    std::memcpy(bytes_.data() + nest, &size_bytes, sizeof size_bytes);
}

void NetlinkMessage::wipe() {
    sodium_memzero(bytes_.data(), bytes_.size());
}

NetlinkSocket::NetlinkSocket(Fd fd, std::uint32_t port_id)
    : fd_(std::move(fd)), port_id_(port_id), buffer_(std::make_unique_for_overwrite<std::byte[]>(kReceiveBytes)) {}

Result<NetlinkSocket> NetlinkSocket::open(int protocol) {
    Fd fd{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)};
    if (!fd) return Error::from_errno(errno, "open netlink socket {}", protocol);

    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(fd.get(), generic, size) != 0) return Error::from_errno(errno, "bind netlink socket");
    if (::getsockname(fd.get(), generic, &size) != 0) return Error::from_errno(errno, "name of netlink socket");

    // All three make answers better, none is needed: words in errors, short acknowledgements, dumps filtered by the
    // kernel.
    int on = 1;
    (void)::setsockopt(fd.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
    (void)::setsockopt(fd.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
    if (protocol == NETLINK_ROUTE) (void)::setsockopt(fd.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
    timeval limit{.tv_sec = 5, .tv_usec = 0};
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0)
        return Error::from_errno(errno, "time limit of netlink socket");
    return NetlinkSocket{std::move(fd), address.nl_pid};
}

void NetlinkSocket::wipe() {
    sodium_memzero(buffer_.get(), used_);
    used_ = 0;
}

void NetlinkSocket::number(NetlinkMessage& message) {
    if (++sequence_ == 0) ++sequence_;
    message.get()->nlmsg_seq = sequence_;
}

Result<void> NetlinkSocket::send(std::span<const std::byte> bytes) {
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    for (;;) {
        ssize_t sent =
            ::sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel);
        if (sent >= 0) return {};
        if (errno != EINTR) return Error::from_errno(errno, "send to netlink");
    }
}

Result<std::span<const std::byte>> NetlinkSocket::receive(int flags) {
    for (;;) {
        sockaddr_nl from{};
        iovec into{buffer_.get(), kReceiveBytes};
        msghdr message{};
        message.msg_name = &from;
        message.msg_namelen = sizeof from;
        message.msg_iov = &into;
        message.msg_iovlen = 1;
        ssize_t got = ::recvmsg(fd_.get(), &message, flags);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return Error::from_errno(errno, "receive from netlink");
        used_ = std::max(used_, static_cast<std::size_t>(got));
        if (from.nl_pid != 0) continue; // only the kernel answers
        if (message.msg_flags & MSG_TRUNC) return Error::from_errno(EMSGSIZE, "receive from netlink");
        return std::span<const std::byte>{buffer_.get(), static_cast<std::size_t>(got)};
    }
}

Result<void> NetlinkSocket::request(NetlinkMessage& message) {
    auto outcomes = request_all({&message, 1});
    return outcomes.front();
}

std::vector<Result<void>> NetlinkSocket::request_all(std::span<NetlinkMessage> messages) {
    std::vector<Result<void>> outcomes(messages.size());
    for (std::size_t begin = 0; begin < messages.size(); begin += kInFlight) {
        auto window = messages.subspan(begin, std::min(kInFlight, messages.size() - begin));
        std::vector<std::byte> datagram;
        for (auto& message : window) {
            number(message);
            message.get()->nlmsg_flags |= NLM_F_ACK;
            datagram.insert(datagram.end(), message.bytes().begin(), message.bytes().end());
        }
        const std::uint32_t first = window.front().get()->nlmsg_seq;
        std::size_t open = window.size();
        std::optional<Error> broken;
        if (auto sent = send(datagram); !sent) broken = sent.error();
        sodium_memzero(datagram.data(), datagram.size());
        while (!broken && open > 0) {
            auto received = receive(0);
            if (!received) {
                broken = received.error();
                break;
            }
            for_each_message(*received, [&](const nlmsghdr& answer) {
                const std::uint32_t which = answer.nlmsg_seq - first;
                if (answer.nlmsg_type != NLMSG_ERROR || which >= window.size()) return;
                outcomes[begin + which] = outcome_of(answer);
                --open;
            });
        }
        if (broken) { // the socket itself failed: nothing later has a chance
            for (std::size_t i = begin; i < outcomes.size(); ++i) outcomes[i] = *broken;
            break;
        }
    }
    return outcomes;
}

Result<void> NetlinkSocket::transaction(std::span<NetlinkMessage> messages) {
    std::vector<std::byte> datagram;
    std::size_t open = 0;
    for (auto& message : messages) {
        number(message);
        if (message.get()->nlmsg_flags & NLM_F_ACK) ++open;
        datagram.insert(datagram.end(), message.bytes().begin(), message.bytes().end());
    }
    const std::uint32_t first = messages.front().get()->nlmsg_seq;
    if (auto sent = send(datagram); !sent) return sent.error();

    // The kernel does all of it before send() returns: whatever it has to say is there.
    std::optional<Error> failed;
    for (;;) {
        auto received = receive(MSG_DONTWAIT);
        if (!received && (received.error().code() == EAGAIN || received.error().code() == EWOULDBLOCK)) break;
        if (!received) return received.error();
        for_each_message(*received, [&](const nlmsghdr& answer) {
            if (answer.nlmsg_type != NLMSG_ERROR || answer.nlmsg_seq - first >= messages.size()) return;
            auto outcome = outcome_of(answer);
            if (!outcome && !failed) failed = outcome.error();
            if (open > 0) --open;
        });
    }
    if (failed) return *failed;
    if (open > 0) return Error::from_errno(EBADMSG, "{} parts of a netlink transaction were not acknowledged", open);
    return {};
}

Result<void> NetlinkSocket::query(NetlinkMessage& message, const OnMessage& on_message) {
    number(message);
    const std::uint32_t sequence = message.get()->nlmsg_seq;
    if (auto sent = send(message.bytes()); !sent) return sent.error();

    // Reads to the end even after an error: while a dump is half-read the kernel refuses the next one.
    Result<void> result;
    for (bool done = false; !done;) {
        auto received = receive(0);
        if (!received) {
            while (receive(MSG_DONTWAIT)) continue;
            return received.error();
        }
        for_each_message(*received, [&](const nlmsghdr& answer) {
            if (answer.nlmsg_seq != sequence || done) return;
            if ((answer.nlmsg_flags & NLM_F_DUMP_INTR) && result) result = Error::from_errno(EINTR, "netlink dump");
            if (answer.nlmsg_type == NLMSG_ERROR) {
                auto outcome = outcome_of(answer);
                if (!outcome && result) result = outcome;
                done = true;
            } else if (answer.nlmsg_type == NLMSG_DONE) {
                auto code = header_of<std::int32_t>(answer); // a dump that breaks off says so in its last message
                if (code < 0 && result) result = Error::from_errno(-code, "netlink dump");
                done = true;
            } else {
                if (result) result = on_message(answer);
                if (!(answer.nlmsg_flags & NLM_F_MULTI)) done = true;
            }
        });
    }
    return result;
}

} // namespace tailrace
