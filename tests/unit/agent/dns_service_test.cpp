#include "agent/dns/ask.hpp"
#include "agent/dns/service.hpp"
#include "base/file.hpp"
#include "base/io/socket.hpp"
#include "proto/dns_message.hpp"
#include "tests/fakes/run_task.hpp"

#include <gmock/gmock.h>

#include <filesystem>

using namespace tailrace;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

namespace {

constexpr auto kPatience = std::chrono::seconds{5};

/// A resolver that says `answer` to everything, after something forged.
Task<void> say(UdpSocket* socket, std::function<Bytes(Bytes)> answer) {
    for (;;) {
        auto asked = co_await socket->receive();
        if (!asked) co_return;
        Bytes forged = answer(asked->data);
        set_dns_id(forged, static_cast<std::uint16_t>(parse_dns_query(asked->data)->id + 1));
        (void)socket->send(asked->from, forged);
        (void)socket->send(asked->from, answer(asked->data));
    }
}

TEST(DnsAsk, AsksOneResolverAfterTheOther) {
    run_task([](Reactor& reactor) -> Task<void> {
        Endpoint here{*IpAddress::parse("127.0.0.1"), 0};
        auto mute = UdpSocket::bind(reactor, here, {}), speaks = UdpSocket::bind(reactor, here, {});
        spawn(reactor, "resolver", say(&*speaks, [](Bytes query) {
                  query[2] |= std::byte{0x80};
                  query.push_back(std::byte{'!'});
                  return query;
              }));
        Bytes query = *make_dns_query("www.example.com", 1, 0);
        std::vector<DnsUpstream> both{{mute->local(), {}}, {speaks->local(), {}}}, silent{{mute->local(), {}}}, none;
        auto answer = co_await ask_in_turn(reactor, both, query, kPatience);
        EXPECT_TRUE(answer) << answer.error().message();
        if (answer) {
            EXPECT_EQ(answer->size(), query.size() + 1);
            EXPECT_EQ(answer->front(), std::byte{0}) << "under the ID that the client chose";
        }
        EXPECT_FALSE(co_await ask_in_turn(reactor, silent, query, std::chrono::milliseconds{50}));
        EXPECT_FALSE(co_await ask_in_turn(reactor, none, query, kPatience));
        speaks->close();
    });
}

/// A resolver whose answers over UDP are cut, and whole over TCP.
Task<void> say_whole(Listener* listener) {
    auto stream = co_await listener->accept();
    if (!stream) co_return;
    std::array<std::byte, 2> head{};
    (void)co_await (*stream)->read_exactly(head);
    Bytes query(Reader{head}.be16());
    (void)co_await (*stream)->read_exactly(query);
    query[2] |= std::byte{0x80};
    Writer out;
    out.be16(static_cast<std::uint16_t>(query.size() + 2000));
    out.bytes(query);
    out.bytes(Bytes(2000));
    (void)co_await (*stream)->write_all(out.view());
}

TEST(DnsAsk, TakesTheWholeAnswerOverTcp) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto listener = Listener::tcp(reactor, {*IpAddress::parse("127.0.0.1"), 0});
        auto socket = UdpSocket::bind(reactor, listener->local(), {});
        EXPECT_TRUE(socket) << socket.error().message();
        if (!socket) co_return;
        spawn(reactor, "resolver", say(&*socket, [](Bytes query) {
                  query[2] |= std::byte{0x82}; // truncated
                  return query;
              }));
        spawn(reactor, "resolver", say_whole(&*listener));
        Bytes query = *make_dns_query("www.example.com", 1, 0);
        std::vector<DnsUpstream> one{{listener->local(), {}}};
        auto answer = co_await ask_in_turn(reactor, one, query, kPatience);
        EXPECT_TRUE(answer) << answer.error().message();
        if (answer) EXPECT_EQ(answer->size(), query.size() + 2000);
        socket->close();
        listener->close();
    });
}

/// An answer with a result code, and nothing else.
std::function<Bytes(Bytes)> with_code(unsigned code) {
    return [code](Bytes query) {
        query[2] |= std::byte{0x80};
        query[3] = static_cast<std::byte>(code);
        return query;
    };
}

TEST(DnsAsk, ARefusalCountsWhereNobodyKnowsBetter) {
    run_task([](Reactor& reactor) -> Task<void> {
        Endpoint here{*IpAddress::parse("127.0.0.1"), 0};
        auto fails = UdpSocket::bind(reactor, here, {}), refuses = UdpSocket::bind(reactor, here, {}),
             knows = UdpSocket::bind(reactor, here, {});
        spawn(reactor, "fails", say(&*fails, with_code(2)));
        spawn(reactor, "refuses", say(&*refuses, with_code(5)));
        spawn(reactor, "knows", say(&*knows, with_code(3)));
        Bytes query = *make_dns_query("www.example.com", 1, 77);
        std::vector<DnsUpstream> all{{fails->local(), {}}, {refuses->local(), {}}, {knows->local(), {}}};
        auto answer = co_await ask_upstreams(reactor, all, query, DnsTransport::Udp, kPatience);
        EXPECT_TRUE(answer && ((*answer)[3] & std::byte{0xf}) == std::byte{3})
            << "that there is no such name is an answer";
        all = {{refuses->local(), {}}};
        answer = co_await ask_upstreams(reactor, all, query, DnsTransport::Udp, kPatience);
        EXPECT_TRUE(answer && ((*answer)[3] & std::byte{0xf}) == std::byte{5});
        if (answer) EXPECT_EQ(parse_dns_answer(*answer)->result, 5u);
        for (auto* socket : {&fails, &refuses, &knows}) (*socket)->close();
    });
}

TEST(DnsAsk, NobodyThereIsKnownAtOnce) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto gone = UdpSocket::bind(reactor, {*IpAddress::parse("127.0.0.1"), 0}, {});
        std::vector<DnsUpstream> one{{gone->local(), {}}};
        gone->close();
        TimePoint begin = reactor.now();
        auto answer = co_await ask_upstreams(reactor, one, *make_dns_query("a.example", 1, 1), DnsTransport::Udp,
                                             std::chrono::seconds{60});
        EXPECT_FALSE(answer);
        EXPECT_LT(reactor.now() - begin, std::chrono::seconds{30});
    });
}

class ResolvConfTest : public ::testing::Test {
protected:
    ResolvConfTest() { std::filesystem::create_directories(folder_); }
    ~ResolvConfTest() override { std::filesystem::remove_all(folder_); }
    std::string folder_ = testing::TempDir() + "/resolv-conf-" + std::to_string(::getpid());
    std::string path_ = folder_ + "/resolv.conf", kept_ = folder_ + "/kept";
    ResolvConf file_{path_, kept_};
    std::string text_ =
        resolv_conf_text({*IpAddress::parse("100.100.100.100")}, {"tail.lab", "home"}, "options edns0\n");

    void others_write(const std::string& text) { ASSERT_TRUE(write_file_atomically(path_, text, 0640)); }
    std::string there() { return read_file(path_).value_or("none"); }
};

TEST_F(ResolvConfTest, IsGivenBackByteForByte) {
    const std::string before = "# mine\nnameserver 192.0.2.1\n\n\nsearch a b\toptions x";
    others_write(before);
    auto inode = std::filesystem::status(path_).permissions();
    EXPECT_TRUE(*file_.write(text_));
    EXPECT_FALSE(*file_.write(text_)) << "again";
    EXPECT_EQ(there(), text_);
    EXPECT_EQ(std::filesystem::status(path_).permissions(), inode);
    EXPECT_EQ(*file_.original(), before);
    std::string other = resolv_conf_text({*IpAddress::parse("100.100.100.100")}, {}, "");
    EXPECT_TRUE(*ResolvConf(path_, kept_).write(other)) << "after a crash";
    EXPECT_EQ(*file_.original(), before);
    EXPECT_TRUE(file_.restore());
    EXPECT_EQ(there(), before);
    EXPECT_FALSE(std::filesystem::exists(kept_));
    EXPECT_TRUE(file_.restore()) << "once more";
    EXPECT_EQ(there(), before);
}

TEST_F(ResolvConfTest, WhatOthersWroteSinceStays) {
    others_write("nameserver 192.0.2.1\n");
    EXPECT_TRUE(file_.write(text_));
    others_write("nameserver 192.0.2.2\n");
    EXPECT_EQ(*file_.original(), "nameserver 192.0.2.2\n");
    EXPECT_TRUE(file_.write(text_));
    EXPECT_TRUE(file_.restore());
    EXPECT_EQ(there(), "nameserver 192.0.2.2\n");
    EXPECT_TRUE(file_.write(text_));
    others_write("nameserver 192.0.2.3\n");
    EXPECT_TRUE(file_.restore());
    EXPECT_EQ(there(), "nameserver 192.0.2.3\n");
    EXPECT_FALSE(std::filesystem::exists(kept_));
}

TEST_F(ResolvConfTest, AFileThatWasNotThereGoes) {
    EXPECT_TRUE(*file_.write(text_));
    EXPECT_EQ(*file_.original(), "");
    EXPECT_TRUE(file_.restore());
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ResolvConfTest, ALinkStaysOne) {
    std::string target = folder_ + "/target";
    ASSERT_TRUE(write_file_atomically(target, "nameserver 192.0.2.1\n", 0644));
    std::filesystem::create_symlink(target, path_);
    EXPECT_TRUE(file_.write(text_));
    EXPECT_TRUE(std::filesystem::is_symlink(path_));
    EXPECT_EQ(*read_file(target), text_);
    EXPECT_TRUE(file_.restore());
    EXPECT_EQ(*read_file(target), "nameserver 192.0.2.1\n");
}

TEST_F(ResolvConfTest, CannotBeWrittenWhereNothingCan) {
    ResolvConf nowhere{"/proc/version", kept_};
    auto written = nowhere.write(text_);
    ASSERT_FALSE(written);
    EXPECT_THAT(written.error().message(), HasSubstr("/proc/version"));
}

TEST(ResolvConfText, SaysWhoOwnsIt) {
    EXPECT_EQ(resolv_conf_owner("# Generated by NetworkManager\nnameserver 192.168.1.1\n"),
              ResolvConfOwner::NetworkManager);
    EXPECT_EQ(resolv_conf_owner("# This is managed by man:systemd-resolved(8).\nnameserver 127.0.0.53\n"),
              ResolvConfOwner::Resolved);
    EXPECT_EQ(resolv_conf_owner("nameserver 127.0.0.53\n"), ResolvConfOwner::Resolved);
    EXPECT_EQ(resolv_conf_owner("# generated by resolvconf(8)\nnameserver 192.0.2.1\n"), ResolvConfOwner::Resolvconf);
    EXPECT_EQ(resolv_conf_owner("nameserver 192.0.2.1\n# NetworkManager\n"), ResolvConfOwner::Nobody);
    EXPECT_EQ(resolv_conf_owner(""), ResolvConfOwner::Nobody);
}

TEST(ResolvConfText, AsksUsAndKeepsOptions) {
    std::string text = resolv_conf_text({*IpAddress::parse("100.100.100.100"), *IpAddress::parse("fd7a:115c:a1e0::53")},
                                        {"tail.lab", "home"}, "nameserver 192.0.2.1\n options edns0 trust-ad\n");
    EXPECT_TRUE(is_our_resolv_conf(text));
    EXPECT_THAT(text, HasSubstr("nameserver 100.100.100.100\nnameserver fd7a:115c:a1e0::53\nsearch tail.lab home\n"
                                "options edns0 trust-ad\n"));
    EXPECT_THAT(text, Not(HasSubstr("192.0.2.1")));
    EXPECT_THAT(search_domains_in("domain a\nsearch b\tc  d\n"), ElementsAre("b", "c", "d"));
    EXPECT_THAT(search_domains_in("domain a\n"), ElementsAre("a"));
}

TEST(DnsServerTest, AnswersByUdpAndTcpAndOnlyOurs) {
    run_task([](Reactor& reactor) -> Task<void> {
        bool ours = true;
        IpAddress here = *IpAddress::parse("127.0.0.1");
        DnsServer server{reactor,
                         [](Bytes query, DnsTransport) -> Task<Result<Bytes>> {
                             DnsReply reply;
                             reply.address = *IpAddress::parse("100.64.0.2");
                             co_return write_dns_reply(query, reply);
                         },
                         [&](const IpAddress&) { return ours; }, 0};
        std::vector<IpAddress> listen_at{here}, nowhere;
        server.set_addresses(listen_at);
        EXPECT_TRUE(server.is_listening());
        std::vector<DnsUpstream> at{{server.endpoints().at(0), {}}};
        Bytes query = *make_dns_query("bob", 1, 5);
        for (DnsTransport transport : {DnsTransport::Udp, DnsTransport::Tcp}) {
            auto answer = co_await ask_upstreams(reactor, at, query, transport, kPatience);
            EXPECT_TRUE(answer) << answer.error().message();
            if (answer) EXPECT_EQ(parse_dns_answer(*answer)->answers.at(0).body, "100.64.0.2");
        }
        ours = false;
        auto silence = co_await ask_upstreams(reactor, at, query, DnsTransport::Udp, std::chrono::milliseconds{100});
        EXPECT_FALSE(silence);
        server.set_addresses(nowhere);
        EXPECT_FALSE(server.is_listening());
    });
}

TEST_F(ResolvConfTest, TheServiceSendsNobodyWhereItDoesNotListen) {
    others_write("nameserver 192.0.2.1\n");
    run_task([this](Reactor& reactor) -> Task<void> {
        DnsService service{reactor, file_, [] { return DnsResolver::Names{}; }, [](const IpAddress&) { return true; }};
        EffectiveDns dns;
        dns.install = true;
        dns.routes = {{"tail.lab", {}}};
        std::vector<IpAddress> others{*IpAddress::parse("192.0.2.77")}; // not of this machine
        service.set(dns, others);
        EXPECT_EQ(there(), "nameserver 192.0.2.1\n");
        EXPECT_THAT(service.troubles(), ElementsAre(HasSubstr("192.0.2.77")));
        EXPECT_THAT(service.upstreams_for("www.example").at(0).text(), "192.0.2.1");
        dns.outside = {*IpPrefix::parse("192.0.2.0/24")}; // past an exit node
        service.set(dns, others);
        EXPECT_TRUE(service.upstreams_for("www.example").empty());
        EXPECT_TRUE(service.would_leak(dns.outside));
        EXPECT_FALSE(service.would_leak({*IpPrefix::parse("198.51.100.0/24")}));
        EXPECT_TRUE(service.clear({}));
        EXPECT_FALSE(co_await service.answer(*make_dns_query("a", 1, 1), DnsTransport::Udp));
    });
}

} // namespace
