#include "relay/core/stun_server.hpp"

#include "proto/stun.hpp"

#include <sys/socket.h>

#include <array>

namespace tailrace::relay {
namespace {

constexpr std::size_t kBatch = 32;
constexpr int kMostBatches = 4;       // then others have their turn
constexpr std::size_t kLongest = 512; // requests have 40 bytes; a cut one fails its fingerprint

} // namespace

void StunServer::on_readable(Counters& counters) {
    std::array<std::array<std::byte, kLongest>, kBatch> requests;
    std::array<std::array<std::byte, stun::kMaxResponseSize>, kBatch> responses;
    std::array<sockaddr_storage, kBatch> from;
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
            ++answers;
        }
        int sent = ::sendmmsg(socket_.get(), messages.data(), static_cast<unsigned>(answers), MSG_DONTWAIT);
        if (sent > 0) counters.stun_answered.add(static_cast<std::uint64_t>(sent));
        if (static_cast<std::size_t>(count) < kBatch) return;
    }
}

} // namespace tailrace::relay
