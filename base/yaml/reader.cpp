#include "base/yaml/reader.hpp"

namespace tailrace::yaml {

std::string scalar(const YAML::Node& node, const std::string& key) {
    if (node.IsNull()) return "";
    if (!node.IsScalar()) throw BadConfig{node.Mark().line, fmt::format("{} wants a single value", key)};
    return node.Scalar();
}

std::vector<std::string> scalars(const YAML::Node& node, const std::string& key) {
    std::vector<std::string> out;
    if (node.IsNull()) return out;
    if (!node.IsSequence()) return {scalar(node, key)};
    for (const auto& item : node) out.push_back(scalar(item, key));
    return out;
}

void read_map(const YAML::Node& map, const std::string& within, const Handlers& handlers) {
    if (map.IsNull()) return;
    if (!map.IsMap()) throw BadConfig{map.Mark().line, fmt::format("{} wants \"key: value\" lines", within)};
    std::map<std::string, int> seen;
    for (const auto& entry : map) {
        const std::string key = scalar(entry.first, "a key");
        auto handler = handlers.find(key);
        if (handler == handlers.end()) {
            std::vector<std::string> known;
            for (const auto& [name, unused] : handlers) known.push_back(name);
            throw BadConfig{entry.first.Mark().line,
                            fmt::format("unknown key \"{}\" (known here: {})", key, join(known, ", "))};
        }
        if (auto [at, fresh] = seen.emplace(key, entry.first.Mark().line); !fresh)
            throw BadConfig{entry.first.Mark().line,
                            fmt::format("\"{}\" is already set in line {}", key, at->second + 1)};
        handler->second(entry.second, key);
    }
}

Result<bool> parse_bool(std::string_view text) {
    if (text == "true" || text == "yes" || text == "on") return true;
    if (text == "false" || text == "no" || text == "off") return false;
    return Error::make("\"{}\" is neither true nor false", text);
}

Handler log_into(log::Level& level, log::Format& format) {
    return map_of(
        {{"level", parsed_into(level, log::parse_level)}, {"format", parsed_into(format, log::parse_format)}});
}

Result<void> read(std::string_view text, const std::string& name, const Handlers& handlers) {
    try {
        read_map(YAML::Load(std::string{text}), "the file", handlers);
    } catch (const BadConfig& bad) {
        return Error::make("{}:{}: {}", name, bad.line + 1, bad.what);
    } catch (const YAML::Exception& bad) {
        return Error::make("{}:{}: {}", name, bad.mark.line + 1, bad.msg);
    } catch (const std::exception& bad) {
        return Error::make("{}: {}", name, bad.what());
    }
    return {};
}

} // namespace tailrace::yaml
