#include "base/form.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

TEST(Form, GivesDecodedNamesAndValues) {
    auto fields = parse_form("client_secret=tskey-client-a%2Bb&scope=a+b%20c&flag&&empty=&x%3d=1=2");
    ASSERT_TRUE(fields) << fields.error().message();
    EXPECT_THAT(*fields, ElementsAre(Pair("client_secret", "tskey-client-a+b"), Pair("empty", ""), Pair("flag", ""),
                                     Pair("scope", "a b c"), Pair("x=", "1=2")));
    EXPECT_EQ(form_field(*fields, "scope"), "a b c");
    EXPECT_EQ(form_field(*fields, "nothing"), "");
    EXPECT_THAT(*parse_form(""), IsEmpty());
}

TEST(Form, RefusesWhatIsAmbiguousAndQuotesNothingOfIt) {
    for (const char* wrong : {"secret=%", "secret=%4", "secret=%zz", "%=secret", "secret=1&secret=2"}) {
        auto fields = parse_form(wrong);
        ASSERT_FALSE(fields) << wrong;
        EXPECT_THAT(fields.error().message(), Not(HasSubstr("secret"))) << wrong;
    }
}

TEST(Form, HasSixtyFourFieldsAtMost) {
    std::string text;
    for (int i = 0; i < 64; ++i) text += fmt::format("f{}=&", i);
    EXPECT_TRUE(parse_form(text));
    EXPECT_FALSE(parse_form(text + "one=more"));
}

} // namespace
} // namespace tailrace
