#include "agent/router/source_checks.hpp"

#include "base/file.hpp"
#include "base/random.hpp"

#include <gtest/gtest.h>

#include <filesystem>

namespace tailrace {
namespace {

struct SourceChecksTest : testing::Test {
    std::filesystem::path directory =
        std::filesystem::temp_directory_path() / fmt::format("tailrace-{:x}", random_u64());
    SourceChecks::Paths paths{directory / "setting", directory / "run/memory"};

    void SetUp() override { std::filesystem::create_directories(directory); }
    void TearDown() override { std::filesystem::remove_all(directory); }
    void set(const char* value) { ASSERT_TRUE(write_file_atomically(paths.setting, value, 0600)); }
    std::string setting() { return *read_file(paths.setting); }
    bool remembers() { return std::filesystem::exists(paths.memory); }
};

TEST_F(SourceChecksTest, WhatWeChangedIsGivenBackAlsoByTheNextAgent) {
    set("0\n");
    ASSERT_TRUE(SourceChecks{paths}.use_marks());
    EXPECT_EQ(setting(), "1\n");
    ASSERT_TRUE(SourceChecks{paths}.use_marks());
    ASSERT_TRUE(SourceChecks{paths}.give_back());
    EXPECT_EQ(setting(), "0\n");
    EXPECT_FALSE(remembers());
}

TEST_F(SourceChecksTest, WhatOthersChangedStays) {
    set("1\n");
    ASSERT_TRUE(SourceChecks{paths}.use_marks());
    ASSERT_TRUE(SourceChecks{paths}.give_back());
    EXPECT_EQ(setting(), "1\n") << "it was 1 before us";

    set("0\n");
    ASSERT_TRUE(SourceChecks{paths}.use_marks());
    set("2\n");
    ASSERT_TRUE(SourceChecks{paths}.give_back());
    EXPECT_EQ(setting(), "2\n") << "somebody set it since";
    EXPECT_FALSE(remembers());
}

TEST_F(SourceChecksTest, WhatCannotBeWrittenIsSaidAndTriedAgain) {
    EXPECT_FALSE(SourceChecks{paths}.use_marks()) << "there is no such setting";
    set("0\n");
    ASSERT_TRUE(SourceChecks{paths}.use_marks());
    std::filesystem::remove(paths.setting);
    EXPECT_FALSE(SourceChecks{paths}.give_back());
    EXPECT_TRUE(remembers());
}

} // namespace
} // namespace tailrace
