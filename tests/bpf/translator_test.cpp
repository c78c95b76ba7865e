// The translator on a real device, between the filter's two programs: in their order, adopted, and gone without a
// trace.
#include "agent/dataplane/dataplane.hpp"
#include "agent/dataplane/translator.hpp"
#include "tests/bpf/tun_room.hpp"
#include "tests/bpf/two_families.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>

namespace tailrace::test {
namespace {

class TranslatorOnDevice : public TunRoom, public ::testing::WithParamInterface<AttachMethod> {
protected:
    const IpAddress site4 = *IpAddress::parse("192.168.7.1"), // of this host, so that it answers
        site6 = *IpAddress::parse("fd7a:115c:a1e0:b1a:0:7:c0a8:701");
    const IpAddress peer4 = *IpAddress::parse(kA), peer6 = *IpAddress::parse(kA6);

    void SetUp() override {
        TunRoom::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        options_.attach = translator_options_.attach = GetParam();
        options_.hosts = options_.pairs = options_.rows = 4096;
        options_.nets = 1024;
        options_.flows = 4096;
        ASSERT_EQ(run("ip address add 192.168.7.1/24 dev lo"), 0);
        auto plane = Dataplane::open(kDevice, options_);
        if (!plane && plane.error().code() == EPERM) // EACCES is the verifier's
            GTEST_SKIP() << "needs the privilege to load BPF programs: " << plane.error().message();
        if (!plane && GetParam() == AttachMethod::Tcx && plane.error().code() == EINVAL)
            GTEST_SKIP() << "this kernel has no TCX: " << plane.error().message();
        ASSERT_TRUE(plane) << plane.error().message();
        plane_ = std::make_unique<Dataplane>(std::move(*plane));
        FilterInput input;
        input.rules = {FilterRule{{"*"}, {FilterDestination{"*", {53, 53}, false}}, {}, {}, false}};
        input.own_addresses = {*IpAddress::parse(kR), *IpAddress::parse(kR6)};
        input.local_nets = {IpPrefix::single(input.own_addresses[0]), IpPrefix::single(input.own_addresses[1]), net_};
        auto committed = plane_->commit(compile_tables(input, numbers_));
        ASSERT_TRUE(committed) << committed.error().message();
        service_ = udp_socket(AF_INET, 53);
        closed_ = udp_socket(AF_INET, 54);
        open_translator();
    }
    void TearDown() override {
        translator_.reset();
        plane_.reset();
        (void)Translator::remove(kDevice, translator_options_); // best effort: the namespace goes anyway
        (void)Dataplane::remove(kDevice, options_);
        TunRoom::TearDown();
    }
    void open_translator() {
        auto opened = Translator::open(kDevice, translator_options_);
        ASSERT_TRUE(opened) << opened.error().message();
        translator_ = std::make_unique<Translator>(std::move(*opened));
        ViaTable table{{net_}, {{peer6, peer4}}, *IpAddress::parse(kR), *IpAddress::parse(kR6)};
        auto set = translator_->set(table);
        ASSERT_TRUE(set) << set.error().message();
        auto attached = translator_->keep_attached();
        ASSERT_TRUE(attached) << attached.error().message();
        EXPECT_TRUE(translator_->is_attached());
    }
    Message question(std::uint16_t port = 53) const {
        Message out{peer6, site6, Carries::Udp, 40000, port};
        out.body.assign(30, std::byte{0x5a});
        return out;
    }
    /// Asks as the peer, answers as the service, and says whether the peer has the answer, as IPv6 and right.
    bool is_answered() {
        while (depart()) {
        }
        arrive(packet_of(question()));
        char body[100];
        sockaddr_in from{};
        socklen_t from_bytes = sizeof from;
        ssize_t bytes =
            ::recvfrom(service_.get(), body, sizeof body, 0, reinterpret_cast<sockaddr*>(&from), &from_bytes);
        if (bytes != 30) return false;
        char text[INET_ADDRSTRLEN];
        EXPECT_EQ(std::string{::inet_ntop(AF_INET, &from.sin_addr, text, sizeof text)}, kA);
        // From the address that it was asked at: the socket is bound to any.
        Fd answering{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
        int yes = 1;
        ::setsockopt(answering.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        sockaddr_in own{};
        own.sin_family = AF_INET;
        own.sin_port = htons(53);
        ::inet_pton(AF_INET, "192.168.7.1", &own.sin_addr);
        service_.reset();
        EXPECT_EQ(::bind(answering.get(), reinterpret_cast<sockaddr*>(&own), sizeof own), 0) << std::strerror(errno);
        EXPECT_EQ(::sendto(answering.get(), body, 30, 0, reinterpret_cast<sockaddr*>(&from), from_bytes), 30);
        answering.reset();
        service_ = udp_socket(AF_INET, 53);
        Message answer = question().between(site6, peer6);
        std::swap(answer.src_port, answer.dst_port);
        while (auto packet = depart())
            if (*packet == packet_of(answer)) return true;
        return false;
    }
    std::uint64_t reason(const std::string& name) {
        auto reasons = plane_->reasons();
        for (const ReasonCount& one : *reasons)
            if (one.name == name) return one.counter.packets;
        return 0;
    }
    std::uint64_t translated_in() {
        auto counts = translator_->counts();
        return counts->at(TR_VIA_IN).counter.packets;
    }
    std::vector<std::string> pins() const {
        auto names = PinDirectory::named("/sys/fs/bpf", std::string{kDevice} + "-via6", TR_SCHEMA_VERSION).names();
        return names ? *names : std::vector<std::string>{names.error().message()};
    }

    const IpPrefix net_ = *IpPrefix::parse("fd7a:115c:a1e0:b1a:0:7:c0a8:700/120");
    DataplaneOptions options_;
    TranslatorOptions translator_options_;
    TableNumbers numbers_;
    std::unique_ptr<Dataplane> plane_;
    std::unique_ptr<Translator> translator_;
    Fd service_, closed_;
};

TEST_P(TranslatorOnDevice, ThePolicyAndTheReplyMemoryKnowTheViaAddress) {
    const auto passed = reason("rule");
    EXPECT_TRUE(is_answered());
    EXPECT_EQ(reason("rule"), passed + 1);
    // Egress remembered the answer as IPv6: what the peer says to it passes as a reply, without a rule.
    const auto replies = reason("reply");
    arrive(packet_of(question()));
    EXPECT_EQ(reason("reply"), replies + 1);
    EXPECT_EQ(received(service_), 1);
}

TEST_P(TranslatorOnDevice, WhatThePolicyForbidsIsNotTranslated) {
    arrive(packet_of(question(54)));
    EXPECT_EQ(received(closed_), 0);
    EXPECT_EQ(reason("no-rule"), 1u);
    EXPECT_EQ(translated_in(), 0u);
}

TEST_P(TranslatorOnDevice, ARefusedConnectionIsReset) {
    Message knock = question().between(peer6, *IpAddress::parse("fd7a:115c:a1e0:b1a:0:7:7f00:1"));
    ViaTable table{{*IpPrefix::parse("fd7a:115c:a1e0:b1a:0:7::/96")}, {{peer6, peer4}}, {}, {}};
    ASSERT_TRUE(translator_->set(table));
    FilterInput input;
    input.rules = {FilterRule{{"*"}, {FilterDestination{"*", {53, 53}, false}}, {}, {}, false}};
    input.own_addresses = {*IpAddress::parse(kR), *IpAddress::parse(kR6)};
    input.local_nets = table.nets;
    ASSERT_TRUE(plane_->commit(compile_tables(input, numbers_)));
    while (depart()) {
    }
    knock.what = Carries::Tcp;
    knock.tcp_flags = 0x02;
    knock.body.clear();
    arrive(packet_of(knock));
    bool reset = false;
    while (auto packet = depart())
        reset |= packet->size() == 60 && (*packet)[6] == std::byte{6} && (*packet)[53] == std::byte{0x14};
    EXPECT_TRUE(reset);
}

TEST_P(TranslatorOnDevice, ItWorksOnWithoutAnAgentAndIsAdopted) {
    EXPECT_TRUE(is_answered());
    translator_.reset();
    plane_.reset();
    arrive(packet_of(question()));
    EXPECT_EQ(received(service_), 1) << "nobody looks after it";
    auto plane = Dataplane::open(kDevice, options_);
    ASSERT_TRUE(plane && plane->adopted());
    plane_ = std::make_unique<Dataplane>(std::move(*plane));
    open_translator();
    EXPECT_EQ(translated_in(), 2u) << "the same maps";
    EXPECT_TRUE(is_answered());
}

TEST_P(TranslatorOnDevice, TheOrderIsRightAgainAfterSomebodyTookProgramsAway) {
    for (int round = 0; round < 2; ++round) {
        // As keep_attached() finds it when only the egress program is gone.
        PinDirectory pins = PinDirectory::named("/sys/fs/bpf", kDevice, TR_SCHEMA_VERSION);
        const unsigned index = ::if_nametoindex(kDevice);
        ASSERT_TRUE(detach(pins, {index, HookDirection::Egress, "egress_link"}));
        if (round == 1) {
            ASSERT_TRUE(detach(pins, {index, HookDirection::Ingress, "policy_link"}));
        }
        EXPECT_FALSE(plane_->is_attached());
        auto kept = plane_->keep_attached();
        ASSERT_TRUE(kept) << kept.error().message();
        EXPECT_FALSE(translator_->is_attached()) << "it stepped aside";
        kept = translator_->keep_attached();
        ASSERT_TRUE(kept) << kept.error().message();
        EXPECT_TRUE(is_answered());
    }
}

TEST_P(TranslatorOnDevice, OnlyListedPeersAndRoutes) {
    ASSERT_TRUE(translator_->set({{net_}, {}, {}, {}}));
    EXPECT_FALSE(is_answered());
    ASSERT_TRUE(translator_->set({{net_}, {{peer6, peer4}}, {}, {}}));
    EXPECT_TRUE(is_answered());
    ASSERT_TRUE(translator_->set({{*IpPrefix::parse("fd7a:115c:a1e0:b1a:0:8::/96")}, {{peer6, peer4}}, {}, {}}));
    EXPECT_FALSE(is_answered());
}

TEST_P(TranslatorOnDevice, NothingIsLeft) {
    EXPECT_FALSE(pins().empty());
    translator_.reset();
    auto removed = Translator::remove(kDevice, translator_options_);
    ASSERT_TRUE(removed) << removed.error().message();
    EXPECT_TRUE(pins().empty());
    // A link whose pin is gone goes itself a moment later.
    bool answered = true;
    for (int tries = 0; answered && tries < 500; ++tries) {
        std::this_thread::sleep_for(std::chrono::milliseconds{10});
        answered = is_answered();
    }
    EXPECT_FALSE(answered);
    arrive(packet_of(question().between(peer6, *IpAddress::parse(kR6))));
    EXPECT_TRUE(plane_->is_attached());
    EXPECT_TRUE(Translator::remove(kDevice, translator_options_)) << "none there is success";
}

INSTANTIATE_TEST_SUITE_P(Methods, TranslatorOnDevice, ::testing::Values(AttachMethod::Tcx, AttachMethod::Clsact),
                         [](const auto& info) { return info.param == AttachMethod::Tcx ? "Tcx" : "Clsact"; });

} // namespace
} // namespace tailrace::test
