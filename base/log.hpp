// base/log.hpp - one line an event: a fixed sentence that can be searched for, plus fields.
#pragma once
#include "base/result.hpp"

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>

namespace tailrace::log {

enum class Level { Debug, Info, Warning, Error };
/// Text for people, JSON for collectors, Journal for systemd's native protocol (fields become TAILRACE_<NAME>=).
enum class Format { Text, Json, Journal };

/// One field of a log line. Values are turned into text at once; keys and secrets have no business here.
struct Field {
    std::string name;
    std::string value;

    Field(std::string_view field_name, std::string_view text) : name(field_name), value(text) {}
    Field(std::string_view field_name, const char* text) : name(field_name), value(text) {}
    Field(std::string_view field_name, const std::string& text) : name(field_name), value(text) {}
    Field(std::string_view field_name, const tailrace::Error& error) : name(field_name), value(error.message()) {}
    template <typename T>
    requires std::integral<T> || std::floating_point<T> Field(std::string_view field_name, T number)
        : name(field_name), value(fmt::format("{}", number)) {}
    template <typename T>
    requires requires(const T& t) {
        { t.text() } -> std::convertible_to<std::string>;
    }
    Field(std::string_view field_name, const T& thing) : name(field_name), value(thing.text()) {}
};
using Fields = std::initializer_list<Field>;

void set_level(Level level);
void set_format(Format format);
Level level();
/// Journal when stderr is connected to the journal ($JOURNAL_STREAM), else Text.
Format default_format();
Result<Format> parse_format(std::string_view text); ///< "text", "json", "journal", "auto"
Result<Level> parse_level(std::string_view text);   ///< "debug", "info", "warning", "error"

void write(Level level, std::string_view sentence, Fields fields);
inline void debug(std::string_view sentence, Fields fields = {}) {
    write(Level::Debug, sentence, fields);
}
inline void info(std::string_view sentence, Fields fields = {}) {
    write(Level::Info, sentence, fields);
}
inline void warn(std::string_view sentence, Fields fields = {}) {
    write(Level::Warning, sentence, fields);
}
inline void error(std::string_view sentence, Fields fields = {}) {
    write(Level::Error, sentence, fields);
}

/// The line as it would be written, without newline. For tests.
std::string render(Format format, Level level, std::string_view sentence, Fields fields, std::string_view time);

} // namespace tailrace::log
