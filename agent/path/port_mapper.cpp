#include "agent/path/port_mapper.hpp"

#include "base/io/http1.hpp"
#include "base/random.hpp"
#include "netlink/route_lookup.hpp"

#include <algorithm>
#include <cerrno>
#include <net/if.h>

namespace tailrace {
namespace {

/// Gateways announce their start to all hosts of the link (224.0.0.1, which every host is in). Source: RFC 6886 3.2.1,
/// RFC 6887 14.1.1.
constexpr std::uint16_t kAnnouncementPort = 5350;
constexpr auto kConnect = std::chrono::seconds{1};
constexpr auto kExchange = std::chrono::seconds{2};
constexpr auto kSettle = std::chrono::milliseconds{500}; // a router's routes change many times a second
constexpr int kFirstUnprivilegedPort = 1024;

struct Gateway {
    PortMapping::Network network;
    int device_index = 0;
};

/// The router of a home or an office: the next hop of the default route, when its address is a private one.
std::optional<Gateway> find_gateway(std::uint32_t mark) {
    // A root name server, to which only a default route leads; nothing is sent there.
    static const IpAddress far_away = IpAddress::v4(0xc6290004); // 198.41.0.4
    static const std::vector<IpPrefix> homes{*IpPrefix::parse("10.0.0.0/8"), *IpPrefix::parse("172.16.0.0/12"),
                                             *IpPrefix::parse("192.168.0.0/16")};
    auto lookup = RouteLookup::open();
    if (!lookup) return std::nullopt;
    auto route = lookup->find(far_away, mark);
    if (!route || !route->gateway || !route->gateway->is_v4()) return std::nullopt;
    if (std::ranges::none_of(homes, [&](const IpPrefix& home) { return home.contains(*route->gateway); }))
        return std::nullopt;
    auto near = lookup->find(*route->gateway, mark);
    if (!near || near->local || !near->source) return std::nullopt;
    return Gateway{{*route->gateway, *near->source}, near->device_index};
}

std::string_view name_of(PortMapping::Protocol protocol) {
    switch (protocol) {
    case PortMapping::Protocol::NatPmp:
        return "NAT-PMP";
    case PortMapping::Protocol::Pcp:
        return "PCP";
    case PortMapping::Protocol::Upnp:
        return "UPnP";
    }
    return "";
}

Task<Result<UpnpDialogue::Answer>> exchange(Reactor& reactor, IpAddress host, UpnpDialogue::Request question,
                                            std::uint32_t mark) {
    DialOptions options;
    options.timeout = kConnect;
    options.mark = mark;
    auto stream = co_await dial_tcp(reactor, host.text(), question.port, options);
    if (!stream) co_return stream.error();
    Http1Client client{std::move(*stream)};
    Timer limit{reactor};
    limit.after(kExchange, [&client] { client.stream().close(); });
    HttpRequest request;
    request.target = question.target;
    request.authority = Endpoint{host, question.port}.text();
    request.headers.add("Connection", "close");
    if (!question.soap_action.empty()) {
        request.method = "POST";
        request.headers.add("Content-Type", "text/xml; charset=\"utf-8\"");
        request.headers.add("SOAPAction", question.soap_action);
        request.body = std::move(question.body);
    }
    auto response = co_await client.request(std::move(request), igd::kMaxXmlBytes);
    if (!response) co_return response.error().with("http://{}:{}{}", host.text(), question.port, question.target);
    co_return UpnpDialogue::Answer{response->status, std::move(response->body)};
}

} // namespace

PortMapper::PortMapper(Reactor& reactor, Options options, std::function<void()> changed)
    : reactor_(reactor), options_(options), changed_(std::move(changed)),
      mapping_(options.port, options.nonce,
               [] {
                   return static_cast<std::uint16_t>(kFirstUnprivilegedPort +
                                                     random_below(65535 - kFirstUnprivilegedPort));
               }),
      timer_(reactor), settle_(reactor) {}

PortMapper::~PortMapper() {
    *alive_ = false;
    close_sockets();
}

void PortMapper::set_settings(const PortMapping::Settings& settings) {
    if (settings == settings_) return;
    settings_ = settings;
    if (settings_.enabled) look_for_gateway();
    mapping_.set_settings(reactor_.now(), settings_);
    mapping_.run(reactor_.now(), PortMapping::Effort::Usual);
    carry_out();
    if (!settings_.enabled) close_sockets();
}

void PortMapper::on_network_change() {
    if (!settings_.enabled || std::exchange(look_pending_, true)) return;
    settle_.after(kSettle, [this] {
        look_pending_ = false;
        if (!settings_.enabled) return;
        auto before = network_;
        look_for_gateway();
        if (network_ != before) mapping_.run(reactor_.now(), PortMapping::Effort::Usual);
        carry_out();
    });
}

void PortMapper::run() {
    if (!settings_.enabled) return;
    look_for_gateway();
    mapping_.run(reactor_.now(), PortMapping::Effort::Usual);
    carry_out();
}

Task<void> PortMapper::probe() {
    auto alive = alive_;
    if (!settings_.enabled) co_return;
    look_for_gateway();
    co_await until_idle(alive, this); // what is under way began before us
    if (!*alive) co_return;
    mapping_.run(reactor_.now(), PortMapping::Effort::Fresh);
    carry_out();
    co_await until_idle(alive, this);
}

Task<void> PortMapper::until_idle(std::shared_ptr<bool> alive, PortMapper* self) {
    constexpr auto kLook = std::chrono::milliseconds{20};
    TimePoint end = self->reactor_.now() + PortMapping::kAttempt + 2 * PortMapping::kWindow;
    while (*alive && self->mapping_.is_busy() && self->reactor_.now() < end) co_await self->reactor_.sleep(kLook);
}

void PortMapper::look_for_gateway() {
    auto found = find_gateway(options_.mark);
    std::optional<PortMapping::Network> network;
    if (found) network = found->network;
    if (network == network_ && (!found || (found->device_index == device_index_ && socket_))) return;
    network_ = network;
    device_index_ = found ? found->device_index : 0;
    close_sockets();
    if (network_) open_sockets(*network_, device_index_);
    mapping_.set_network(reactor_.now(), socket_ ? network_ : std::nullopt);
}

void PortMapper::open_sockets(const PortMapping::Network& network, int device_index) {
    char name[IF_NAMESIZE] = {};
    UdpSocket::Options options;
    options.mark = options_.mark;
    options.avoid = options_.port;
    if (::if_indextoname(static_cast<unsigned>(device_index), name) != nullptr) options.device = name;
    auto socket = UdpSocket::bind(reactor_, {network.self, 0}, options);
    if (!socket) {
        log::debug("no socket towards the gateway", {{"error", socket.error()}});
        return;
    }
    socket_ = std::make_shared<UdpSocket>(std::move(*socket));
    spawn(reactor_, "port mapping", receive(alive_, this, socket_));
    options.reuse_address = true;
    auto listener = UdpSocket::bind(reactor_, {IpAddress::v4(0), kAnnouncementPort}, options);
    if (!listener) { // a restart of the gateway is then noticed when it is asked next
        log::debug("cannot hear the gateway's announcements", {{"error", listener.error()}});
        return;
    }
    announcements_ = std::make_shared<UdpSocket>(std::move(*listener));
    spawn(reactor_, "announcements of the gateway", receive(alive_, this, announcements_));
}

void PortMapper::close_sockets() {
    for (Socket* socket : {&socket_, &announcements_})
        if (*socket) std::exchange(*socket, nullptr)->close();
}

Task<void> PortMapper::receive(std::shared_ptr<bool> alive, PortMapper* self, Socket socket) {
    for (;;) {
        auto datagram = co_await socket->receive();
        if (!*alive) co_return;
        if (!datagram) {
            if (datagram.error().code() != ECANCELED)
                log::warn("port mapping hears nothing any more", {{"error", datagram.error()}});
            if (socket == self->socket_) self->close_sockets(); // opened again with the next look
            co_return;
        }
        if (socket != self->socket_ && socket != self->announcements_) co_return; // of a network that is gone
        self->mapping_.on_datagram(self->reactor_.now(), datagram->from, datagram->data);
        self->carry_out();
    }
}

Task<void> PortMapper::ask(std::shared_ptr<bool> alive, PortMapper* self, PortMapping::AskHttp question) {
    auto answer = co_await exchange(self->reactor_, question.host, question.request, self->options_.mark);
    if (!*alive) co_return;
    if (question.number == 0) {
        if (!answer) log::debug("a port mapping was not given back", {{"error", answer.error()}});
        co_return;
    }
    self->mapping_.on_http(self->reactor_.now(), question.number, answer);
    self->carry_out();
}

void PortMapper::carry_out() {
    TimePoint now = reactor_.now();
    for (PortMapping::Action& action : mapping_.take_actions()) {
        if (auto* send = std::get_if<PortMapping::SendUdp>(&action)) {
            if (!socket_) continue;
            if (auto sent = socket_->send(send->to, send->datagram); !sent) // as if lost: silence is an answer, too
                log::debug("a question to the gateway was not sent", {{"error", sent.error()}});
        } else if (auto* http = std::get_if<PortMapping::AskHttp>(&action)) {
            spawn(reactor_, "question to the gateway", ask(alive_, this, std::move(*http)));
        }
    }
    auto external = mapping_.external(now);
    bool moved = external != external_;
    if (moved && external)
        log::info("the gateway forwards a port to us",
                  {{"at", *external}, {"by", name_of(*mapping_.protocol())}, {"gateway", network_->gateway}});
    else if (moved)
        log::info("the gateway forwards no port to us any more", {{"why", mapping_.trouble()}});
    if (mapping_.trouble() != trouble_ && !mapping_.trouble().empty())
        log::debug("no port mapping", {{"error", mapping_.trouble()}});
    trouble_ = mapping_.trouble();
    bool news = moved || mapping_.services() != services_;
    external_ = external;
    services_ = mapping_.services();
    auto next = mapping_.next_timer();
    if (next)
        timer_.after(std::max<Duration>(*next - now, std::chrono::milliseconds{1}), [this] {
            mapping_.on_timer(reactor_.now());
            carry_out();
        });
    else
        timer_.cancel();
    if (news) changed_();
}

} // namespace tailrace
