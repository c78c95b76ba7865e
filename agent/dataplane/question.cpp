#include "agent/dataplane/question.hpp"

#include "agent/dataplane/packet_event.hpp"
#include "bpf/shared/question.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <cerrno>

namespace tailrace {
namespace {

// Long enough for every protocol's header, and for kernels that refuse test runs of short packets.
constexpr std::size_t kTransportBytes = 40;

void put16(Bytes& out, std::size_t at, std::uint16_t value) {
    out[at] = static_cast<std::byte>(value >> 8);
    out[at + 1] = static_cast<std::byte>(value & 0xff);
}

void put(Bytes& out, std::size_t at, BytesView bytes) {
    std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
}

} // namespace

Bytes question_packet(const PacketQuestion& question) {
    bool v4 = question.destination.is_v4();
    std::size_t header = v4 ? 20 : 40;
    Bytes out(header + kTransportBytes);
    if (v4) {
        out[0] = std::byte{0x45};
        put16(out, 2, static_cast<std::uint16_t>(out.size()));
        out[8] = std::byte{64};
        out[9] = std::byte{question.protocol};
        put(out, 12, question.source.bytes());
        put(out, 16, question.destination.bytes());
    } else {
        out[0] = std::byte{0x60};
        put16(out, 4, kTransportBytes);
        out[6] = std::byte{question.protocol};
        out[7] = std::byte{64};
        put(out, 8, question.source.bytes());
        put(out, 24, question.destination.bytes());
    }
    switch (question.protocol) {
    case 6:
        out[header + 12] = std::byte{0x50}; // header of 20 bytes
        out[header + 13] = std::byte{0x02}; // SYN
        [[fallthrough]];
    case 17:
    case 132:
        put16(out, header, 1);
        put16(out, header + 2, question.port);
        break;
    case 1:
        out[header] = std::byte{8}; // echo request
        break;
    case 58:
        out[header] = std::byte{128};
        break;
    default:
        break;
    }
    return out;
}

Result<PacketAnswer> ask_program(int program, BytesView packet) {
    __sk_buff in{}, out{};
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = packet.data();
    options.data_size_in = static_cast<std::uint32_t>(packet.size());
    options.ctx_in = &in;
    options.ctx_size_in = sizeof in;
    options.ctx_out = &out;
    options.ctx_size_out = sizeof out;
    options.repeat = 1;
    if (::bpf_prog_test_run_opts(program, &options) != 0)
        return Error::from_errno(errno, "ask the packet program by a test run");
    std::uint32_t reason = out.cb[TR_ANSWER_REASON];
    if (reason >= TR_REASON_COUNT) return Error::make("the packet program gave the unknown reason {}", reason);
    return PacketAnswer{options.retval == TC_ACT_OK, std::string{reason_name(tr_reason(reason))},
                        out.cb[TR_ANSWER_RULE]};
}

} // namespace tailrace
