// A policy that cannot be written, for a map fails on the way: what was revoked does not pass.
#include "agent/engine/packet_filter.hpp"
#include "tests/bpf/tun_room.hpp"

#include <bpf/bpf.h>
#include <gmock/gmock.h>

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <thread>

namespace tailrace::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

FilterInput allow(std::vector<std::string> sources) {
    FilterInput input;
    input.rules = {FilterRule{std::move(sources), {FilterDestination{"*", {53, 53}, false}}, {}, {}, false}};
    input.own_addresses = {*IpAddress::parse(TunRoom::kR), *IpAddress::parse(TunRoom::kR6)};
    return input;
}

class Fault : public TunRoom {
protected:
    void SetUp() override {
        TunRoom::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        auto filter = PacketFilter::open(reactor_, kDevice, TR_SCHEMA_VERSION);
        if (!filter && filter.error().message().find("Operation not permitted") != std::string::npos)
            GTEST_SKIP() << "needs the privilege to load BPF programs: " << filter.error().message();
        ASSERT_TRUE(filter) << filter.error().message();
        filter_ = std::move(*filter);
        service_ = udp_socket(AF_INET, 53);
        loop_ = std::thread{[this] { reactor_.run(); }};
        auto pins = PinDirectory::open("/sys/fs/bpf", kDevice, TR_SCHEMA_VERSION);
        ASSERT_TRUE(pins);
        pins_.emplace(std::move(*pins));
        ASSERT_TRUE(commit(allow({kA})));
        ASSERT_TRUE(gets_through(kA));
        ASSERT_TRUE(filter_->is_whole());
    }
    void TearDown() override {
        if (loop_.joinable()) {
            reactor_.stop();
            loop_.join();
        }
        filter_.reset();
        service_.reset();
        (void)PacketFilter::remove(kDevice, TR_SCHEMA_VERSION); // best effort: the namespace goes anyway
        TunRoom::TearDown();
    }

    Result<std::vector<std::string>> commit(FilterInput input) {
        std::promise<Result<std::vector<std::string>>> done;
        reactor_.post([&] {
            auto body = [](PacketFilter& filter, FilterInput what,
                           std::promise<Result<std::vector<std::string>>>& out) -> Task<void> {
                out.set_value(co_await filter.commit(std::move(what)));
            };
            spawn(reactor_, "commit", body(*filter_, std::move(input), done));
        });
        return done.get_future().get();
    }
    bool gets_through(const char* from) {
        arrive(Packet{from, kR}.udp(53));
        return received(service_) == 1;
    }
    Fd map(const char* name) { return pins_->get(name); }

    Reactor reactor_;
    std::thread loop_;
    std::unique_ptr<PacketFilter> filter_;
    std::optional<PinDirectory> pins_;
    Fd service_;
};

TEST_F(Fault, PrefixesThatDoNotFitOnTheWay) {
    // Somebody else's, in a table that there is not: all but two places are taken.
    Fd nets = map("tr_nets");
    std::vector<tr_net_key> strangers;
    for (std::uint32_t i = 0; i < DataplaneOptions{}.nets - 2; ++i) {
        tr_net_key key{};
        key.prefix_bits = 32 + 128;
        key.scope = {99, TR_SIDE_SOURCE, 6, 0};
        std::memcpy(key.addr.bytes, &i, sizeof i);
        strangers.push_back(key);
    }
    tr_address nobody{};
    for (const tr_net_key& key : strangers)
        for (int tries = 0; ::bpf_map_update_elem(nets.get(), &key, &nobody, BPF_ANY) != 0; ++tries) {
            ASSERT_TRUE(errno == ENOMEM && tries < 200) << std::strerror(errno);
            run("sleep 0.002"); // it comes from caches that refill now and then
        }

    std::vector<std::string> sources = {kB};
    for (int i = 0; i < 5; ++i) sources.push_back("10." + std::to_string(i) + ".0.0/16");
    auto committed = commit(allow(sources));
    ASSERT_TRUE(committed) << committed.error().message();
    EXPECT_THAT(*committed, ElementsAre(HasSubstr("no rule is in force, the policy could not be written")));
    EXPECT_THAT(committed->front(), HasSubstr("of 5 written"));
    EXPECT_FALSE(filter_->is_whole());
    EXPECT_FALSE(gets_through(kA)) << "revoked";
    EXPECT_FALSE(gets_through(kB));

    for (const tr_net_key& key : strangers) (void)::bpf_map_delete_elem(nets.get(), &key);
    committed = commit(allow(sources));
    ASSERT_TRUE(committed) << committed.error().message();
    EXPECT_TRUE(committed->empty());
    EXPECT_TRUE(filter_->is_whole());
    EXPECT_FALSE(gets_through(kA));
    EXPECT_TRUE(gets_through(kB));
    EXPECT_TRUE(gets_through("10.3.7.7"));
}

/// The maps that a commit writes before the switch, in its order: each time another part of the policy is there
/// already.
class FaultIn : public Fault, public ::testing::WithParamInterface<const char*> {};

TEST_P(FaultIn, AMapThatCannotBeWritten) {
    ASSERT_EQ(::bpf_map_freeze(map(GetParam()).get()), 0) << std::strerror(errno);
    auto committed = commit(allow({kB}));
    EXPECT_FALSE(gets_through(kA)) << "revoked";
    EXPECT_FALSE(filter_->is_whole());
    if (!committed) {
        EXPECT_THAT(committed.error().message(), HasSubstr("nothing from the tailnet passes"));
        EXPECT_THAT(committed.error().message(), HasSubstr(GetParam()));
        EXPECT_FALSE(gets_through(kB));
    } else { // the policy without rules needed nothing there
        EXPECT_THAT(*committed, ElementsAre(HasSubstr("no rule is in force")));
        EXPECT_THAT(committed->front(), HasSubstr(GetParam()));
        EXPECT_FALSE(gets_through(kB));
    }
}
INSTANTIATE_TEST_SUITE_P(Maps, FaultIn, ::testing::Values("tr_hosts", "tr_pairs", "tr_rows", "tr_ports", "tr_settings"),
                         [](const auto& info) { return std::string{info.param}.substr(3); });

TEST_F(Fault, ASwitchThatFailsIsTold) {
    ASSERT_EQ(::bpf_map_freeze(map("tr_live").get()), 0) << std::strerror(errno);
    auto committed = commit(allow({kB}));
    ASSERT_FALSE(committed);
    EXPECT_THAT(committed.error().message(), HasSubstr("the old policy stays in force"));
}

} // namespace
} // namespace tailrace::test
