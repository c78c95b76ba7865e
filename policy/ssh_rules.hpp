// policy/ssh_rules.hpp - the ssh section as a node receives it.
#pragma once
#include "base/net.hpp"

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace tailrace {

/// One rule of a node's SSH policy. The first that matches decides, so all checks stand before all accepts.
struct SshRule {
    std::vector<IpAddress> principals;            ///< who may ask
    std::map<std::string, std::string> ssh_users; ///< asked login -> local login; "" refuses, "=" is the same name
    bool check = false;                           ///< ask the control server, else accept
    std::chrono::nanoseconds check_period{};      ///< not on the wire: the control server looks it up when asked
    std::vector<std::string> accept_env;
    std::vector<std::string> recorders; ///< "100.64.0.9:80"
    bool enforce_recorder = false;
};

/// The value of `rules` in the wire's SSHPolicy.
std::string ssh_rules_json(const std::vector<SshRule>& rules);

/// The rule that decides when somebody at `source` asks to be `login`; null when none lets him in. Names other than
/// root count as existing and unprivileged.
const SshRule* match_ssh_rule(const std::vector<SshRule>& rules, const IpAddress& source, const std::string& login);

} // namespace tailrace
