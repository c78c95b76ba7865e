#include "agent/config/check.hpp"

#include "agent/config/config.hpp"
#include "agent/coordination/oauth_client.hpp"
#include "base/file.hpp"
#include "base/json/json.hpp"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <sys/stat.h>

namespace tailrace {
namespace {

std::string key_file_note(const std::string& path) {
    struct stat about {};
    if (::stat(path.c_str(), &about) != 0)
        return fmt::format("{} cannot be read; a node that is logged in does without it", path);
    if ((about.st_mode & 077) != 0) return fmt::format("{} can be read by others: \"chmod 600 {}\"", path, path);
    return "";
}

/// The secret is not shown.
void look_at_oauth_client(const std::string& path, CheckedConfig& out) {
    auto text = read_file(path, 64 << 10);
    if (!text) return; // said already, or read by root only
    auto client = OAuthClientSecret::parse(*text);
    if (!client) {
        out.notes.push_back(fmt::format("{}: {}", path, client.error().message()));
        return;
    }
    out.login = fmt::format(
        "by an OAuth client at {}, as a node that {}", client->base_url.empty() ? "the login-server" : client->base_url,
        client->ephemeral ? "is deleted when it has gone for a while (?ephemeral=false: that stays)" : "stays");
}

} // namespace

Result<CheckedConfig> check_agent_config(const std::string& path) {
    auto config = load_agent_config(path);
    if (!config) return config.error();
    CheckedConfig out;
    out.declares_prefs = config->declares_prefs;
    if (!out.declares_prefs) return out;
    out.enabled = config->enabled;
    out.locked = config->locked;
    out.settings.assign(config->given.begin(), config->given.end());
    for (const std::string& file : {config->auth_key_file, config->oauth_client_file})
        if (!file.empty())
            if (std::string note = key_file_note(file); !note.empty()) out.notes.push_back(std::move(note));
    if (!config->oauth_client_file.empty()) look_at_oauth_client(config->oauth_client_file, out);
    return out;
}

std::string CheckedConfig::text(const std::string& path) const {
    std::string out = fmt::format("{} is good.\n", path);
    if (!declares_prefs)
        return out + "It declares no settings of this node: \"tailrace up\" and \"tailrace set\" make them.\n";
    out += enabled ? "The node is connected" : "The node is not connected (enabled: false)";
    out += locked ? ", and the command line changes nothing of it:\n" : ", until the command line changes it:\n";
    for (const auto& [name, value] : settings) out += fmt::format("  {}: {}\n", name, value);
    if (!login.empty()) out += fmt::format("  logs in {}\n", login);
    for (const std::string& note : notes) out += fmt::format("note: {}\n", note);
    return out;
}

std::string checked_config_json(const std::string& path, const Result<CheckedConfig>& checked) {
    boost::json::object out{{"File", path}, {"Good", static_cast<bool>(checked)}};
    if (!checked) {
        out["Error"] = checked.error().message();
        return boost::json::serialize(out);
    }
    out["DeclaresSettings"] = checked->declares_prefs;
    if (checked->declares_prefs) {
        out["Enabled"] = checked->enabled;
        out["Locked"] = checked->locked;
        boost::json::object settings;
        for (const auto& [name, value] : checked->settings) settings[name] = value;
        out["Settings"] = std::move(settings);
    }
    if (!checked->login.empty()) out["Login"] = checked->login;
    boost::json::array notes;
    for (const std::string& note : checked->notes) notes.emplace_back(note);
    out["Notes"] = std::move(notes);
    return boost::json::serialize(out);
}

} // namespace tailrace
