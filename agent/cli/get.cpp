// `tailrace get`: preferences by the names of the flags of `tailrace set` (cli-localapi.md 3).
#include "agent/cli/commands.hpp"
#include "agent/cli/exit_node.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace::cli {
namespace {

struct Setting {
    const PrefFlag* flag;
    std::string value;
};

std::string json_value(const Setting& setting) {
    if (setting.flag->kind == PrefFlag::Kind::Bool) return setting.value;
    std::string text;
    json::append_string(text, setting.value);
    return text;
}

} // namespace

Result<std::string> settings_text(const Prefs& prefs, const GetCommand& command) {
    std::vector<Setting> settings;
    const bool all = command.name.empty() || command.name == "all";
    for (const PrefFlag& flag : pref_flags())
        if (flag.where != PrefFlag::Where::UpOnly && (all || command.name == flag.name))
            settings.push_back({&flag, flag.value(prefs)});
    if (settings.empty())
        return Error::make("unknown setting \"{}\"; see \"tailrace set --help\" for valid settings", command.name);
    std::ranges::sort(settings, {}, [](const Setting& setting) { return std::string_view{setting.flag->name}; });
    std::string out;
    if (command.json) {
        for (const Setting& setting : settings)
            out += fmt::format("{}\n  \"{}\": {}", out.empty() ? "{" : ",", setting.flag->name, json_value(setting));
        return out + "\n}\n";
    }
    if (command.set_flags) {
        for (const Setting& setting : settings)
            out += (out.empty() ? "" : " ") + flag_text(*setting.flag, setting.value);
        return out + "\n";
    }
    if (!all) return settings.front().value + "\n";
    std::size_t width = 0;
    for (const Setting& setting : settings) width = std::max(width, std::string_view{setting.flag->name}.size());
    out = fmt::format("{:<{}}  VALUE\n", "NAME", width);
    for (const Setting& setting : settings)
        out += fmt::format("{:<{}}  {}\n", setting.flag->name, width, setting.value);
    return out;
}

Task<int> get(LocalClient& client, GetCommand command) {
    auto prefs = co_await client.prefs();
    if (!prefs) co_return fail(prefs.error().message());
    auto status = co_await client.status();
    if (!status) co_return fail(status.error().message());
    auto text = settings_text(with_exit_node_shown(*prefs, *status), command);
    if (!text) co_return fail(text.error().message());
    fmt::print("{}", *text);
    co_return 0;
}

} // namespace tailrace::cli
