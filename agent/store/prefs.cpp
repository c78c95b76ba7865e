#include "agent/store/prefs.hpp"
#include "agent/router/via6.hpp"
#include "base/json/json.hpp"
#include "proto/control/names.hpp"
#include "proto/control/vip_services.hpp"

#include <algorithm>

namespace tailrace {

const std::string& Persist::zero_node_key() {
    static const std::string key = "privkey:" + std::string(64, '0');
    return key;
}
const std::string& Persist::zero_lock_key() {
    static const std::string key = "nlpriv:" + std::string(128, '0');
    return key;
}

bool Prefs::advertises_exit_node() const {
    return std::ranges::any_of(routes(), [](const IpPrefix& route) { return route.is_default(); });
}

Prefs Prefs::without_secrets() const {
    Prefs out = *this;
    if (!out.config) out.config.emplace();
    out.config->private_node_key = Persist::zero_node_key();
    out.config->old_private_node_key = Persist::zero_node_key();
    out.config->network_lock_key = Persist::zero_lock_key();
    return out;
}

Result<void> check_prefs(const Prefs& prefs) {
    std::vector<std::string> problems;
    for (const IpPrefix& route : prefs.routes())
        if (!route.is_masked())
            problems.push_back(
                fmt::format("{} has non-address bits set; expected {}", route.text(), route.masked().text()));
        else if (auto via = check_via(route); !via)
            problems.push_back(via.error().message());
    bool uses_exit = !prefs.exit_node_id.empty() || !prefs.exit_node_ip.empty() || !prefs.auto_exit_node.empty();
    if (uses_exit && prefs.advertises_exit_node())
        problems.push_back("Cannot advertise an exit node and use an exit node at the same time.");
    if (prefs.netfilter_mode < 0 || prefs.netfilter_mode > 2)
        problems.push_back(fmt::format("unknown netfilter mode {}", prefs.netfilter_mode));
    for (const std::string& tag : prefs.tags())
        if (!tag.starts_with("tag:") || tag.size() == 4)
            problems.push_back(fmt::format("\"{}\": tags must start with 'tag:'", tag));
    if (prefs.services().size() > wire::VipServices::kMostServices)
        problems.push_back(fmt::format("a node can host {} services", wire::VipServices::kMostServices));
    else
        for (const std::string& service : prefs.services())
            if (auto named = check_service_name(service); !named) problems.push_back(named.error().message());
    if (!problems.empty()) return Error::make("{}", join(problems, "\n"));
    return {};
}

namespace {

template <typename Visitor>
void for_each_field(Visitor visit) {
    JsonFields<Prefs>::fields.each(visit);
}

bool is_set(const boost::json::object& object, std::string_view name) {
    const auto* member = object.if_contains(name);
    return member != nullptr && member->is_bool() && member->get_bool();
}

} // namespace

Result<Prefs> apply_masked_prefs(const Prefs& prefs, std::string_view body) {
    auto value = json::parse_value(body);
    if (!value) return value.error();
    if (!value->is_object()) return Error::make("preferences must be an object");
    const auto& object = value->get_object();
    if (is_set(object, "InternalExitNodePriorSet")) return Error::make("can't set InternalExitNodePrior");
    Prefs wanted;
    if (auto read = json::read(*value, wanted); !read) return read.error();
    Prefs out = prefs;
    for_each_field([&](const auto& f) {
        std::string_view name = f.name;
        if (name == "Config") return; // keys are never set from outside
        if (is_set(object, std::string{name} + "Set")) out.*(f.member) = wanted.*(f.member);
    });
    if (const auto* update = object.if_contains("AutoUpdateSet"); update != nullptr && update->is_object()) {
        if (is_set(update->get_object(), "CheckSet")) out.auto_update.check = wanted.auto_update.check;
        if (is_set(update->get_object(), "ApplySet")) out.auto_update.apply = wanted.auto_update.apply;
    }
    return out;
}

std::string masked_prefs(const Prefs& prefs, const std::vector<std::string>& names) {
    std::string out = "{";
    for_each_field([&](const auto& f) {
        if (std::ranges::find(names, f.name) == names.end()) return;
        if (out.size() > 1) out += ',';
        json::append_string(out, f.name);
        out += ':';
        json::append(out, prefs.*(f.member));
        out += ",\"";
        out += f.name;
        out += "Set\":true";
    });
    return out + "}";
}

std::vector<std::string> changed_prefs(const Prefs& before, const Prefs& after) {
    std::vector<std::string> names;
    for_each_field([&](const auto& f) {
        if (!(before.*(f.member) == after.*(f.member))) names.emplace_back(f.name);
    });
    return names;
}

Result<Prefs> parse_prefs(std::string_view text) {
    return json::parse<Prefs>(text);
}
std::string write_prefs(const Prefs& prefs) {
    return json::write(prefs);
}

} // namespace tailrace
