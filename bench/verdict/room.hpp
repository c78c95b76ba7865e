// bench/verdict/room.hpp - a network namespace in which one packet can be measured, in a program or on its way up.
#pragma once
#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

#include <memory>
#include <string>

struct tr_vary_object;

namespace tailrace::bench {

/// Each call moves the thread into the namespace, which ends with the room.
class Room {
public:
    static Result<Room> create();

    /// Nanoseconds a run of a tc program in BPF_PROG_TEST_RUN, the loop around it included. `verdict`: what it said.
    Result<double> test_run(int program, const Bytes& frame, std::uint32_t runs, std::uint32_t* verdict = nullptr);
    /// The same where each run is another flow; what makes it another one is included.
    Result<double> test_run_varied(int program, const Bytes& frame, std::uint32_t runs);
    int program_that_does_nothing() const;

    /// Nanoseconds a packet that is handed to the network stack as if loopback had received it, by a live test run of
    /// XDP: everything from there to where the packet ends.
    Result<double> hand_up(const Bytes& frame, std::uint32_t packets);

    /// The last chain on the way: counts and drops all that come to it. `stateful`: in prerouting, after conntrack;
    /// else in ingress. `first`: in the same place of the stack, but before anything else of that hook.
    Result<void> end_of_way(bool stateful, bool first);
    /// Packets that came to the end since it was made.
    Result<std::uint64_t> arrived() const;
    Result<void> nft(const std::string& text) const;
    /// A tc program at ingress of loopback.
    Result<void> attach(int program);
    /// One UDP packet from `from`, which becomes our address, so that conntrack knows the flow.
    Result<void> send(const std::string& from, std::uint16_t from_port, const std::string& to, std::uint16_t to_port);

private:
    using Programs = std::unique_ptr<tr_vary_object, void (*)(tr_vary_object*)>;
    Room(Programs programs, Fd space, Fd tun)
        : programs_(std::move(programs)), space_(std::move(space)), tun_(std::move(tun)) {}
    void enter() const;
    Programs programs_;
    Fd space_, tun_;
    const char* end_family_ = "netdev";
};

} // namespace tailrace::bench
