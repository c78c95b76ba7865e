// proto/control/ssh.hpp - the SSH policy of a node (control-protocol.md 6.9): who may log in as whom. Every name is
// lower-camel, unlike the rest of the protocol. Source: tailscale tailcfg/tailcfg.go.
#pragma once
#include "base/json/fields.hpp"
#include "base/time.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace::wire {

struct SshPrincipal {
    std::string node, node_ip, user_login;
    bool any = false;
    bool operator==(const SshPrincipal&) const = default;
};

struct SshRecorderFailureAction {
    std::string reject_session_with_message, terminate_session_with_message, notify_url;
    bool operator==(const SshRecorderFailureAction&) const = default;
};

struct SshAction {
    std::string message;
    bool reject = false, accept = false;
    std::int64_t session_duration_ns = 0;
    bool allow_agent_forwarding = false;
    std::string hold_and_delegate;
    bool allow_local_port_forwarding = false, allow_remote_port_forwarding = false;
    std::vector<std::string> recorders;
    std::optional<SshRecorderFailureAction> on_recording_failure;
    bool operator==(const SshAction&) const = default;
};

struct SshRule {
    std::optional<WallTime> rule_expires;
    std::vector<SshPrincipal> principals;
    std::map<std::string, std::string> ssh_users; ///< requested name or "*" -> local name, "=" or ""
    std::optional<SshAction> action;
    std::vector<std::string> accept_env;
    bool operator==(const SshRule&) const = default;
};

/// No rules: nobody may log in.
struct SshPolicy {
    std::vector<SshRule> rules;
    bool operator==(const SshPolicy&) const = default;
};

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::SshPrincipal> {
    using S = wire::SshPrincipal;
    static constexpr auto fields =
        field_table(field("node", &S::node, Omit::Empty), field("nodeIP", &S::node_ip, Omit::Empty),
                    field("userLogin", &S::user_login, Omit::Empty), field("any", &S::any, Omit::Empty));
};

template <>
struct JsonFields<wire::SshRecorderFailureAction> {
    using S = wire::SshRecorderFailureAction;
    static constexpr auto fields =
        field_table(field("RejectSessionWithMessage", &S::reject_session_with_message, Omit::Empty),
                    field("TerminateSessionWithMessage", &S::terminate_session_with_message, Omit::Empty),
                    field("NotifyURL", &S::notify_url, Omit::Empty));
};

template <>
struct JsonFields<wire::SshAction> {
    using S = wire::SshAction;
    static constexpr auto fields = field_table(
        field("message", &S::message, Omit::Empty), field("reject", &S::reject, Omit::Empty),
        field("accept", &S::accept, Omit::Empty), field("sessionDuration", &S::session_duration_ns, Omit::Empty),
        field("allowAgentForwarding", &S::allow_agent_forwarding, Omit::Empty),
        field("holdAndDelegate", &S::hold_and_delegate, Omit::Empty),
        field("allowLocalPortForwarding", &S::allow_local_port_forwarding, Omit::Empty),
        field("allowRemotePortForwarding", &S::allow_remote_port_forwarding, Omit::Empty),
        field("recorders", &S::recorders, Omit::Empty),
        field("onRecordingFailure", &S::on_recording_failure, Omit::Empty));
};

template <>
struct JsonFields<wire::SshRule> {
    using S = wire::SshRule;
    static constexpr auto fields = field_table(
        field("ruleExpires", &S::rule_expires, Omit::Empty), field("principals", &S::principals),
        field("sshUsers", &S::ssh_users), field("action", &S::action), field("acceptEnv", &S::accept_env, Omit::Empty));
};

template <>
struct JsonFields<wire::SshPolicy> {
    static constexpr auto fields = field_table(field("rules", &wire::SshPolicy::rules));
};

} // namespace tailrace
