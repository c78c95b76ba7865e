// A network namespace of its own, for what the kernel does with our requests.
#pragma once

#include "netlink/link.hpp"
#include "tests/unit/addresses.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdlib>
#include <optional>
#include <string>

namespace tailrace::test {

inline IpAddress address(std::string_view text) {
    return *IpAddress::parse(text);
}

template <typename T>
::testing::AssertionResult ok(const Result<T>& result) {
    if (result) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << result.error().message();
}

/// Runs a program as an operator would.
inline int run(const std::string& command) {
    return std::system((command + " >/dev/null 2>&1").c_str());
}

class Kernel : public ::testing::Test {
protected:
    void SetUp() override {
        if (::unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "no privilege to make a network namespace";
        links_.emplace(*Links::open());
        ASSERT_TRUE(ok(links_->set_state(1, LinkState::Up)));
    }
    /// A device that carries routes: a dummy where the kernel has them, else one end of a veth pair.
    Link device(const std::string& name) {
        auto made = links_->create(name, "dummy");
        if (!made) made = links_->create(name, "veth");
        EXPECT_TRUE(ok(made));
        auto ends = links_->list(); // both up, or there is no carrier
        EXPECT_TRUE(ok(ends));
        for (const Link& end : *ends) EXPECT_TRUE(ok(links_->set_state(end.index, LinkState::Up)));
        return *made;
    }
    std::optional<Links> links_;
};

} // namespace tailrace::test
