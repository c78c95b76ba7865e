// tests/policy_vectors.cpp - compares our compiler with recorded answers of the real service: policy_vectors DIR.
//
// Each *.json below DIR holds a policy, a tailnet, and what every node of it received: see
// tests/vectors/policy/README.md. Names each failing file with its first difference and ends with "N passed, N failed".
#include "base/file.hpp"
#include "base/json/json.hpp"
#include "policy/check.hpp"
#include "policy/compile.hpp"
#include "policy/ssh_rules.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>

using namespace tailrace;
namespace bj = boost::json;

namespace {

std::string as_string(const bj::value& value) {
    return value.is_string() ? std::string{value.get_string()} : std::string{};
}

const bj::value* member(const bj::value& object, std::string_view name) {
    const auto* found = object.is_object() ? object.get_object().if_contains(name) : nullptr;
    return found != nullptr && !found->is_null() ? found : nullptr;
}

std::string text_of(const bj::value& object, std::string_view name) {
    const auto* found = member(object, name);
    return found == nullptr ? std::string{} : as_string(*found);
}

std::vector<std::string> texts_of(const bj::value& object, std::string_view name) {
    std::vector<std::string> out;
    if (const auto* found = member(object, name)) {
        for (const auto& item : found->get_array()) out.push_back(as_string(item));
    }
    return out;
}

/// One spelling for equal JSON: members in order.
std::string canonical(const bj::value& value) {
    if (value.is_object()) {
        std::map<std::string, std::string> members;
        for (const auto& item : value.get_object()) members[std::string{item.key()}] = canonical(item.value());
        std::string out = "{";
        for (const auto& [name, text] : members)
            out += (out.size() > 1 ? "," : "") + bj::serialize(bj::string{name}) + ":" + text;
        return out + "}";
    }
    if (value.is_array()) {
        std::string out = "[";
        for (const auto& item : value.get_array()) out += (out.size() > 1 ? "," : "") + canonical(item);
        return out + "]";
    }
    return bj::serialize(value);
}

std::string canonical(const std::vector<std::string>& values) {
    std::string out = "[";
    for (const auto& value : values) out += (out.size() > 1 ? "," : "") + canonical(bj::parse(value));
    return out + "]";
}

std::vector<std::string> sorted(std::vector<std::string> list) {
    std::sort(list.begin(), list.end());
    return list;
}

bj::array to_array(const std::vector<std::string>& list) {
    return bj::array(list.begin(), list.end());
}

/// A filter rule in its wire form.
bj::value wire(const FilterRule& rule) {
    bj::object out;
    out["SrcIPs"] = to_array(rule.src_ips);
    bj::array ports;
    for (const auto& destination : rule.dst_ports)
        ports.push_back(
            bj::object{{"IP", destination.ip},
                       {"Ports", bj::object{{"First", destination.ports.first}, {"Last", destination.ports.last}}}});
    if (!ports.empty()) out["DstPorts"] = ports;
    if (!rule.ip_proto.empty()) out["IPProto"] = bj::array(rule.ip_proto.begin(), rule.ip_proto.end());
    bj::array grants;
    for (const auto& grant : rule.cap_grant) {
        bj::object capabilities;
        for (const auto& [name, values] : grant.cap_map) {
            bj::array parsed;
            if (values) {
                for (const auto& value : *values) parsed.push_back(bj::parse(value));
            }
            capabilities[name] = values ? bj::value(parsed) : bj::value(nullptr);
        }
        grants.push_back(bj::object{{"Dsts", to_array(grant.dsts)}, {"CapMap", capabilities}});
    }
    if (!grants.empty()) out["CapGrant"] = grants;
    return out;
}

/// Capabilities that the service puts on nodes by itself, whatever the policy says.
bool is_of_the_service(const std::string& name) {
    static const std::set<std::string> kNames = {"https://tailscale.com/cap/file-sharing",
                                                 "https://tailscale.com/cap/is-admin",
                                                 "https://tailscale.com/cap/is-owner",
                                                 "https://tailscale.com/cap/ssh",
                                                 "https://tailscale.com/cap/tailnet-lock",
                                                 "https://tailscale.com/cap/warn-funnel-no-https",
                                                 "probe-udp-lifetime",
                                                 "ssh-behavior-v1",
                                                 "ssh-env-vars",
                                                 "store-appc-routes",
                                                 "tailnet-display-name",
                                                 "default-auto-update"};
    return kNames.count(name) != 0;
}

/// A recorded answer and our tailnet for it.
class Case {
public:
    explicit Case(const bj::value& file) : file_(file) { build_tailnet(); }

    /// Empty when we answer the same, else the first difference.
    std::string difference() {
        const auto& policy = file_.at("policy");
        const auto text = policy.is_string() ? as_string(policy) : bj::serialize(policy);
        PolicyProblem problem;
        auto document = check(text, tailnet_, &problem);
        if (file_.at("refused").as_bool()) {
            if (document) return "accepted, the service refused it: " + bj::serialize(file_.at("http_body"));
            const auto wanted = text_of(file_.at("http_body"), "message");
            const bool has_reason = file_.at("http_status").as_int64() < 500; // else the service broke down over it
            return !has_reason || problem.message == wanted
                       ? ""
                       : fmt::format("refused with \"{}\", want \"{}\"", problem.message, wanted);
        }
        if (!document) return "refused: " + problem.text();
        compiled_ = CompiledPolicy::compile(std::make_shared<const Document>(std::move(*document)), tailnet_);
        const auto* expected = member(file_, "expect");
        if (expected == nullptr) return "";
        for (const auto& node : expected->get_object()) {
            const std::string name{node.key()};
            const auto differences = {filter_difference(name, node.value()), ssh_difference(name, node.value()),
                                      self_difference(name, node.value()), peers_difference(name, node.value()),
                                      whois_difference(name, node.value())};
            for (const auto& text_of_difference : differences) {
                if (!text_of_difference.empty()) return name + ": " + text_of_difference;
            }
        }
        return "";
    }

private:
    void build_tailnet() {
        const auto& topology = file_.at("topology");
        for (const auto& user : topology.at("users").get_array()) {
            TailnetUser entry;
            entry.id = user.at("id").as_int64();
            entry.login = text_of(user, "email");
            ids_of_users_[text_of(user, "name")] = entry.id;
            tailnet_.users.push_back(std::move(entry));
        }
        for (const auto& item : topology.at("nodes").get_object()) {
            const std::string name{item.key()};
            const auto& from = item.value();
            TailnetNode node;
            node.id = static_cast<PolicyNodeId>(tailnet_.nodes.size() + 1);
            names_[node.id] = name;
            ids_[name] = node.id;
            node.tags = texts_of(from, "tags");
            if (node.tags.empty()) node.user = ids_of_users_[text_of(from, "user")];
            for (const auto* family : {"ipv4", "ipv6"}) {
                if (auto address = IpAddress::parse(text_of(from, family)); address && address->valid())
                    node.addresses.push_back(*address);
            }
            add_routes(name, from, node);
            tailnet_.nodes.push_back(std::move(node));
        }
    }

    /// The topology does not always say what was approved; the node itself was told.
    void add_routes(const std::string& name, const bj::value& from, TailnetNode& node) {
        const auto* expected = member(file_, "expect");
        const auto* seen = expected != nullptr ? member(*expected, name) : nullptr;
        const auto* self = seen != nullptr ? member(*seen, "self") : nullptr;
        for (const auto& text : self != nullptr ? texts_of(*self, "allowed_ips") : texts_of(from, "approved_routes")) {
            const auto prefix = IpPrefix::parse(text);
            const bool own = prefix->is_single() && std::find(node.addresses.begin(), node.addresses.end(),
                                                              prefix->address()) != node.addresses.end();
            if (!own) node.routes.push_back(*prefix);
        }
        if (self == nullptr) return;
        for (const auto& text : texts_of(*self, "primary_routes")) node.primaries.push_back(*IpPrefix::parse(text));
        // Neither are the roles of users recorded, but their nodes have capabilities after them.
        const auto& capabilities = self->at("cap_map").get_object();
        for (auto& user : tailnet_.users) {
            if (!node.tags.empty() || user.id != node.user) continue;
            if (capabilities.contains("https://tailscale.com/cap/is-admin"))
                user.role = std::max(user.role, UserRole::Admin);
            if (capabilities.contains("https://tailscale.com/cap/is-owner")) user.role = UserRole::Owner;
        }
    }

    std::string filter_difference(const std::string& name, const bj::value& expected) {
        bj::array wanted;
        if (const auto* rules = member(expected, "filter_rules")) wanted = rules->get_array();
        const auto rules = compiled_->rules_for(ids_[name]);
        for (std::size_t i = 0; i < std::max(wanted.size(), rules->size()); ++i) {
            const auto ours = i < rules->size() ? canonical(wire((*rules)[i])) : "no rule";
            const auto theirs = i < wanted.size() ? canonical(wanted[i]) : "no rule";
            if (ours != theirs) return fmt::format("filter rule {}:\n    ours {}\n    want {}", i, ours, theirs);
        }
        return "";
    }

    /// Who is in the list counts, not the order or how often: the addresses were replaced after the service had sorted
    /// them.
    static bj::value with_sorted_principals(bj::value rules) {
        for (auto& rule : rules.get_array()) {
            std::set<std::string> addresses;
            for (const auto& principal : rule.at("principals").get_array())
                addresses.insert(text_of(principal, "nodeIP"));
            rule.as_object()["principals"] = bj::array(addresses.begin(), addresses.end());
        }
        return rules;
    }

    std::string ssh_difference(const std::string& name, const bj::value& expected) {
        const auto* found = expected.get_object().if_contains("ssh_rules");
        if (found == nullptr) return "";
        const auto wanted = with_sorted_principals(found->is_null() ? bj::value(bj::array{}) : *found);
        const auto ours = with_sorted_principals(bj::parse(ssh_rules_json(compiled_->ssh_rules_for(ids_[name]))));
        if (canonical(ours) == canonical(wanted)) return "";
        return fmt::format("ssh rules:\n    ours {}\n    want {}", canonical(ours), canonical(wanted));
    }

    std::string list_difference(const char* what, std::vector<std::string> ours, std::vector<std::string> wanted) {
        ours = sorted(std::move(ours));
        wanted = sorted(std::move(wanted));
        return ours == wanted ? "" : fmt::format("{}: ours {}, want {}", what, join(ours, " "), join(wanted, " "));
    }

    std::vector<std::string> allowed_ips(PolicyNodeId viewer, PolicyNodeId peer) {
        std::vector<std::string> out;
        for (const auto& address : compiled_->addresses(viewer, peer)) out.push_back(IpPrefix::single(address).text());
        for (const auto& route : compiled_->allowed_routes(viewer, peer)) out.push_back(route.text());
        return out;
    }

    static std::vector<std::string> texts(const std::vector<IpPrefix>& prefixes) {
        std::vector<std::string> out;
        for (const auto& prefix : prefixes) out.push_back(prefix.text());
        return out;
    }

    std::string self_difference(const std::string& name, const bj::value& expected) {
        const auto* self = member(expected, "self");
        if (self == nullptr) return "";
        const auto id = ids_[name];
        if (auto found = list_difference("own allowed IPs", allowed_ips(id, id), texts_of(*self, "allowed_ips"));
            !found.empty())
            return found;
        if (auto found = list_difference("own primary routes", texts(compiled_->primary_routes(id, id)),
                                         texts_of(*self, "primary_routes"));
            !found.empty())
            return found;
        std::vector<std::string> ours;
        for (const auto& [capability, values] : compiled_->self_capabilities(id)) {
            if (!is_of_the_service(capability)) ours.push_back(capability + (values.empty() ? "" : canonical(values)));
        }
        std::vector<std::string> wanted;
        for (const auto& capability : self->at("cap_map").get_object()) {
            const bool empty = capability.value().is_null() || capability.value().get_array().empty();
            if (!is_of_the_service(capability.key()))
                wanted.push_back(std::string{capability.key()} + (empty ? "" : canonical(capability.value())));
        }
        return list_difference("own capabilities", ours, wanted);
    }

    std::string peers_difference(const std::string& name, const bj::value& expected) {
        const auto* peers = member(expected, "peers");
        const auto id = ids_[name];
        std::vector<std::string> ours;
        std::vector<std::string> wanted;
        for (const auto peer : compiled_->peers_of(id)) ours.push_back(names_[peer]);
        if (peers != nullptr) {
            for (const auto& peer : peers->get_object()) wanted.emplace_back(peer.key());
        }
        if (auto found = list_difference("peers", ours, wanted); !found.empty()) return found;
        if (peers == nullptr) return "";
        for (const auto& item : peers->get_object()) {
            const std::string peer_name{item.key()};
            const auto peer = ids_[peer_name];
            const auto& seen = item.value();
            std::vector<std::string> capabilities;
            for (const auto& [capability, values] : compiled_->peer_capabilities(id, peer))
                capabilities.push_back(capability);
            std::vector<std::string> wanted_capabilities;
            if (const auto* map = member(seen, "cap_map")) {
                for (const auto& capability : map->get_object()) wanted_capabilities.emplace_back(capability.key());
            }
            const auto differences = {
                list_difference("allowed IPs", allowed_ips(id, peer), texts_of(seen, "allowed_ips")),
                list_difference("primary routes", texts(compiled_->primary_routes(id, peer)),
                                texts_of(seen, "primary_routes")),
                list_difference("capabilities", capabilities, wanted_capabilities)};
            for (const auto& found : differences) {
                if (!found.empty()) return "peer " + peer_name + ": " + found;
            }
        }
        return "";
    }

    std::string whois_difference(const std::string& name, const bj::value& expected) {
        const auto* whois = member(expected, "whois_caps");
        if (whois == nullptr) return "";
        for (const auto& item : whois->get_object()) {
            const auto address = IpAddress::parse(item.key());
            const auto owner = std::find_if(tailnet_.nodes.begin(), tailnet_.nodes.end(), [&](const TailnetNode& node) {
                return std::find(node.addresses.begin(), node.addresses.end(), *address) != node.addresses.end();
            });
            if (owner == tailnet_.nodes.end()) continue;
            std::vector<std::string> ours;
            for (const auto& [capability, values] : compiled_->capabilities_for(ids_[name], owner->id))
                ours.push_back(capability + (values.empty() ? "" : canonical(values)));
            std::vector<std::string> wanted;
            for (const auto& capability : item.value().get_object()) {
                const bool empty = capability.value().is_null() || capability.value().get_array().empty();
                wanted.push_back(std::string{capability.key()} + (empty ? "" : canonical(capability.value())));
            }
            if (auto found = list_difference("capabilities", ours, wanted); !found.empty())
                return fmt::format("whois {}: {}", std::string{item.key()}, found);
        }
        return "";
    }

    const bj::value& file_;
    Tailnet tailnet_;
    std::map<std::string, PolicyUserId> ids_of_users_;
    std::map<std::string, PolicyNodeId> ids_;
    std::map<PolicyNodeId, std::string> names_;
    std::shared_ptr<const CompiledPolicy> compiled_;
};

std::string run(const std::filesystem::path& path) {
    auto text = read_file(path.string());
    if (!text) return text.error().message();
    try {
        const auto file = bj::parse(*text);
        return Case{file}.difference();
    } catch (const std::exception& problem) {
        return std::string{"not a recorded answer: "} + problem.what();
    }
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: policy_vectors DIR\n");
        return 2;
    }
    std::error_code problem;
    std::vector<std::filesystem::path> paths;
    for (std::filesystem::recursive_directory_iterator at{argv[1], problem}, end; !problem && at != end;
         at.increment(problem)) {
        if (at->is_regular_file() && at->path().extension() == ".json") paths.push_back(at->path());
    }
    if (problem) {
        std::fprintf(stderr, "policy_vectors: %s: %s\n", argv[1], problem.message().c_str());
        return 2;
    }
    std::sort(paths.begin(), paths.end());
    std::size_t failed = 0;
    for (const auto& path : paths) {
        const auto difference = run(path);
        if (difference.empty()) continue;
        ++failed;
        std::printf("FAILED %s: %s\n", path.c_str(), difference.c_str());
    }
    std::printf("%zu passed, %zu failed\n", paths.size() - failed, failed);
    return failed == 0 && !paths.empty() ? 0 : 1;
}
