#include "agent/store/state_file.hpp"
#include "base/file.hpp"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <sys/stat.h>

namespace tailrace {
namespace {

class StateFileTest : public testing::Test {
protected:
    StateFileTest() {
        char name[] = "/tmp/tailrace-state-XXXXXX";
        directory_ = mkdtemp(name);
        path_ = directory_ + "/tailraced.state";
    }
    ~StateFileTest() override { std::filesystem::remove_all(directory_); }

    std::string directory_, path_;
};

TEST_F(StateFileTest, RemembersValuesAsBase64WithMode0600) {
    auto state = StateFile::open(path_);
    ASSERT_TRUE(state);
    ASSERT_TRUE(state->set("_machinekey", "privkey:00"));
    EXPECT_EQ(*read_file(path_), "{\n  \"_machinekey\": \"cHJpdmtleTowMA==\"\n}");
    struct stat info {};
    ASSERT_EQ(stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    auto again = StateFile::open(path_);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->get("_machinekey"), "privkey:00");
    ASSERT_TRUE(again->erase({"_machinekey"}));
    EXPECT_EQ(*read_file(path_), "{}");
}

TEST_F(StateFileTest, RefusesADamagedFileAndKeepsItAside) {
    ASSERT_TRUE(write_file_atomically(path_, "{\"_machinekey\": \"cHJp", 0600));
    auto state = StateFile::open(path_);
    ASSERT_FALSE(state);
    EXPECT_THAT(state.error().message(), testing::HasSubstr(path_));
    auto kept = keep_aside(path_, *WallTime::parse("2026-01-02T03:04:05Z"));
    ASSERT_TRUE(kept);
    EXPECT_EQ(*kept, path_ + ".damaged-20260102T030405Z");
    EXPECT_EQ(*read_file(*kept), "{\"_machinekey\": \"cHJp");
    EXPECT_TRUE(StateFile::open(path_));
}

TEST_F(StateFileTest, NeverOverwritesWhatWasKeptAside) {
    auto now = *WallTime::parse("2026-01-02T03:04:05Z");
    ASSERT_TRUE(write_file_atomically(path_, "one", 0600));
    auto first = keep_aside(path_, now);
    ASSERT_TRUE(write_file_atomically(path_, "two", 0600));
    auto second = keep_aside(path_, now);
    ASSERT_TRUE(first && second);
    EXPECT_EQ(*read_file(*first), "one");
    EXPECT_EQ(*read_file(*second), "two");
}

TEST_F(StateFileTest, TakesAnEmptyFileForAMissingOne) {
    ASSERT_TRUE(write_file_atomically(path_, "", 0600));
    EXPECT_TRUE(StateFile::open(path_));
}

} // namespace
} // namespace tailrace
