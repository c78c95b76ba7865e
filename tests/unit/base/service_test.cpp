#include "base/service.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <unistd.h>

namespace tailrace {
namespace {

struct ServiceManager : testing::Test {
    ~ServiceManager() override {
        ::unsetenv("WATCHDOG_USEC");
        ::unsetenv("WATCHDOG_PID");
    }
    static void asks(const std::string& microseconds, const std::string& process) {
        ::setenv("WATCHDOG_USEC", microseconds.c_str(), 1);
        ::setenv("WATCHDOG_PID", process.c_str(), 1);
    }
};

TEST_F(ServiceManager, WantsToHearFromWhomItNames) {
    EXPECT_FALSE(watchdog_interval());
    asks("60000000", std::to_string(::getpid()));
    EXPECT_EQ(watchdog_interval(), std::chrono::seconds{60});
    asks("60000000", std::to_string(::getpid() + 1));
    EXPECT_FALSE(watchdog_interval());
    asks("60000000", "us");
    EXPECT_FALSE(watchdog_interval());
    for (const char* wrong : {"0", "-1", "soon", ""}) {
        asks(wrong, std::to_string(::getpid()));
        EXPECT_FALSE(watchdog_interval()) << wrong;
    }
}

TEST_F(ServiceManager, IsToldWhenAReloadBegan) {
    EXPECT_TRUE(reloading_state().starts_with("RELOADING=1\nMONOTONIC_USEC="));
}

} // namespace
} // namespace tailrace
