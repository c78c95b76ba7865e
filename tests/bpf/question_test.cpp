// A question gets the verdict that the packet gets, and leaves no trace.
#include "agent/dataplane/question.hpp"
#include "tests/bpf/packet_room.hpp"

namespace tailrace::test {
namespace {

class Question : public PacketRoom {
protected:
    static PacketQuestion question(const char* from, const char* to, std::uint8_t protocol, std::uint16_t port) {
        return {*IpAddress::parse(from), *IpAddress::parse(to), protocol, port};
    }
    PacketAnswer ask(const PacketQuestion& question) {
        Bytes frame(kEthernetBytes);
        frame[12] = std::byte{0x88}; // as in run_program()
        frame[13] = std::byte{0xb5};
        Bytes packet = question_packet(question);
        frame.insert(frame.end(), packet.begin(), packet.end());
        auto answer = ask_program(question_program(), frame);
        EXPECT_TRUE(answer) << answer.error().message();
        return answer ? *answer : PacketAnswer{};
    }
};

TEST_F(Question, GetsTheVerdictOfThePacketItself) {
    commit(receiver());
    const char* sources[] = {kA, kB, kJailed, "192.168.1.7"};
    const char* destinations[] = {kR, "10.33.0.9", "10.99.0.1", "224.0.0.1"};
    std::size_t passed = 0;
    for (const char* from : sources)
        for (const char* to : destinations)
            for (std::uint8_t protocol : {6, 17, 1, 132, 47, 99})
                for (std::uint16_t port : {22, 53, 443, int{kPeerApi}}) {
                    PacketQuestion asked = question(from, to, protocol, port);
                    Outcome real = in(question_packet(asked));
                    PacketAnswer answer = ask(asked);
                    EXPECT_EQ(answer.passes, real.passed) << from << " " << to << " " << int{protocol} << " " << port;
                    EXPECT_EQ(answer.reason, real.reason) << from << " " << to << " " << int{protocol} << " " << port;
                    EXPECT_EQ(answer.rule != 0, real.rule.has_value());
                    passed += answer.passes;
                }
    EXPECT_GT(passed, 0u);
    EXPECT_EQ(ask(question(kA6, kR6, 6, 22)).reason, "rule");
    EXPECT_EQ(ask(question(kA6, kR6, 6, 23)).reason, "no-rule");
}

TEST_F(Question, IsNotCounted) {
    commit(receiver());
    auto reasons = reason_counts();
    auto rules = rule_counts();
    EXPECT_TRUE(ask(question(kA, kR, 6, 22)).passes);
    EXPECT_FALSE(ask(question(kA, kR, 6, 23)).passes);
    EXPECT_EQ(reason_counts(), reasons);
    EXPECT_EQ(rule_counts(), rules);
    EXPECT_EQ(flows_remembered(), 0u);
}

} // namespace
} // namespace tailrace::test
