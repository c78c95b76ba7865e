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
    /// Between tries; n^2 * 10 ms before.
    static constexpr auto kLongestPause = std::chrono::seconds{5};
    /// A relay that starts over is believed about how long it will be away, up to this.
    static constexpr auto kLongestRestart = std::chrono::seconds{10};

    struct Callbacks {
        /// False for a sender that is nobody's: a relay may name any number of keys.
        std::function<bool(int region, const NodeKey& from, BytesView packet)> packet;
        /// A connection came or went, or could not be made.
        std::function<void(int region, bool connected)> changed;
    };
    struct Pace {
        Duration inactive =
            std::chrono::seconds{60}; ///< after the last packet to it, a region that is not home is left
        Duration look_for_idle = std::chrono::seconds{15};
        Duration silence = DerpLink::kSilence;
    };
    DerpClient(Reactor& reactor, std::uint32_t mark, Callbacks callbacks, const Pace& pace);
    DerpClient(Reactor& reactor, std::uint32_t mark, Callbacks callbacks)
        : DerpClient(reactor, mark, std::move(callbacks), Pace{}) {}
    ~DerpClient();

    /// Connections under another key end.
    void set_identity(const NodePrivateKey& identity);
    /// Connections to regions that are now defined otherwise end.
    void set_map(const wire::DerpMap& map);
    /// 0: none.
    void set_home(int region);
    int home() const { return home_; }
    /// Whether the last look at the network saw IPv6 working: connections made from now on try it first.
    void set_v6_works(bool works) { v6_works_ = works; }
    bool is_connected(int region) const;
    /// Not connected, and the last try to connect failed.
    bool is_failing(int region) const;
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
        explicit Region(Reactor& reactor) : news(reactor) {}
        wire::DerpRegion definition;
        std::uint64_t version = 0;                     ///< grows when what we connect to, or as whom, changes
        Event news;                                    ///< for the keeper: a new version, or what it waits for
        bool hurry = false;                            ///< the next try shall not wait
        std::shared_ptr<DerpLink> link;                ///< null while there is no connection
        std::string node;                              ///< at the other end of it
        bool wanted = false;                           ///< a coroutine keeps it
        std::deque<std::pair<NodeKey, Bytes>> waiting; ///< for the connection
        std::string trouble, health;
        /// A node that said that it starts over, and until when it is left alone.
        struct Leaving {
            std::string node;
            TimePoint until;
        };
        std::optional<Leaving> leaving;
        std::optional<DerpLogin> ready; ///< a connection to another node, made before the old one ends
    };
    struct Attempt;
    static Task<void> keep(std::shared_ptr<bool> alive, DerpClient* self, int number);
    static Task<void> carry(std::shared_ptr<bool> alive, DerpClient* self, int number, DerpLogin login);
    static Task<void> dial(std::shared_ptr<bool> alive, DerpClient* self, int number, std::string avoid,
                           std::shared_ptr<Attempt> attempt);
    static Task<void> pause(std::shared_ptr<bool> alive, DerpClient* self, int number, Duration duration);
    static Task<void> move_over(std::shared_ptr<bool> alive, DerpClient* self, int number, std::string left);
    static Task<void> leave_when_idle(std::shared_ptr<bool> alive, DerpClient* self, int number,
                                      std::weak_ptr<DerpLink> link);
    void on_restarting(int number, const std::string& node, const derp::Restarting& restarting);
    void begin_anew(Region& region);
    Region& region(int number) { return regions_.try_emplace(number, reactor_).first->second; }
    void open(int number);
    void drop_connection(Region& region);
    bool may_leave(int number, TimePoint now) const;

    Reactor& reactor_;
    std::uint32_t mark_;
    Callbacks callbacks_;
    Pace pace_;
    NodePrivateKey identity_;
    int home_ = 0;
    bool v6_works_ = false;
    std::map<int, Region> regions_;
    std::unordered_map<NodeKey, int> heard_on_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
