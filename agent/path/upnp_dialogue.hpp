// agent/path/upnp_dialogue.hpp - the questions to a UPnP gateway that end in a forwarded port. Pure.
#pragma once
#include "base/net.hpp"
#include "base/result.hpp"
#include "proto/portmap/igd.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

/// Description -> best service -> AddPortMapping -> GetExternalIPAddress (derp-disco-paths.md 5.5). One question at a
/// time: carry question() out, tell on_answer(), until there is none. Every question goes to the gateway's own address;
/// a URL that names another host is refused, and redirects are not followed, so that nobody on the LAN can send us to
/// places that only we can reach.
class UpnpDialogue {
public:
    static constexpr int kPortTries = 3; ///< where the gateway says that somebody else has the port

    struct Wish {
        IpAddress gateway, self;
        std::uint16_t internal_port = 0;
        std::uint16_t external_port = 0;
        std::chrono::seconds lease{};
    };
    /// HTTP to the gateway. Without a soap_action it is a GET.
    struct Request {
        std::uint16_t port = 0;
        std::string target, soap_action, body;
        bool operator==(const Request&) const = default;
    };
    struct Answer {
        int status = 0;
        std::string body;
    };
    struct Mapping {
        Endpoint external;
        std::uint16_t control_port = 0;
        std::string control_target;
        std::string_view service; ///< igd::kIp1 or another of them
    };
    /// `locations` are tried in turn. `any_port` names another outside port when one is taken.
    UpnpDialogue(Wish wish, std::vector<std::string> locations, std::function<std::uint16_t()> any_port);

    const std::optional<Request>& question() const { return question_; }
    void on_answer(const Result<Answer>& answer);
    /// Set when the dialogue ended well.
    const std::optional<Mapping>& mapping() const { return mapping_; }
    /// What the gateway may forward already, though the dialogue has not ended: to be deleted when nobody wants it.
    std::optional<Mapping> begun() const;
    /// Why there is none.
    const std::string& trouble() const { return trouble_; }

    static Request deletion(const Mapping& mapping);

private:
    enum class Step { Describe, Status, Address, Add, External };
    struct Control {
        std::string_view service;
        std::uint16_t port = 0;
        std::string target;
        int rank = 0; ///< 0 not up, 1 up, 2 with a private address, 3 with a public one
    };
    void next_location();
    void give_up(std::string why);
    void ask(Step step, igd::Call call);
    void ask_status(std::size_t index);
    void ask_add();
    void choose();
    void on_description(const Answer& answer);
    void on_soap(const igd::Answer& answer);
    void on_refusal(int code);

    Wish wish_;
    std::vector<std::string> locations_; ///< the next at the back
    std::function<std::uint16_t()> any_port_;
    std::optional<Request> question_;
    Step step_ = Step::Describe;
    std::string location_;
    std::vector<Control> controls_;
    std::size_t at_ = 0; ///< of controls_
    std::uint16_t port_ = 0;
    std::chrono::seconds lease_{};
    int tries_ = 0;
    std::optional<Mapping> mapping_;
    std::string trouble_ = "no gateway answered";
};

} // namespace tailrace
