// relay/server/mesh_dialer.hpp - keeps a link to each other relay of the region (derp-disco-paths.md 1.7).
#pragma once
#include "base/io/reactor.hpp"
#include "relay/config/config.hpp"
#include "relay/core/shared.hpp"

namespace tailrace::relay {

/// Names are looked up here, on the reactor; the links themselves live on the cores. Tries again 5 s after a link has
/// ended, and stops for good when it has dialled ourselves: all relays of a region may have the same list.
class MeshDialer {
public:
    MeshDialer(Reactor& reactor, Shared& shared, std::vector<MeshPeer> peers);

private:
    struct Ended {
        explicit Ended(Reactor& reactor) : event(reactor) {}
        Event event;
        bool happened = false;
        std::string why;
        bool was_ourselves = false;
    };
    Task<void> keep(MeshPeer peer, std::uint32_t core);
    /// Until the link has ended.
    Task<std::shared_ptr<Ended>> link(const MeshPeer& peer, Endpoint address, std::uint32_t core);

    Reactor& reactor_;
    Shared& shared_;
};

} // namespace tailrace::relay
