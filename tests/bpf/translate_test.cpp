// What becomes of packets for a via route, and of their answers: each against the message written down for the other
// family, to the byte.
#include "bpf/shared/marks.h"
#include "bpf/shared/reasons.h"
#include "bpf/shared/via_map.h"
#include "tests/bpf/packet_room.hpp"
#include "tests/bpf/two_families.hpp"

#include "bpf/via6.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>
#include <random>

namespace tailrace::test {
namespace {

constexpr std::uint32_t kMark = 0x12000000 | TR_MARK_PASSED;

IpAddress address(const std::string& text) {
    return *IpAddress::parse(text);
}

/// A packet after a program had it.
struct Ran {
    int verdict = -1000;
    Bytes packet;
    std::uint32_t mark = 0;
};

class Translate : public ::testing::Test {
protected:
    const IpAddress peer4 = address("100.64.0.19"), peer6 = address("fd7a:115c:a1e0::13");
    const IpAddress own4 = address("100.64.0.16"), own6 = address("fd7a:115c:a1e0::10");
    const IpAddress site4 = address("10.1.2.3"), site6 = address("fd7a:115c:a1e0:b1a:0:7:a01:203");

    void SetUp() override {
        if (!object_) {
            object_.reset(tr_via6_object__open());
            ASSERT_TRUE(object_);
            object_->rodata->l2_bytes = kEthernetBytes;
            int failed = tr_via6_object__load(object_.get());
            if (failed == -EPERM) { // EACCES is the verifier's
                object_.reset();
                GTEST_SKIP() << "needs the privilege to load BPF programs";
            }
            ASSERT_EQ(failed, 0);
        }
        tr_via_net_key net{128 - 24, {}};
        put(net.addr, site6);
        std::uint32_t one = 1, zero = 0;
        ASSERT_EQ(::bpf_map_update_elem(::bpf_map__fd(object_->maps.tr_via_nets), &net, &one, BPF_ANY), 0);
        net = {96, {}};
        put(net.addr, address("fd7a:115c:a1e0:b1a:0:8::")); // a whole site
        ASSERT_EQ(::bpf_map_update_elem(::bpf_map__fd(object_->maps.tr_via_nets), &net, &one, BPF_ANY), 0);
        tr_addr key{};
        put(key, peer6);
        ASSERT_EQ(::bpf_map_update_elem(::bpf_map__fd(object_->maps.tr_via_peers), &key, peer4.bytes().data(), 0), 0);
        tr_via_self self{};
        put(self.own6, own6);
        std::memcpy(&self.own4, own4.bytes().data(), 4);
        ASSERT_EQ(::bpf_map_update_elem(::bpf_map__fd(object_->maps.tr_via_self), &zero, &self, BPF_ANY), 0);
        forget();
    }
    static void TearDownTestSuite() { object_.reset(); }
    static void put(tr_addr& to, const IpAddress& from) { std::memcpy(to.bytes, from.bytes().data(), 16); }

    void forget() {
        tr_via_flow_key key{};
        int map = ::bpf_map__fd(object_->maps.tr_via_flows);
        while (::bpf_map_get_next_key(map, nullptr, &key) == 0) ::bpf_map_delete_elem(map, &key);
    }
    Ran in(const Bytes& packet, std::uint32_t gso_bytes = 0) {
        return run(object_->progs.tr_via_in, packet, gso_bytes);
    }
    Ran out(const Bytes& packet, std::uint32_t gso_bytes = 0) {
        return run(object_->progs.tr_via_out, packet, gso_bytes);
    }
    /// By which counter it was counted, and its packets.
    std::string counted(const std::function<void()>& during) {
        auto before = counts();
        during();
        auto after = counts();
        constexpr const char* kNames[] = {
#define X(symbol, name, passes) name,
            TR_VIA_REASONS(X)
#undef X
        };
        std::string out;
        for (std::size_t i = 0; i < after.size(); ++i)
            if (after[i] != before[i]) out += std::string{out.empty() ? "" : " "} + kNames[i];
        return out;
    }
    std::string dropped_in(const Bytes& packet) {
        int verdict = 0;
        std::string reason = counted([&] { verdict = in(packet).verdict; });
        return verdict == TC_ACT_SHOT ? reason : "not dropped: " + std::to_string(verdict) + " " + reason;
    }
    std::string dropped_out(const Bytes& packet) {
        int verdict = 0;
        std::string reason = counted([&] { verdict = out(packet).verdict; });
        return verdict == TC_ACT_SHOT ? reason : "not dropped: " + std::to_string(verdict) + " " + reason;
    }
    static ::testing::AssertionResult is_untouched(const Ran& ran, const Bytes& packet) {
        if (ran.verdict != TC_ACT_UNSPEC) return ::testing::AssertionFailure() << "verdict " << ran.verdict;
        return ran.packet == packet ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << "it was changed";
    }
    Message message(Carries what, std::size_t body_bytes = 40) const {
        Message out{peer6, site6, what, 40000, 443, 0x28, 61};
        for (std::size_t i = 0; i < body_bytes; ++i) out.body.push_back(static_cast<std::byte>(i * 7 + 1));
        return out;
    }

private:
    std::vector<std::uint64_t> counts() {
        std::vector<std::uint64_t> out;
        for (std::uint32_t reason = 0; reason < TR_VIA_REASON_COUNT; ++reason) {
            std::vector<tr_counter> of_cpus(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
            ::bpf_map_lookup_elem(::bpf_map__fd(object_->maps.tr_via_counts), &reason, of_cpus.data());
            out.push_back(0);
            for (const tr_counter& one : of_cpus) out.back() += one.packets;
        }
        return out;
    }
    static Ran run(bpf_program* program, const Bytes& packet, std::uint32_t gso_bytes) {
        Bytes frame(kEthernetBytes);
        const int version = packet.empty() ? 0 : std::to_integer<int>(packet[0]) >> 4;
        // Kernels refuse test runs of IP packets that are too short (6.18 does): those get a type for experiments.
        const int type = version == 4 && packet.size() >= 20   ? ETH_P_IP
                         : version == 6 && packet.size() >= 40 ? ETH_P_IPV6
                                                               : 0x88b5;
        frame[12] = static_cast<std::byte>(type >> 8);
        frame[13] = static_cast<std::byte>(type);
        frame.insert(frame.end(), packet.begin(), packet.end());
        Bytes returned(frame.size() + 128);
        __sk_buff context_in{}, context_out{};
        context_in.mark = kMark;
        context_in.gso_size = gso_bytes;
        context_in.gso_segs = gso_bytes ? 2 : 0;
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.data_in = frame.data();
        options.data_size_in = static_cast<std::uint32_t>(frame.size());
        options.data_out = returned.data();
        options.data_size_out = static_cast<std::uint32_t>(returned.size());
        options.ctx_in = &context_in;
        options.ctx_size_in = sizeof context_in;
        options.ctx_out = &context_out;
        options.ctx_size_out = sizeof context_out;
        options.repeat = 1;
        Ran out;
        if (::bpf_prog_test_run_opts(::bpf_program__fd(program), &options) != 0) return out;
        out.verdict = static_cast<int>(options.retval);
        out.packet.assign(returned.begin() + kEthernetBytes, returned.begin() + options.data_size_out);
        out.mark = context_out.mark;
        return out;
    }
    struct Destroy {
        void operator()(tr_via6_object* object) const { tr_via6_object__destroy(object); }
    };
    static std::unique_ptr<tr_via6_object, Destroy> object_; ///< loaded once: an interpreter's verifier takes its time
};
std::unique_ptr<tr_via6_object, Translate::Destroy> Translate::object_;

TEST_F(Translate, BothWaysToTheByte) {
    std::mt19937 random{20240607};
    auto any = [&](std::uint32_t below) { return static_cast<std::uint32_t>(random() % below); };
    for (int round = 0; round < 3000; ++round) {
        Carries what = std::array{Carries::Tcp, Carries::Udp, Carries::Echo, Carries::UdpWithoutChecksum}[any(4)];
        Message there = message(what, any(1200));
        for (std::byte& byte : there.body) byte = static_cast<std::byte>(random());
        there.src_port = static_cast<std::uint16_t>(random());
        there.dst_port = static_cast<std::uint16_t>(random());
        there.tos = static_cast<std::uint8_t>(random());
        there.ttl = static_cast<std::uint8_t>(1 + any(255));
        Ran ran = in(packet_of(there));
        ASSERT_EQ(ran.verdict, TC_ACT_UNSPEC);
        ASSERT_TRUE(is_ip4_like(ran.packet, packet_of(there.between(peer4, site4)))) << "round " << round;
        ASSERT_EQ(ran.mark, kMark) << "the backstop wants it";

        Message back = there;
        if (what == Carries::Echo)
            back.what = Carries::EchoReply;
        else
            std::swap(back.src_port, back.dst_port);
        ran = out(packet_of(back.between(site4, peer4)));
        ASSERT_EQ(ran.verdict, TC_ACT_UNSPEC);
        if (what == Carries::UdpWithoutChecksum) back.what = Carries::Udp;
        ASSERT_EQ(ran.packet, packet_of(back.between(site6, peer6))) << "round " << round;
    }
}

TEST_F(Translate, ChecksumsOfZeroAreWrittenAsAllOnes) {
    // Each of all 65536 sums of a datagram, one of which is zero.
    std::size_t zeros = 0;
    for (std::uint32_t value = 0; value < 0x10000; ++value) {
        Message there = message(Carries::Udp, 2), back = there;
        there.body[0] = back.body[0] = static_cast<std::byte>(value >> 8);
        there.body[1] = back.body[1] = static_cast<std::byte>(value);
        Bytes expected = packet_of(there.between(peer4, site4));
        if (expected[26] != std::byte{0xff} || expected[27] != std::byte{0xff}) continue;
        ++zeros;
        EXPECT_TRUE(is_ip4_like(in(packet_of(there)).packet, expected));
    }
    EXPECT_GE(zeros, 1u);
    ASSERT_EQ(in(packet_of(message(Carries::Udp))).verdict, TC_ACT_UNSPEC);
    zeros = 0;
    for (std::uint32_t value = 0; value < 0x10000; ++value)
        for (Carries what : {Carries::Udp, Carries::UdpWithoutChecksum}) {
            Message back = message(Carries::Udp, 2);
            std::swap(back.src_port, back.dst_port);
            back.body[0] = static_cast<std::byte>(value >> 8);
            back.body[1] = static_cast<std::byte>(value);
            Bytes expected = packet_of(back.between(site6, peer6));
            if (expected[46] != std::byte{0xff} || expected[47] != std::byte{0xff}) continue;
            ++zeros;
            back.what = what;
            EXPECT_EQ(out(packet_of(back.between(site4, peer4))).packet, expected);
        }
    EXPECT_GE(zeros, 2u);
}

TEST_F(Translate, DatagramsWithoutAChecksumOnlyWhole) {
    Message there = message(Carries::UdpWithoutChecksum);
    ASSERT_EQ(in(packet_of(there)).verdict, TC_ACT_UNSPEC);
    std::swap(there.src_port, there.dst_port);
    for (std::size_t bytes : {0u, 1u, 55u, 56u, 57u, 1472u, 1528u}) {
        Message back = there.between(site4, peer4);
        back.body.assign(bytes, std::byte{0x5a});
        Bytes packet = packet_of(back);
        back.what = Carries::Udp;
        EXPECT_EQ(out(packet).packet, packet_of(back.between(site6, peer6))) << bytes;
    }
    Message back = there.between(site4, peer4);
    back.body.resize(1529);
    EXPECT_EQ(dropped_out(packet_of(back)), "via-checksum");
    EXPECT_EQ(dropped_out(fragment_of(packet_of(back), 0, 800, true, 1)), "via-checksum");
}

TEST_F(Translate, OnlyWhatMayBeFragmentedHasAnIdentification) {
    Message there = message(Carries::Udp, 1232); // 1260 bytes of IPv4
    Bytes packet = in(packet_of(there)).packet;
    EXPECT_EQ(packet[6], std::byte{0});
    int different = 0;
    for (int i = 0; i < 4; ++i) {
        Bytes next = in(packet_of(there)).packet;
        different += next[4] != packet[4] || next[5] != packet[5];
    }
    EXPECT_GE(different, 3);
    there.body.resize(1233);
    packet = in(packet_of(there)).packet;
    EXPECT_EQ(packet[6], std::byte{0x40});
    EXPECT_EQ(packet[4], std::byte{0});
    Message segments = message(Carries::Tcp, 2440);
    Ran ran = in(packet_of(segments), 1220);
    EXPECT_EQ(ran.packet[6], std::byte{0}) << "each of its segments is small enough";
    EXPECT_TRUE(is_ip4_like(ran.packet, packet_of(segments.between(peer4, site4))));
    std::swap(segments.src_port, segments.dst_port);
    EXPECT_EQ(out(packet_of(segments.between(site4, peer4)), 1220).packet, packet_of(segments.between(site6, peer6)));
}

TEST_F(Translate, RefusedTargets) {
    for (const char* target : {"127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1",
                               "224.0.0.1", "239.1.1.1", "255.255.255.255", "100.64.0.1", "100.127.255.255"}) {
        Bytes bytes = to_bytes(address("fd7a:115c:a1e0:b1a:0:8::").bytes());
        const IpAddress inner = address(target);
        std::copy(inner.bytes().begin(), inner.bytes().end(), bytes.begin() + 12);
        const IpAddress via = IpAddress::from_bytes(bytes);
        EXPECT_EQ(dropped_in(packet_of(message(Carries::Udp).between(peer6, via))), "via-refused") << target;
        EXPECT_EQ(dropped_in(packet_of(message(Carries::Echo).between(peer6, via))), "via-refused") << target;

        Message knock = message(Carries::Tcp).between(peer6, via);
        knock.body.clear();
        knock.tcp_flags = 0x02;
        Ran ran;
        EXPECT_EQ(counted([&] { ran = in(packet_of(knock)); }), "via-reset");
        EXPECT_EQ(ran.verdict, TC_ACT_REDIRECT) << target;
        Message reset{via, peer6, Carries::Tcp, knock.dst_port, knock.src_port};
        reset.tcp_flags = 0x14;
        reset.tcp_seq = 0;
        reset.tcp_ack = knock.tcp_seq + 1;
        reset.tcp_window = 0;
        EXPECT_EQ(ran.packet, packet_of(reset)) << target;
        EXPECT_EQ(ran.mark, 0u);
        knock.tcp_flags = 0x10; // of an established connection
        reset.tcp_flags = 0x04;
        reset.tcp_seq = knock.tcp_ack;
        reset.tcp_ack = 0;
        EXPECT_EQ(in(packet_of(knock)).packet, packet_of(reset)) << target;
        knock.tcp_flags = 0x14;
        EXPECT_EQ(in(packet_of(knock)).verdict, TC_ACT_SHOT) << "a reset is not answered";
    }
    for (const char* target : {"1.0.0.1", "126.0.0.1", "128.0.0.1", "169.253.0.1", "223.255.255.255", "100.63.0.1",
                               "100.128.0.1", "192.168.1.1"}) {
        Bytes bytes = to_bytes(address("fd7a:115c:a1e0:b1a:0:8::").bytes());
        const IpAddress inner = address(target);
        std::copy(inner.bytes().begin(), inner.bytes().end(), bytes.begin() + 12);
        Message there = message(Carries::Udp).between(peer6, IpAddress::from_bytes(bytes));
        EXPECT_TRUE(is_ip4_like(in(packet_of(there)).packet, packet_of(there.between(peer4, inner)))) << target;
    }
}

TEST_F(Translate, ForPeersOwnAddressesOnly) {
    const IpAddress stranger = address("fd7a:115c:a1e0::99");
    EXPECT_EQ(dropped_in(packet_of(message(Carries::Udp).between(stranger, site6))), "via-no-peer");
    EXPECT_EQ(dropped_in(packet_of(message(Carries::Tcp).between(address("fd00:7::10"), site6))), "via-no-peer");
}

TEST_F(Translate, OtherPacketsStayAsTheyAre) {
    Message other = message(Carries::Udp);
    for (const char* to : {"fd7a:115c:a1e0:b1a:0:7:b01:203", "fd7a:115c:a1e0:b1a:0:9:a01:203", "fd00:7::10"}) {
        Bytes packet = packet_of(other.between(peer6, address(to)));
        EXPECT_TRUE(is_untouched(in(packet), packet)) << to;
    }
    Bytes direct = packet_of(other.between(peer4, site4)), from_site = packet_of(other.between(site4, peer4));
    EXPECT_TRUE(is_untouched(in(direct), direct));
    EXPECT_TRUE(is_untouched(out(from_site), from_site)) << "no flow of ours";
    Bytes v6 = packet_of(other.between(site6, peer6));
    EXPECT_TRUE(is_untouched(out(v6), v6));
    for (std::size_t bytes : {1u, 19u}) {
        Bytes stump(direct.begin(), direct.begin() + static_cast<long>(bytes));
        EXPECT_NE(in(stump).verdict, TC_ACT_SHOT);
        EXPECT_NE(out(stump).verdict, TC_ACT_SHOT);
    }
}

TEST_F(Translate, AFlowThatIsForgottenIsNotTranslated) {
    Message there = message(Carries::Tcp), back = there.between(site4, peer4);
    std::swap(back.src_port, back.dst_port);
    ASSERT_EQ(in(packet_of(there)).verdict, TC_ACT_UNSPEC);
    EXPECT_EQ(out(packet_of(back)).packet, packet_of(back.between(site6, peer6)));
    forget();
    EXPECT_TRUE(is_untouched(out(packet_of(back)), packet_of(back)));
    ASSERT_EQ(in(packet_of(there)).verdict, TC_ACT_UNSPEC);
    EXPECT_EQ(out(packet_of(back)).packet, packet_of(back.between(site6, peer6)))
        << "any packet of the peer's renews it";
}

TEST_F(Translate, WhoSpokeLastIsAnsweredInHisFamily) {
    for (Carries what : {Carries::Tcp, Carries::Udp, Carries::Echo}) {
        Message there = message(what), back = there.between(site4, peer4);
        there.tcp_flags = 0x02;
        if (what == Carries::Echo)
            back.what = Carries::EchoReply;
        else
            std::swap(back.src_port, back.dst_port);
        ASSERT_EQ(in(packet_of(there)).verdict, TC_ACT_UNSPEC);
        EXPECT_NE(out(packet_of(back)).packet, packet_of(back));
        Bytes direct = packet_of(there.between(peer4, site4));
        EXPECT_TRUE(is_untouched(in(direct), direct));
        EXPECT_TRUE(is_untouched(out(packet_of(back)), packet_of(back)));
        Message other_site = there.between(peer6, address("fd7a:115c:a1e0:b1a:0:8:a01:203"));
        ASSERT_EQ(in(packet_of(other_site)).verdict, TC_ACT_UNSPEC);
        EXPECT_EQ(out(packet_of(back)).packet, packet_of(back.between(other_site.dst, peer6)));
    }
}

TEST_F(Translate, WhatIPv4DoesNotKnow) {
    Bytes sctp = packet_of(message(Carries::Udp)), options = sctp;
    sctp[6] = std::byte{132};
    EXPECT_EQ(dropped_in(sctp), "via-protocol");
    options[6] = std::byte{60}; // destination options
    EXPECT_EQ(dropped_in(options), "via-protocol");
    Bytes reply = packet_of(message(Carries::EchoReply));
    EXPECT_EQ(dropped_in(reply), "via-protocol");
    Bytes solicitation = packet_of(message(Carries::Echo));
    solicitation[40] = std::byte{135};
    EXPECT_EQ(dropped_in(solicitation), "via-protocol");
    EXPECT_EQ(dropped_in(fragment_of(packet_of(message(Carries::Echo, 800)), 0, 400, true, 7)), "via-fragment");
}

TEST_F(Translate, TruncatedAtEveryByte) {
    for (Carries what : {Carries::Tcp, Carries::Udp, Carries::Echo}) {
        const std::size_t least = what == Carries::Tcp ? 20 : 8;
        Bytes whole = packet_of(message(what, 0));
        for (std::size_t bytes = 40; bytes < whole.size(); ++bytes) {
            Bytes cut(whole.begin(), whole.begin() + static_cast<long>(bytes));
            EXPECT_EQ(dropped_in(cut), "via-unreadable") << "longer by its own account, " << bytes;
            cut[5] = static_cast<std::byte>(bytes - 40);
            if (bytes - 40 < least) {
                EXPECT_EQ(dropped_in(cut), "via-unreadable") << bytes;
            }
        }
        Message back = message(what).between(site4, peer4);
        if (what == Carries::Echo)
            back.what = Carries::EchoReply;
        else
            std::swap(back.src_port, back.dst_port);
        ASSERT_EQ(in(packet_of(message(what))).verdict, TC_ACT_UNSPEC);
        whole = packet_of(back);
        for (std::size_t bytes = 20; bytes < whole.size(); ++bytes) {
            Ran ran = out(Bytes(whole.begin(), whole.begin() + static_cast<long>(bytes)));
            EXPECT_TRUE(ran.verdict == TC_ACT_SHOT ||
                        (ran.verdict == TC_ACT_UNSPEC && std::to_integer<int>(ran.packet[0]) >> 4 == 4))
                << bytes;
        }
    }
    Bytes error = error_packet(peer6, site6, 1, 4, 0, packet_of(message(Carries::Udp).between(site6, peer6)));
    for (std::size_t bytes = 48; bytes < error.size(); ++bytes) {
        Bytes cut(error.begin(), error.begin() + static_cast<long>(bytes));
        cut[5] = static_cast<std::byte>(bytes - 40);
        EXPECT_EQ(dropped_in(cut), "via-unreadable") << bytes;
    }
}

TEST_F(Translate, Fragments) {
    for (Carries what : {Carries::Udp, Carries::Tcp}) {
        Message there = message(what, 2000);
        Bytes v6 = packet_of(there), v4 = packet_of(there.between(peer4, site4));
        const std::size_t all = v4.size() - 20;
        for (auto [from, to] : {std::pair<std::size_t, std::size_t>{0, 1232}, {1232, all}}) {
            Ran ran = in(fragment_of(v6, from, to - from, to < all, 0xabcd1234));
            Bytes expected = fragment_of(v4, from, to - from, to < all, 0x1234);
            EXPECT_EQ(ran.packet, expected) << from;
        }
        std::swap(there.src_port, there.dst_port);
        v6 = packet_of(there.between(site6, peer6));
        v4 = packet_of(there.between(site4, peer4));
        Bytes early = fragment_of(v4, 1240, all - 1240, false, 0x4321);
        EXPECT_TRUE(is_untouched(out(early), early)) << "its first one is not known";
        for (auto [from, to] : {std::pair<std::size_t, std::size_t>{0, 1240}, {1240, all}}) {
            Ran ran = out(fragment_of(v4, from, to - from, to < all, 0x4321));
            EXPECT_EQ(ran.packet, fragment_of(v6, from, to - from, to < all, 0x4321)) << from;
        }
    }
}

struct Error {
    int type6, code6;
    std::uint32_t rest6;
    int type4, code4;
    std::uint32_t rest4;
};

TEST_F(Translate, ErrorsOfThePeer) {
    const Error kErrors[] = {{1, 0, 0, 3, 1, 0},       {1, 1, 0, 3, 10, 0},    {1, 2, 0, 3, 1, 0},
                             {1, 3, 0, 3, 1, 0},       {1, 4, 0, 3, 3, 0},     {2, 0, 1280, 3, 4, 1260},
                             {2, 0, 1400, 3, 4, 1380}, {2, 0, 68, 3, 4, 1260}, {2, 0, 0x10000, 3, 4, 1260},
                             {3, 0, 0, 11, 0, 0},      {3, 1, 0, 11, 1, 0},    {4, 1, 6, 3, 2, 0}};
    for (Carries what : {Carries::Udp, Carries::Tcp, Carries::EchoReply})
        for (const Error& error : kErrors) {
            Message sent = message(what, 600);
            Ran ran = in(error_packet(peer6, site6, static_cast<std::uint8_t>(error.type6),
                                      static_cast<std::uint8_t>(error.code6), error.rest6,
                                      packet_of(sent.between(site6, peer6))));
            Bytes about = packet_of(sent.between(site4, peer4));
            Bytes expected = error_packet(peer4, site4, static_cast<std::uint8_t>(error.type4),
                                          static_cast<std::uint8_t>(error.code4), error.rest4, about);
            EXPECT_EQ(ran.verdict, TC_ACT_UNSPEC);
            EXPECT_TRUE(is_ip4_like(ran.packet, expected)) << error.type6 << "/" << error.code6;
        }
    Bytes about = packet_of(message(Carries::Udp).between(site6, peer6));
    for (auto [type, code] : {std::pair{1, 5}, {4, 0}, {4, 2}, {3, 2}, {5, 0}, {100, 0}})
        EXPECT_EQ(dropped_in(error_packet(peer6, site6, static_cast<std::uint8_t>(type),
                                          static_cast<std::uint8_t>(code), 0, about)),
                  "via-protocol")
            << type << "/" << code;
    // About a packet that was not ours to the peer: nobody is told of it.
    for (auto [from, to] : {std::pair{address("fd00::1"), peer6}, {site6, address("fd7a:115c:a1e0::14")}})
        EXPECT_EQ(dropped_in(error_packet(peer6, site6, 1, 4, 0, packet_of(message(Carries::Udp).between(from, to)))),
                  "via-unreadable");
}

TEST_F(Translate, ErrorsOnTheWayBack) {
    const Error kErrors[] = {{1, 0, 0, 3, 0, 0},  {1, 0, 0, 3, 1, 0},       {4, 1, 6, 3, 2, 0},
                             {1, 4, 0, 3, 3, 0},  {1, 0, 0, 3, 5, 0},       {1, 1, 0, 3, 9, 0},
                             {1, 1, 0, 3, 13, 0}, {1, 0, 0, 3, 12, 0},      {3, 0, 0, 11, 0, 0},
                             {3, 1, 0, 11, 1, 0}, {2, 0, 1280, 3, 4, 1200}, {2, 0, 1280, 3, 4, 0},
                             {1, 1, 0, 3, 10, 0}, {2, 0, 1420, 3, 4, 1400}};
    for (Carries what : {Carries::Udp, Carries::Tcp, Carries::Echo, Carries::UdpWithoutChecksum}) {
        Message sent = message(what, 600);
        ASSERT_EQ(in(packet_of(sent)).verdict, TC_ACT_UNSPEC);
        Bytes about = packet_of(sent.between(peer4, site4));
        for (const Error& error : kErrors)
            for (auto [from4, from6] : {std::pair{site4, site6},
                                        {own4, own6},
                                        {address("192.0.2.1"), address("fd7a:115c:a1e0:b1a:0:7:c000:201")}}) {
                Ran ran = out(error_packet(from4, peer4, static_cast<std::uint8_t>(error.type4),
                                           static_cast<std::uint8_t>(error.code4), error.rest4, about));
                EXPECT_EQ(ran.packet,
                          error_packet(from6, peer6, static_cast<std::uint8_t>(error.type6),
                                       static_cast<std::uint8_t>(error.code6), error.rest6, packet_of(sent)))
                    << error.type4 << "/" << error.code4 << " from " << from4.text();
            }
        EXPECT_EQ(dropped_out(error_packet(site4, peer4, 12, 0, 0, about)), "via-protocol");
        EXPECT_EQ(dropped_out(error_packet(site4, peer4, 3, 14, 0, about)), "via-protocol");
        Bytes of_others = error_packet(site4, peer4, 3, 3, 0, packet_of(sent.between(address("100.64.0.20"), site4)));
        EXPECT_TRUE(is_untouched(out(of_others), of_others));
    }
}

TEST_F(Translate, WhateverComesIsTranslatedRightOrNotAtAll) {
    std::mt19937 random{7};
    auto any = [&](std::size_t below) { return static_cast<std::size_t>(random() % below); };
    std::size_t translated = 0;
    for (int round = 0; round < 6000; ++round) {
        const Carries what = std::array{Carries::Tcp, Carries::Udp, Carries::Echo, Carries::UdpWithoutChecksum}[any(4)];
        Message there = message(what, any(300));
        Bytes packet = packet_of(there);
        if (any(4) == 0) packet = error_packet(peer6, site6, static_cast<std::uint8_t>(any(6)), 0, 0, packet);
        if (any(4) == 0) packet = fragment_of(packet, 0, packet.size() - 40, any(2) != 0, 7);
        const bool back = any(2) != 0;
        if (back) {
            ASSERT_EQ(in(packet_of(there)).verdict, TC_ACT_UNSPEC);
            Message answer = there.between(site4, peer4);
            if (what == Carries::Echo)
                answer.what = Carries::EchoReply;
            else
                std::swap(answer.src_port, answer.dst_port);
            packet = packet_of(answer);
            if (any(4) == 0)
                packet = error_packet(site4, peer4, static_cast<std::uint8_t>(3 + any(10)), 0, 0,
                                      packet_of(there.between(peer4, site4)));
            if (any(4) == 0) packet = fragment_of(packet, 0, packet.size() - 20, any(2) != 0, 7);
        }
        for (std::size_t changes = any(4); changes > 0; --changes)
            packet[any(std::min<std::size_t>(packet.size(), 100))] = static_cast<std::byte>(random());
        if (any(4) == 0) packet.resize(1 + any(packet.size()));
        Ran ran = back ? out(packet) : in(packet);
        if (ran.verdict != TC_ACT_UNSPEC || ran.packet == packet) continue;
        ++translated;
        ASSERT_GE(ran.packet.size(), back ? 40u : 20u);
        ASSERT_EQ(std::to_integer<int>(ran.packet[0]) >> 4, back ? 6 : 4);
        const std::size_t at = back ? 4 : 2, length = std::to_integer<std::size_t>(ran.packet[at]) << 8 |
                                                      std::to_integer<std::size_t>(ran.packet[at + 1]);
        ASSERT_LE(length + (back ? 40 : 0), ran.packet.size()) << "round " << round;
        const IpAddress src = IpAddress::from_bytes(BytesView{ran.packet}.subspan(back ? 8 : 12, back ? 16 : 4)),
                        dst = IpAddress::from_bytes(BytesView{ran.packet}.subspan(back ? 24 : 16, back ? 16 : 4));
        if (back) {
            EXPECT_EQ(dst, peer6);
        } else {
            EXPECT_EQ(src, peer4) << "nobody chooses another's address";
        }
    }
    EXPECT_GT(translated, 2000u);
}

} // namespace
} // namespace tailrace::test
