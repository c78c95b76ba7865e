// agent/path/port_mapper.hpp - carries the questions of PortMapping to the gateway, and its answers back.
#pragma once
#include "agent/path/port_mapping.hpp"
#include "base/io/socket.hpp"

#include <functional>
#include <memory>
#include <optional>

namespace tailrace {

class PortMapper {
public:
    struct Options {
        std::uint16_t port = 0; ///< of WireGuard
        std::uint32_t mark = 0; ///< so that what we say to the gateway never enters the tunnel
        pcp::Nonce nonce{};     ///< see PortMapping
    };
    /// `changed`: external() or services() has another value.
    PortMapper(Reactor& reactor, Options options, std::function<void()> changed);
    /// Leaves the mapping as it is: the tunnel outlives the agent, and this is where peers reach it.
    ~PortMapper();

    void set_settings(const PortMapping::Settings& settings);
    /// Routes or addresses have changed: is there another gateway? Looked at a little later, for changes come in
    /// crowds.
    void on_network_change();
    /// Somebody needs paths.
    void run();
    /// Asks for everything again, and waits until the answers can be trusted.
    Task<void> probe();

    std::optional<Endpoint> external() const { return external_; }
    const PortMapping::Services& services() const { return services_; }

private:
    using Socket = std::shared_ptr<UdpSocket>;
    static Task<void> receive(std::shared_ptr<bool> alive, PortMapper* self, Socket socket);
    static Task<void> ask(std::shared_ptr<bool> alive, PortMapper* self, PortMapping::AskHttp question);
    static Task<void> until_idle(std::shared_ptr<bool> alive, PortMapper* self);
    void look_for_gateway();
    void open_sockets(const PortMapping::Network& network, int device_index);
    void close_sockets();
    void carry_out();

    Reactor& reactor_;
    Options options_;
    std::function<void()> changed_;
    PortMapping mapping_;
    Timer timer_, settle_;
    bool look_pending_ = false;
    PortMapping::Settings settings_;
    std::optional<PortMapping::Network> network_;
    int device_index_ = 0;
    Socket socket_;        ///< on our address towards the gateway
    Socket announcements_; ///< what the gateway says to everybody when it has started over
    std::optional<Endpoint> external_;
    PortMapping::Services services_;
    std::string trouble_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
