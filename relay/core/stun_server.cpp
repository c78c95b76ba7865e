#include "relay/core/stun_server.hpp"

#include "proto/stun.hpp"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

namespace tailrace::relay {
namespace {

constexpr std::size_t kBatch = 32;
constexpr int kMostBatches = 4;       // then others have their turn
constexpr std::size_t kLongest = 512; // requests have 40 bytes; a cut one fails its fingerprint

/// Which of our addresses a request came to: the answer must come from there, or no NAT lets it in.
union AskedAddress {
    cmsghdr header;
    std::array<char, CMSG_SPACE(sizeof(in6_pktinfo))> bytes;
};

/// Makes what was received with a request fit for its answer: the address, and any way out, but for link-local ones.
void answer_from_there(msghdr& message) {
    for (cmsghdr* entry = CMSG_FIRSTHDR(&message); entry != nullptr; entry = CMSG_NXTHDR(&message, entry)) {
        if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_PKTINFO) {
            in_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(entry), sizeof info);
            info.ipi_ifindex = 0;
            std::memcpy(CMSG_DATA(entry), &info, sizeof info);
        } else if (entry->cmsg_level == IPPROTO_IPV6 && entry->cmsg_type == IPV6_PKTINFO) {
            in6_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(entry), sizeof info);
            if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) info.ipi6_ifindex = 0;
            std::memcpy(CMSG_DATA(entry), &info, sizeof info);
        }
    }
}

} // namespace

void StunServer::on_readable(Counters& counters) {
    std::array<std::array<std::byte, kLongest>, kBatch> requests;
    std::array<std::array<std::byte, stun::kMaxResponseSize>, kBatch> responses;
    std::array<sockaddr_storage, kBatch> from;
    std::array<AskedAddress, kBatch> asked;
    std::array<iovec, kBatch> vectors;
    std::array<mmsghdr, kBatch> messages;
    for (int round = 0; round < kMostBatches; ++round) {
        for (std::size_t i = 0; i < kBatch; ++i) {
            vectors[i] = {requests[i].data(), requests[i].size()};
            messages[i] = {};
            messages[i].msg_hdr.msg_name = &from[i];
            messages[i].msg_hdr.msg_namelen = sizeof from[i];
            messages[i].msg_hdr.msg_iov = &vectors[i];
            messages[i].msg_hdr.msg_iovlen = 1;
            messages[i].msg_hdr.msg_control = &asked[i];
            messages[i].msg_hdr.msg_controllen = sizeof asked[i];
        }
        int count = ::recvmmsg(socket_.get(), messages.data(), kBatch, MSG_DONTWAIT, nullptr);
        if (count <= 0) return;
        std::size_t answers = 0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            auto id = stun::parse_request(BytesView{requests[i]}.first(messages[i].msg_len));
            if (!id) {
                counters.stun_ignored.add();
                continue;
            }
            Endpoint seen = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&from[i]));
            std::size_t size = stun::write_response(responses[answers], *id, seen);
            // Answers move to the front: message `answers` <= i has been read already.
            vectors[answers] = {responses[answers].data(), size};
            messages[answers].msg_hdr.msg_name = &from[i];
            messages[answers].msg_hdr.msg_namelen = messages[i].msg_hdr.msg_namelen;
            messages[answers].msg_hdr.msg_control = &asked[i];
            messages[answers].msg_hdr.msg_controllen = messages[i].msg_hdr.msg_controllen;
            messages[answers].msg_hdr.msg_flags = 0;
            answer_from_there(messages[answers].msg_hdr);
            ++answers;
        }
        for (std::size_t at = 0; at < answers;) {
            int sent = ::sendmmsg(socket_.get(), &messages[at], static_cast<unsigned>(answers - at), MSG_DONTWAIT);
            if (sent > 0) counters.stun_answered.add(static_cast<std::uint64_t>(sent));
            // One to whom no way leads, perhaps a forged address, must not cost the others their answer.
            at += sent > 0 ? static_cast<std::size_t>(sent) : 1;
        }
        if (static_cast<std::size_t>(count) < kBatch) return;
    }
}

} // namespace tailrace::relay
