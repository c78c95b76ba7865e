// policy/ssh_rules.cpp - compiles the ssh section.
#include "policy/ssh_rules.hpp"

#include "base/json/json.hpp"
#include "policy/compiled_data.hpp"
#include "policy/posture.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::string_view kLocalpart = "localpart:*@";

/// The address part of a login: alice of alice@example.com.
std::string local_part(const std::string& login) {
    return login.substr(0, login.rfind('@'));
}

std::string domain_of(const std::string& login) {
    const auto at = login.rfind('@');
    return at == std::string::npos ? std::string{} : login.substr(at + 1);
}

/// One element of `ssh` as it reaches nodes.
class SshCompiler {
public:
    SshCompiler(const Document& document, const Directory& directory, NodeIndex node, const AttributesOf& attributes,
                std::vector<SshRule>& out)
        : document_(document), directory_(directory), node_(node), attributes_(attributes), out_(out) {}

    void add(const SshPolicyRule& rule) {
        if (rule.sources.empty() || rule.destinations.empty()) return;
        const auto is_destination = [&](const Selector& selector) {
            return !selector.is(Autogroup::Self) && directory_.nodes_matching(selector).contains(node_);
        };
        const bool direct = std::any_of(rule.destinations.begin(), rule.destinations.end(), is_destination);
        const bool self = directory_.untagged().contains(node_) &&
                          std::any_of(rule.destinations.begin(), rule.destinations.end(),
                                      [](const Selector& selector) { return selector.is(Autogroup::Self); });
        if (!direct && !self && !has_localpart(rule)) return;
        sources_ = BitSet{directory_.size()};
        for (const auto& source : rule.sources) sources_ |= directory_.nodes_matching(source);
        drop_failing_postures(rule);
        BitSet principals = sources_;
        if (!direct) {
            BitSet own{directory_.size()};
            if (self) {
                own = directory_.nodes_of_user(directory_.node(node_).user);
            } else if (has_localpart(rule)) {
                own.insert(node_); // the service tells a source its own rules, although nobody connects there by them
            }
            principals &= own;
        }
        if (principals.empty()) return;
        if (has_localpart(rule)) {
            add_per_user(rule, principals);
        } else {
            add_rule(rule, principals, base_users(rule));
        }
    }

private:
    void drop_failing_postures(const SshPolicyRule& rule) {
        if (rule.postures.empty() && document_.default_source_postures.empty()) return;
        BitSet passing{directory_.size()};
        sources_.for_each([&](std::size_t node) {
            if (fulfils(document_, rule.postures, attributes_(static_cast<NodeIndex>(node)))) passing.insert(node);
        });
        sources_ = std::move(passing);
    }

    /// "localpart:*@" without a domain is an ordinary name.
    static bool is_localpart(const std::string& user) {
        return user.starts_with(kLocalpart) && user.size() > kLocalpart.size();
    }
    static bool has_localpart(const SshPolicyRule& rule) {
        return std::any_of(rule.users.begin(), rule.users.end(), is_localpart);
    }

    static std::map<std::string, std::string> base_users(const SshPolicyRule& rule) {
        std::map<std::string, std::string> users{{"root", ""}};
        for (const auto& user : rule.users) {
            if (user == "autogroup:nonroot") {
                users["*"] = "=";
            } else if (!is_localpart(user)) {
                users[user] = user;
            }
        }
        return users;
    }

    void add_rule(const SshPolicyRule& rule, const BitSet& principals, std::map<std::string, std::string> users) {
        SshRule made;
        principals.for_each([&](std::size_t node) {
            for (const auto address : directory_.addresses_of(static_cast<NodeIndex>(node)))
                made.principals.push_back(directory_.addresses()[address].ip);
        });
        std::sort(made.principals.begin(), made.principals.end());
        made.ssh_users = std::move(users);
        made.check = rule.check;
        made.check_period = rule.check_period;
        made.accept_env = rule.accept_env;
        made.enforce_recorder = rule.enforce_recorder;
        for (const auto& tag : rule.recorders) {
            Selector selector;
            selector.kind = Selector::Kind::Tag;
            selector.name = tag;
            directory_.nodes_matching(selector).for_each([&](std::size_t node) {
                for (const auto& address : directory_.node(static_cast<NodeIndex>(node)).addresses)
                    made.recorders.push_back(Endpoint{address, 80}.text());
            });
        }
        out_.push_back(std::move(made));
    }

    void add_per_user(const SshPolicyRule& rule, const BitSet& principals) {
        const auto base = base_users(rule);
        for (const auto& user : directory_.tailnet().users) {
            BitSet own = directory_.nodes_of_user(user.id);
            own &= principals;
            if (own.empty()) continue;
            add_rule(rule, own, base);
            const auto name = local_part(user.login);
            const bool mapped = std::any_of(rule.users.begin(), rule.users.end(), [&](const std::string& entry) {
                return is_localpart(entry) && entry.substr(kLocalpart.size()) == domain_of(user.login);
            });
            if (mapped) add_rule(rule, own, {{name, name}});
        }
        BitSet tagged{directory_.size()};
        principals.for_each([&](std::size_t node) {
            if (!directory_.untagged().contains(node)) tagged.insert(node);
        });
        if (!tagged.empty()) add_rule(rule, tagged, base);
    }

    const Document& document_;
    const Directory& directory_;
    NodeIndex node_;
    const AttributesOf& attributes_;
    BitSet sources_;
    std::vector<SshRule>& out_;
};

void append_list(std::string& out, const char* name, const std::vector<std::string>& values) {
    out += fmt::format(",\"{}\":", name);
    json::append(out, values);
}

} // namespace

std::vector<SshRule> ssh_rules(const Document& document, const Directory& directory, NodeIndex node,
                               const AttributesOf& attributes_of) {
    std::vector<SshRule> rules;
    SshCompiler compiler{document, directory, node, attributes_of, rules};
    for (const bool check : {true, false}) { // checks come first
        for (const auto& rule : document.ssh) {
            if (rule.check == check) compiler.add(rule);
        }
    }
    return rules;
}

std::vector<SshRule> CompiledPolicy::ssh_rules_for(PolicyNodeId id) const {
    const auto& directory = data_->directory;
    const auto node = directory.index_of(id);
    if (!node) return {};
    return ssh_rules(*data_->document, directory, *node,
                     [&](NodeIndex each) -> const PostureAttributes& { return directory.node(each).attributes; });
}

std::string ssh_rules_json(const std::vector<SshRule>& rules) {
    std::string out = "[";
    for (const auto& rule : rules) {
        if (out.size() > 1) out += ',';
        out += "{\"principals\":[";
        for (std::size_t i = 0; i < rule.principals.size(); ++i)
            out += fmt::format("{}{{\"nodeIP\":\"{}\"}}", i == 0 ? "" : ",", rule.principals[i].text());
        out += "],\"sshUsers\":";
        json::append(out, rule.ssh_users);
        out += ",\"action\":{";
        if (rule.check) {
            // The host part is not used: the client asks over its connection to the control server.
            out +=
                R"("holdAndDelegate":"https://unused/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?local_user=$LOCAL_USER")";
        } else {
            out +=
                R"("accept":true,"allowAgentForwarding":true,"allowLocalPortForwarding":true,"allowRemotePortForwarding":true)";
        }
        if (!rule.recorders.empty()) append_list(out, "recorders", rule.recorders);
        if (!rule.recorders.empty() && rule.enforce_recorder)
            out +=
                R"(,"onRecordingFailure":{"RejectSessionWithMessage":"session recording is required and could not start","TerminateSessionWithMessage":"session recording is required and failed"})";
        out += '}';
        if (!rule.accept_env.empty()) append_list(out, "acceptEnv", rule.accept_env);
        out += '}';
    }
    return out + "]";
}

const SshRule* match_ssh_rule(const std::vector<SshRule>& rules, const IpAddress& source, const std::string& login) {
    for (const auto& rule : rules) {
        if (std::find(rule.principals.begin(), rule.principals.end(), source) == rule.principals.end()) continue;
        auto user = rule.ssh_users.find(login);
        if (user == rule.ssh_users.end()) user = rule.ssh_users.find("*");
        if (user == rule.ssh_users.end() || user->second.empty()) continue;
        if (user->second == "=" && login == "root") continue;
        return &rule;
    }
    return nullptr;
}

} // namespace tailrace
