#include "proto/dns_query.hpp"

#include <gtest/gtest.h>

using namespace tailrace;

namespace {

/// The query of RFC 8484 4.1.1: www.example.com, A.
Bytes query(std::string name = "\3www\7example\3com") {
    Writer out;
    for (std::uint16_t field : {0xabcd, 0x0100, 1, 0, 0, 0}) out.be16(field);
    out.text(name);
    out.u8(0);
    out.be16(1);
    out.be16(1);
    return out.take();
}

TEST(DnsQuery, IsRead) {
    auto read = parse_dns_query(query());
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(read->id, 0xabcd);
    EXPECT_EQ(read->name, "www.example.com");
    EXPECT_EQ(read->type, 1);
    EXPECT_EQ(read->dns_class, 1);
    EXPECT_EQ(read->question_end, query().size());
    EXPECT_EQ(parse_dns_query(query(""))->name, "") << "the root";
    Bytes with_more = query();
    with_more.resize(with_more.size() + 11); // EDNS
    EXPECT_EQ(parse_dns_query(with_more)->question_end, query().size());
}

TEST(DnsQuery, IsRefusedWhenItIsNone) {
    Bytes whole = query();
    for (std::size_t size = 0; size < whole.size(); ++size)
        EXPECT_FALSE(parse_dns_query(BytesView{whole}.first(size))) << size;
    auto changed = [&](std::size_t at, int value) {
        Bytes out = whole;
        out[at] = static_cast<std::byte>(value);
        return out;
    };
    EXPECT_FALSE(parse_dns_query(changed(2, 0x81))) << "an answer";
    EXPECT_FALSE(parse_dns_query(changed(2, 0x29))) << "an update";
    EXPECT_FALSE(parse_dns_query(changed(5, 0)));
    EXPECT_FALSE(parse_dns_query(changed(5, 2)));
    EXPECT_FALSE(parse_dns_query(changed(12, 0xc0))) << "a compressed name";
    std::string longest;
    for (int i = 0; i < 4; ++i) longest += static_cast<char>(i < 3 ? 63 : 61) + std::string(i < 3 ? 63 : 61, 'a');
    EXPECT_TRUE(parse_dns_query(query(longest)));
    EXPECT_FALSE(parse_dns_query(query(longest + "\1a")));
    EXPECT_FALSE(parse_dns_query(Bytes(70000)));
}

TEST(DnsQuery, KnowsItsAnswer) {
    Bytes asked = query(), answer = query("\3WWW\7example\3com");
    EXPECT_FALSE(is_dns_answer(asked, answer)) << "it is a question";
    answer[2] = std::byte{0x81};
    EXPECT_TRUE(is_dns_answer(asked, answer)) << "in any case";
    EXPECT_FALSE(is_dns_truncated(answer));
    answer[2] = std::byte{0x83};
    EXPECT_TRUE(is_dns_truncated(answer));
    Bytes other = query("\3www\7exemple\3com");
    other[2] = std::byte{0x81};
    EXPECT_FALSE(is_dns_answer(asked, other));
    set_dns_id(answer, 0xabce);
    EXPECT_FALSE(is_dns_answer(asked, answer));
    Bytes refused{asked.begin(), asked.begin() + 12};
    refused[2] = std::byte{0x81};
    refused[5] = std::byte{0};
    EXPECT_FALSE(is_dns_answer(asked, refused));
    refused[3] = std::byte{1}; // the server could not read it
    EXPECT_TRUE(is_dns_answer(asked, refused));
    EXPECT_FALSE(is_dns_answer(asked, {}));
}

} // namespace
