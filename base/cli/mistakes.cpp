#include "base/cli/mistakes.hpp"

#include "base/text.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>

namespace tailrace {

std::string subcommand_mistake(const CLI::App& app, const std::vector<std::string>& words) {
    const CLI::App* at = &app;
    std::string path = app.get_name();
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (words[i].starts_with('-')) {
            if (words[i] == "--socket") ++i; // and its value
            continue;
        }
        auto known = at->get_subcommands([](const CLI::App*) { return true; });
        if (known.empty()) return "";
        auto named = std::ranges::find(known, words[i], [](const CLI::App* one) { return one->get_name(); });
        if (named == known.end()) return fmt::format("{}: unknown subcommand: {}", path, words[i]);
        at = *named;
        path += " " + words[i];
    }
    std::vector<std::string> names;
    for (const CLI::App* one : at->get_subcommands([](const CLI::App*) { return true; }))
        if (!one->get_group().empty()) names.push_back(one->get_name());
    if (names.empty() || at->get_require_subcommand_min() == 0) return "";
    return fmt::format("{}: missing subcommand: {}", path, join(names, ", "));
}

} // namespace tailrace
