// base/yaml/reader.hpp - configuration files in YAML: strict keys, and complaints that name file and line.
#pragma once
#include "base/log.hpp"
#include "base/result.hpp"
#include "base/text.hpp"

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::yaml {

/// A complaint about one place of the file. yaml-cpp throws, and so does this; read() catches both.
struct BadConfig {
    int line; ///< from 0, as yaml-cpp counts
    std::string what;
};

/// What to do with the value of a key.
using Handler = std::function<void(const YAML::Node& value, const std::string& key)>;
using Handlers = std::map<std::string, Handler>;

/// Reads a whole file. `name` is for messages: "control.yaml:3: unknown key \"lsiten\"".
Result<void> read(std::string_view text, const std::string& name, const Handlers& handlers);

/// A map within the file; `within` names it in messages.
void read_map(const YAML::Node& map, const std::string& within, const Handlers& handlers);
/// The text of a single value; "" for a key without one.
std::string scalar(const YAML::Node& node, const std::string& key);
/// The texts of a list; a single value is a list of one.
std::vector<std::string> scalars(const YAML::Node& node, const std::string& key);

/// The value, or a complaint at the place of `node`.
template <typename T>
T checked(Result<T> result, const YAML::Node& node, const std::string& key) {
    if (!result) throw BadConfig{node.Mark().line, fmt::format("{}: {}", key, result.error().message())};
    return std::move(*result);
}

Result<bool> parse_bool(std::string_view text); ///< true, yes, on; false, no, off

template <typename T>
Result<T> parse_between(std::string_view text, T least, T most) {
    auto number = parse_number<T>(text);
    if (!number || *number < least || *number > most)
        return Error::make("\"{}\" is not a whole number from {} to {}", text, least, most);
    return number;
}

// Handlers that put a value where it belongs.
inline Handler text_into(std::string& into) {
    return [&into](const YAML::Node& n, const std::string& key) { into = scalar(n, key); };
}
template <typename T, typename Parse>
Handler parsed_into(T& into, Parse parse) {
    return
        [&into, parse](const YAML::Node& n, const std::string& key) { into = checked(parse(scalar(n, key)), n, key); };
}
/// A map in a map.
inline Handler map_of(Handlers handlers) {
    return
        [handlers = std::move(handlers)](const YAML::Node& n, const std::string& key) { read_map(n, key, handlers); };
}
/// The same for all our programs: "log: {level: ..., format: ...}".
Handler log_into(log::Level& level, log::Format& format);

} // namespace tailrace::yaml
