// agent/dataplane/question.hpp - asks what the policy program would do with a packet.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <string>

namespace tailrace {

/// The first packet of a flow: a TCP SYN, a datagram, an echo request.
struct PacketQuestion {
    IpAddress source, destination; ///< of one family
    std::uint8_t protocol = 6;     ///< IANA number
    std::uint16_t port = 0;        ///< TCP, UDP and SCTP
};

struct PacketAnswer {
    bool passes = false;
    std::string reason;     ///< as in `debug drops`
    std::uint32_t rule = 0; ///< number of the rule that let it in; 0: none did
};

/// An IP packet without link header. The sender's port is 1, which nobody talks from, so that no reply is meant.
Bytes question_packet(const PacketQuestion& question);

/// Runs the program of load_question(), which judges as the policy program does, on `packet`, with a link header in
/// front where it was loaded for one. Nothing is counted. Fails without the privilege.
Result<PacketAnswer> ask_program(int program, BytesView packet);

} // namespace tailrace
