// `tailrace doctor`: is this machine fit for its part?
#include "agent/cli/commands.hpp"
#include "agent/config/config.hpp"
#include "agent/doctor/examine.hpp"
#include "agent/doctor/gather.hpp"
#include "agent/local/pretty_json.hpp"
#include "agent/router/via6.hpp"

namespace tailrace::cli {

Task<std::vector<Finding>> doctor_findings(LocalClient& client) {
    DaemonOptions daemon;
    if (auto config = load_agent_config(kAgentConfigFile)) daemon = config->daemon;
    DoctorFacts facts = gather_facts(daemon.device, daemon.port, kAgentConfigFile);
    auto status = co_await client.status();
    facts.agent_answers = status ? Answer::Yes : Answer::No;
    if (status) {
        facts.agent_state = status->backend_state;
        if (status->health) facts.health = *status->health;
        if (auto prefs = co_await client.prefs()) {
            facts.advertises.emplace();
            for (const IpPrefix& route : prefs->routes())
                (route.address().is_v4() || from_via(route) ? facts.advertises->v4 : facts.advertises->v6) = true;
        }
    }
    co_return examine(facts);
}

Task<int> doctor(LocalClient& client, bool json_wanted) {
    auto findings = co_await doctor_findings(client);
    if (json_wanted)
        fmt::print("{}\n", pretty_json(findings_json(findings), "  "));
    else
        fmt::print("{}", findings_text(findings));
    co_return exit_status(findings);
}

} // namespace tailrace::cli
