#include "base/cli/docs.hpp"

#include "base/json/json.hpp"

#include <CLI/CLI.hpp>

#include <string_view>

namespace tailrace {
namespace {

void append_member(std::string& out, const char* name, std::string_view value) {
    out += '"';
    out += name;
    out += "\":";
    json::append_string(out, value);
}

void append_option(std::string& out, const CLI::Option& option) {
    out += "{\"Names\":[";
    bool first = true;
    for (const std::string& name : option.get_snames()) {
        if (!std::exchange(first, false)) out += ',';
        json::append_string(out, "-" + name);
    }
    for (const std::string& name : option.get_lnames()) {
        if (!std::exchange(first, false)) out += ',';
        json::append_string(out, "--" + name);
    }
    out += "],";
    append_member(out, "Value", option.get_items_expected_max() == 0 ? "" : option.get_type_name());
    out += ',';
    append_member(out, "Default", option.get_default_str());
    out += ',';
    append_member(out, "Desc", option.get_description());
    out += '}';
}

void append_argument(std::string& out, const CLI::Option& option) {
    out += '{';
    append_member(out, "Name", option.get_name(true, false));
    out += ',';
    append_member(out, "Desc", option.get_description());
    out += option.get_required() ? ",\"Required\":true}" : ",\"Required\":false}";
}

void append_app(std::string& out, const CLI::App& app) {
    out += '{';
    append_member(out, "Name", app.get_name());
    out += ',';
    append_member(out, "Desc", app.get_description());
    auto list = [&](const char* name, const auto& things, auto append) {
        out += fmt::format(",\"{}\":[", name);
        bool first = true;
        for (const auto* thing : things) {
            if (thing->get_group().empty()) continue;
            std::string one;
            append(one, *thing);
            if (one.empty()) continue;
            if (!std::exchange(first, false)) out += ',';
            out += one;
        }
        out += ']';
    };
    auto options = app.get_options();
    list("Flags", options, [](std::string& one, const CLI::Option& option) {
        if (option.nonpositional()) append_option(one, option);
    });
    list("Arguments", options, [](std::string& one, const CLI::Option& option) {
        if (option.get_positional() && !option.nonpositional()) append_argument(one, option);
    });
    list("Subcommands", app.get_subcommands([](const CLI::App*) { return true; }),
         [](std::string& one, const CLI::App& sub) { append_app(one, sub); });
    out += '}';
}

} // namespace

bool wants_command_docs(int argc, char** argv) {
    return argc == 2 && std::string_view{argv[1]} == "--json-docs";
}

std::string command_docs(const CLI::App& app) {
    std::string out;
    append_app(out, app);
    return out;
}

} // namespace tailrace
