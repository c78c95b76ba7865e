#include "base/log.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

TEST(Log, TextQuotesValuesWithSpacesAndStaysOneLine) {
    EXPECT_EQ(log::render(log::Format::Text, log::Level::Info, "peer path changed",
                          {{"peer", "alice"}, {"why", "a b\nc"}}, "T"),
              "T info    peer path changed peer=alice why=\"a b\\u000ac\"");
}

TEST(Log, JsonIsOneObjectALine) {
    EXPECT_EQ(log::render(log::Format::Json, log::Level::Error, "no \"route\"", {{"count", 3}}, "T"),
              R"({"time":"T","level":"error","message":"no \"route\"","count":"3"})");
}

TEST(Log, JournalFieldsCarryOurPrefix) {
    EXPECT_EQ(log::render(log::Format::Journal, log::Level::Warning, "odd", {{"peer key", "x"}}, ""),
              "MESSAGE=odd peer key=x\nPRIORITY=4\nTAILRACE_PEER_KEY=x\n");
}

} // namespace
} // namespace tailrace
