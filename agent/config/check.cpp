#include "agent/config/check.hpp"

#include "agent/config/config.hpp"
#include "agent/coordination/oauth_client.hpp"
#include "base/file.hpp"

#include <sys/stat.h>

namespace tailrace {
namespace {

std::string key_file_note(const std::string& path) {
    struct stat about {};
    if (::stat(path.c_str(), &about) != 0)
        return fmt::format("note: {} cannot be read; a node that is logged in does without it\n", path);
    if ((about.st_mode & 077) != 0)
        return fmt::format("note: {} can be read by others: \"chmod 600 {}\"\n", path, path);
    return "";
}

/// The secret is not shown.
std::string oauth_client_note(const std::string& path) {
    auto text = read_file(path, 64 << 10);
    if (!text) return ""; // said already, or read by root only
    auto client = OAuthClientSecret::parse(*text);
    if (!client) return fmt::format("note: {}: {}\n", path, client.error().message());
    return fmt::format("  logs in by an OAuth client at {}, as a node that {}\n",
                       client->base_url.empty() ? "the login-server" : client->base_url,
                       client->ephemeral ? "is deleted when it has gone for a while (?ephemeral=false: that stays)"
                                         : "stays");
}

} // namespace

Result<std::string> check_agent_config(const std::string& path) {
    auto config = load_agent_config(path);
    if (!config) return config.error();
    std::string out = fmt::format("{} is good.\n", path);
    if (!config->declares_prefs)
        return out + "It declares no settings of this node: \"tailrace up\" and \"tailrace set\" make them.\n";
    out += config->enabled ? "The node is connected" : "The node is not connected (enabled: false)";
    out +=
        config->locked ? ", and the command line changes nothing of it:\n" : ", until the command line changes it:\n";
    for (const auto& [name, value] : config->given) out += fmt::format("  {}: {}\n", name, value);
    if (!config->auth_key_file.empty()) out += key_file_note(config->auth_key_file);
    if (!config->oauth_client_file.empty())
        out += key_file_note(config->oauth_client_file) + oauth_client_note(config->oauth_client_file);
    return out;
}

} // namespace tailrace
