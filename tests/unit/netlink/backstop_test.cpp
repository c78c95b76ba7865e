// The backstop on a real kernel, with lo in the part of the device: packets keep their mark across lo.
#include "netlink/nftables.hpp"
#include "tests/unit/netlink/kernel_room.hpp"

#include <arpa/inet.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace tailrace::test {
namespace {

constexpr std::uint32_t kPassed = 0x01000000;

/// Sends one datagram with this mark to ourselves and tells whether it arrived. Nothing waits: across lo it is there at
/// once.
bool arrives(std::uint32_t mark) {
    Fd receiver{::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)};
    Fd sender{::socket(AF_INET, SOCK_DGRAM, 0)};
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof to;
    EXPECT_EQ(::bind(receiver.get(), reinterpret_cast<sockaddr*>(&to), size), 0);
    EXPECT_EQ(::getsockname(receiver.get(), reinterpret_cast<sockaddr*>(&to), &size), 0);
    EXPECT_EQ(::setsockopt(sender.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark), 0);
    EXPECT_EQ(::sendto(sender.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), size), 1);
    char byte = 0;
    return ::recv(receiver.get(), &byte, 1, 0) == 1;
}

bool kernel_is_at_least(int major, int minor) {
    utsname system{};
    int has_major = 0, has_minor = 0;
    return ::uname(&system) == 0 && std::sscanf(system.release, "%d.%d", &has_major, &has_minor) == 2 &&
           std::pair{has_major, has_minor} >= std::pair{major, minor};
}

class BackstopOnKernel : public Kernel {
protected:
    void SetUp() override {
        Kernel::SetUp();
        if (IsSkipped()) return;
        if (run("nft --version") == 0 && run("nft list tables") != 0) GTEST_SKIP() << "the kernel has no nftables";
    }
};

TEST_F(BackstopOnKernel, DropsWhatHasNoMarkAndCounts) {
    EXPECT_TRUE(arrives(0));
    auto backstop = Backstop::create("lo", kPassed);
    ASSERT_TRUE(ok(backstop));
    EXPECT_FALSE(backstop->check()->intact);
    auto made = backstop->ensure();
    ASSERT_TRUE(ok(made));
    EXPECT_TRUE(made->intact);
    EXPECT_FALSE(arrives(0));
    EXPECT_FALSE(arrives(~kPassed));
    EXPECT_TRUE(arrives(kPassed));
    EXPECT_TRUE(arrives(kPassed | 0x80000));
    auto state = backstop->ensure();
    ASSERT_TRUE(ok(state));
    EXPECT_EQ(state->dropped_packets, 2u);
    ASSERT_TRUE(ok(backstop->remove()));
    ASSERT_TRUE(ok(backstop->remove()));
    EXPECT_TRUE(arrives(0));
}

TEST_F(BackstopOnKernel, MeansItsDeviceOnly) {
    auto backstop = Backstop::create("l", kPassed); // "lo" begins with it
    ASSERT_TRUE(ok(backstop->ensure()));
    EXPECT_TRUE(arrives(0));
}

TEST_F(BackstopOnKernel, OutlivesItsMakerAndIsAdopted) {
    {
        auto first = Backstop::create("lo", kPassed);
        ASSERT_TRUE(ok(first->ensure()));
    }
    EXPECT_FALSE(arrives(0));
    auto second = Backstop::create("lo", kPassed);
    auto before = second->check();
    ASSERT_TRUE(ok(before));
    EXPECT_TRUE(before->intact);
    EXPECT_EQ(before->dropped_packets, 1u);
    auto adopted = second->ensure();
    ASSERT_TRUE(ok(adopted));
    if (adopted->hold == BackstopHold::OwnedAndPersistent) {
        EXPECT_EQ(adopted->dropped_packets, 1u); // adopted, not made anew
    }
}

TEST_F(BackstopOnKernel, SurvivesAFlushWhereTheKernelLetsItBeOwned) {
    if (run("nft --version") != 0) GTEST_SKIP() << "nft is not installed";
    auto backstop = Backstop::create("lo", kPassed);
    auto made = backstop->ensure();
    ASSERT_TRUE(ok(made));
    if (!kernel_is_at_least(5, 12)) GTEST_SKIP() << "Linux knows owned tables since 5.12";
    ASSERT_NE(made->hold, BackstopHold::Plain);
    ASSERT_EQ(run("nft flush ruleset"), 0);
    EXPECT_FALSE(arrives(0));
    if (made->hold == BackstopHold::OwnedAndPersistent) { // else the flush took the plain one of the two
        EXPECT_NE(run("nft delete table inet tailrace-lo"), 0);
    }
    EXPECT_FALSE(arrives(0));
    ASSERT_TRUE(ok(backstop->ensure()));
}

TEST_F(BackstopOnKernel, IsSeenAndRepairedWhenItIsTouched) {
    if (run("nft --version") != 0) GTEST_SKIP() << "nft is not installed";
    auto watch = NftablesWatch::open("lo");
    ASSERT_TRUE(ok(watch));
    {
        auto first = Backstop::create("lo", kPassed);
        ASSERT_TRUE(ok(first->ensure()));
    } // its maker is gone: anybody may touch it
    ASSERT_TRUE(*watch->take_changes());
    ASSERT_EQ(run("nft add table inet other"), 0);
    EXPECT_FALSE(*watch->take_changes());

    for (const char* harm :
         {"nft flush ruleset", "nft flush table inet tailrace-lo", "nft insert rule inet tailrace-lo backstop accept",
          "nft flush chain inet tailrace-lo relayed", "nft add table inet tailrace-lo '{ flags dormant; }'",
          "nft delete table inet tailrace-lo"}) {
        run(harm); // an old nft knows no flags persist and refuses some of it
        auto backstop = Backstop::create("lo", kPassed);
        const bool was_intact = backstop->check()->intact;
        EXPECT_EQ(*watch->take_changes(), !was_intact) << harm;
        auto repaired = backstop->ensure();
        ASSERT_TRUE(ok(repaired)) << harm;
        EXPECT_TRUE(repaired->intact);
        EXPECT_FALSE(arrives(0)) << harm;
        EXPECT_TRUE(arrives(kPassed)) << harm;
        (void)watch->take_changes();
        backstop = Error::make("gone");
        (void)watch->take_changes();
    }
}

TEST_F(BackstopOnKernel, TakesThePlaceOfAnotherTableOfItsName) {
    if (run("nft add table inet tailrace-lo '{ chain backstop { type filter hook input priority 0; }; }'") != 0)
        GTEST_SKIP() << "nft is not installed";
    auto backstop = Backstop::create("lo", kPassed);
    EXPECT_FALSE(backstop->check()->intact);
    ASSERT_TRUE(ok(backstop->ensure()));
    EXPECT_FALSE(arrives(0));
}

TEST_F(BackstopOnKernel, IsNotTakenFromALivingOwner) {
    auto first = Backstop::create("lo", kPassed);
    auto made = first->ensure();
    ASSERT_TRUE(ok(made));
    if (!kernel_is_at_least(6, 9)) GTEST_SKIP() << "Linux knows tables that outlive their owner since 6.9";
    ASSERT_EQ(made->hold, BackstopHold::OwnedAndPersistent);
    auto second = Backstop::create("lo", kPassed);
    auto refused = second->ensure();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), EPERM);
}

} // namespace
} // namespace tailrace::test
