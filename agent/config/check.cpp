#include "agent/config/check.hpp"

#include "agent/config/config.hpp"

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
    return out;
}

} // namespace tailrace
