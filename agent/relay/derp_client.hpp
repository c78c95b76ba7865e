// agent/relay/derp_client.hpp - our connections to the relays of the DERP map, one a region: home always, others while
// packets go there (derp-disco-paths.md 1.9 and 4.11).
#pragma once
#include "agent/relay/derp_link.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

namespace tailrace {

class DerpClient {
public:
    /// A region that is not home is left this long after the last packet to it.
    static constexpr auto kInactive = std::chrono::seconds{60};

    struct Callbacks {
        std::function<void(int region, const NodeKey& from, BytesView packet)> packet;
        /// A connection came or went, or could not be made.
        std::function<void(int region, bool connected)> changed;
    };
    DerpClient(Reactor& reactor, std::uint32_t mark, Callbacks callbacks);
    ~DerpClient();

    /// Connections under another key end.
    void set_identity(const NodePrivateKey& identity);
    /// Connections to regions that are now defined otherwise end.
    void set_map(const wire::DerpMap& map);
    /// 0: none.
    void set_home(int region);
    int home() const { return home_; }
    bool is_connected(int region) const;
    /// Connections from an address that is none of ours any more end, the others are asked whether they still work.
    void on_network_change(const std::vector<IpAddress>& own);
    std::optional<TimePoint> last_heard(int region) const;
    /// The code of a region, "fra"; empty for one that there is not.
    std::string code_of(int region) const;

    /// To a peer whose home is this region (0: not known). Over its home if we are connected there, else over the
    /// region that it was last heard on, else its home is opened. The packet may be lost, as packets may.
    void send(int peers_home, const NodeKey& to, BytesView packet);
    /// What is wrong with relays, a sentence each.
    std::vector<std::string> troubles() const;

private:
    struct Region {
        wire::DerpRegion definition;
        std::shared_ptr<DerpLink> link;                ///< null while there is no connection
        bool wanted = false;                           ///< a coroutine keeps it
        std::deque<std::pair<NodeKey, Bytes>> waiting; ///< for the connection
        std::string trouble, health;
    };
    static Task<void> keep(std::shared_ptr<bool> alive, DerpClient* self, int number);
    void open(int number);
    void drop_connection(Region& region);
    bool may_leave(int number, TimePoint now) const;

    Reactor& reactor_;
    std::uint32_t mark_;
    Callbacks callbacks_;
    NodePrivateKey identity_;
    int home_ = 0;
    std::map<int, Region> regions_;
    std::unordered_map<NodeKey, int> heard_on_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
