#include "agent/doctor/health_advice.hpp"

#include <algorithm>

namespace tailrace {
namespace {

struct Known {
    std::string_view words; ///< of the sentence
    std::string_view why, cure;
};

constexpr std::string_view kDataPlane = "what the policy allows may not pass, or a peer is not reached";
constexpr std::string_view kJournal =
    "\"journalctl -u tailraced\" says more; sudo systemctl restart tailraced makes it "
    "anew, while traffic goes on";

// The first whose words are in a sentence counts.
constexpr Known kKnown[] = {
    {"The configuration is not in force", "the agent goes on with the settings of before",
     "correct the file (\"tailrace config check\" looks at it), then sudo systemctl reload tailraced"},
    {"You are logged out", "no server tells this node of its peers", "log in: sudo tailrace up"},
    {"The coordination server", "traffic stays as it was, and nothing new is learned",
     "look whether the server runs, and whether this host reaches it: tailrace netcheck"},
    {"Not connected to the home relay", "peers without a direct path can't be reached",
     "look whether the relay runs, and whether this host may reach its TCP port: tailrace netcheck"},
    {"The relay of ", "peers without a direct path are reached through it",
     "its operator knows more; other relays are listed by: tailrace netcheck"},
    {"is in use by another program", "peers do not find this node where they look for it",
     "stop that program, or choose another with --port in /etc/default/tailraced"},
    {"The data plane is not as it should be", kDataPlane, kJournal},
    {"The state cannot be saved", "what changes now is lost at the next start",
     "make room on the disk, and let root write into /var/lib/tailrace"},
    {"--accept-routes is false", "packets for these networks do not take the tunnel",
     "sudo tailrace set --accept-routes; nothing when they are not wanted"},
    {"tailrace set --exit-node=", "nothing leaves to the internet until then",
     "sudo tailrace set --exit-node= stops using it; \"tailrace exit-node list\" shows others"},
    {"nodeAttrs of app connectors", "what was said before stays in force", "correct it there"},
    {"The app connector has learned as many", "no route is made of more",
     "narrower domains in the policy's nodeAttrs make room"},
    {"orwarding is disabled", "this node advertises routes, and the kernel drops what it should forward",
     "sudo sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1, and the same in /etc/sysctl.d/"},
    {"won't be forwarded", "this node advertises routes, and the kernel drops what it should forward",
     "sudo sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1, and the same in /etc/sysctl.d/"},
    {"--snat-subnet-routes=false", "replies from the internet will not come back",
     "sudo tailrace set --snat-subnet-routes"},
    {"--stateful-filtering=false", "containers can not be reached from the tailnet by routes",
     "sudo tailrace set --stateful-filtering=false"},
    {"The steering program is not in use", "everything works, but each UDP datagram to this host costs more",
     "a kernel that takes our packet programs, as Debian's"},
    {"no guard against floods", "they reach WireGuard", kJournal},
    {"The guard is not on", "floods of handshakes that come in there reach WireGuard",
     "a driver that takes XDP programs, or no other XDP program on that interface"},
    {"4via6", "hosts behind that router are not reached by their 4via6 addresses", kJournal},
    {"Names of the tailnet are not answered", "peers are reached by address only", kJournal},
    {"/etc/resolv.conf", "names of the tailnet are not asked of us",
     "let one program alone write /etc/resolv.conf, or do without: sudo tailrace set --accept-dns=false"},
    {"DNS unavailable", "names outside the tailnet are not found",
     "\"tailrace dns status\" names the resolvers; look whether they run"},
};

/// Without what is said again in `reason`: "The exit node x is offline: nothing leaves ..." ends before the colon.
std::string without_reason(std::string_view message, std::string_view reason) {
    const auto at = message.find(reason);
    if (at == std::string_view::npos || at == 0) return std::string{message};
    const auto end = message.find_last_not_of(" ;:,", at - 1);
    const auto after = at + reason.size();
    // Only when nothing but a command follows, which is in the cure.
    if (end == std::string_view::npos || (message.find("tailrace set", after) == std::string_view::npos &&
                                          message.find_first_not_of(".", after) != std::string_view::npos))
        return std::string{message};
    return std::string{message.substr(0, end + 1)};
}

} // namespace

HealthAdvice advice_on(std::string_view message) {
    std::string line{message}; // a finding is a line, without the full stop
    std::ranges::replace(line, '\n', ' ');
    while (line.ends_with('.') || line.ends_with(' ')) line.pop_back();
    for (const Known& known : kKnown)
        if (line.find(known.words) != std::string::npos)
            return {without_reason(line, known.why), std::string{known.why}, std::string{known.cure}};
    return {line, "the agent, or the coordination server, counts it as trouble of this node",
            "what the sentence says; \"tailrace status\" and \"journalctl -u tailraced\" say more"};
}

} // namespace tailrace
