#include "relay/server/mesh_dialer.hpp"

#include "base/io/socket.hpp"
#include "relay/core/core.hpp"
#include "relay/net/certificate.hpp"

namespace tailrace::relay {
namespace {

constexpr Duration kRetry = std::chrono::seconds{5}; // source: tailscale derp/derphttp/mesh_client.go

} // namespace

MeshDialer::MeshDialer(Reactor& reactor, Shared& shared, std::vector<MeshPeer> peers)
    : reactor_(reactor), shared_(shared) {
    std::uint32_t core = 0;
    for (MeshPeer& peer : peers) {
        spawn(reactor_, "mesh", keep(std::move(peer), core));
        core = (core + 1) % static_cast<std::uint32_t>(shared_.cores.size());
    }
}

Task<void> MeshDialer::keep(MeshPeer peer, std::uint32_t core) {
    std::string last_reason;
    for (;;) {
        std::string reason;
        auto addresses = co_await resolve(reactor_, peer.host);
        if (!addresses) reason = addresses.error().message();
        for (std::size_t i = 0; addresses && i < addresses->size(); ++i) {
            auto ended = co_await link(peer, Endpoint{(*addresses)[i], peer.port}, core);
            if (ended->was_ourselves) {
                log::info("this relay is in its own mesh list and leaves itself out", {{"relay", peer.host}});
                co_return;
            }
            reason = ended->why;
        }
        if (reason != last_reason) // once a reason, not once in five seconds
            log::warn("no mesh link", {{"relay", peer.host}, {"why", reason}});
        last_reason = reason;
        co_await reactor_.sleep(kRetry);
    }
}

Task<std::shared_ptr<MeshDialer::Ended>> MeshDialer::link(const MeshPeer& peer, Endpoint address, std::uint32_t core) {
    auto ended = std::make_shared<Ended>(reactor_);
    auto tls = mesh_tls({peer.host, peer.cert_name});
    if (!tls) {
        ended->why = tls.error().message();
        co_return ended;
    }
    auto on_end = [this, ended](const std::string& why, bool was_ourselves) {
        reactor_.post([ended, why, was_ourselves] {
            ended->happened = true;
            ended->why = why;
            ended->was_ourselves = was_ourselves;
            ended->event.notify();
        });
    };
    shared_.cores[core]->post([peer, address, context = *tls, on_end](Core& home) {
        auto made = std::make_unique<MeshLink>();
        made->host = peer.host;
        made->expected = {peer.host, peer.cert_name};
        made->tls = peer.tls;
        made->on_end = on_end;
        home.start_link(std::move(made), address, context);
    });
    while (!ended->happened) co_await ended->event.wait();
    co_return ended;
}

} // namespace tailrace::relay
