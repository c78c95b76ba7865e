#include "base/log.hpp"

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "base/text.hpp"
#include "base/time.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <cstdlib>

namespace tailrace::log {
namespace {

std::atomic<Level> g_level{Level::Info};
std::atomic<Format> g_format{Format::Text};

constexpr std::string_view kNames[] = {"debug", "info", "warning", "error"};

std::string_view name_of(Level level) {
    return kNames[static_cast<int>(level)];
}

void append_json_string(std::string& out, std::string_view text) {
    out += '"';
    for (char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        } else {
            out += c;
        }
    }
    out += '"';
}

// Values with spaces, quotes or control characters are quoted, so that a line splits at spaces and stays one line.
std::string text_value(std::string_view value) {
    bool plain = !value.empty();
    for (char c : value) plain = plain && static_cast<unsigned char>(c) > 0x20 && c != '"' && c != '=' && c != 0x7f;
    if (plain) return std::string{value};
    std::string out;
    append_json_string(out, value);
    return out;
}

std::string journal_name(std::string_view name) {
    std::string out = "TAILRACE_";
    for (char c : name) {
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        out += !letter ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
    return out;
}

// Journal Export Format: NAME=value, or NAME, LF, 64-bit little-endian length, value when the value has a line feed.
void append_journal_field(std::string& out, std::string_view name, std::string_view value) {
    out += name;
    if (value.find('\n') == std::string_view::npos) {
        out += '=';
    } else {
        Writer length;
        length.le64(value.size());
        out += '\n';
        out += as_chars(length.view());
    }
    out += value;
    out += '\n';
}

bool send_to_journal(const std::string& datagram) {
    static const Fd socket{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    constexpr std::string_view kPath = "/run/systemd/journal/socket";
    kPath.copy(address.sun_path, kPath.size());
    return ::sendto(socket.get(), datagram.data(), datagram.size(), MSG_NOSIGNAL,
                    reinterpret_cast<const sockaddr*>(&address), sizeof address) >= 0;
}

} // namespace

void set_level(Level level) {
    g_level = level;
}
void set_format(Format format) {
    g_format = format;
}
Level level() {
    return g_level;
}

Format default_format() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat status {};
    if (stream == nullptr || ::fstat(2, &status) != 0) return Format::Text;
    return fmt::format("{}:{}", status.st_dev, status.st_ino) == stream ? Format::Journal : Format::Text;
}

Result<Format> parse_format(std::string_view text) {
    if (text == "text") return Format::Text;
    if (text == "json") return Format::Json;
    if (text == "journal") return Format::Journal;
    if (text == "auto" || text.empty()) return default_format();
    return tailrace::Error::make("unknown log format \"{}\": use text, json, journal or auto", text);
}

Result<Level> parse_level(std::string_view text) {
    for (int i = 0; i < 4; ++i)
        if (text == kNames[i]) return static_cast<Level>(i);
    return tailrace::Error::make("unknown log level \"{}\": use debug, info, warning or error", text);
}

std::string render(Format format, Level level, std::string_view sentence, Fields fields, std::string_view time) {
    std::string out;
    switch (format) {
    case Format::Text:
        out = fmt::format("{} {:7} {}", time, name_of(level), sentence);
        for (const auto& field : fields) out += fmt::format(" {}={}", field.name, text_value(field.value));
        break;
    case Format::Json:
        out = "{\"time\":";
        append_json_string(out, time);
        out += ",\"level\":";
        append_json_string(out, name_of(level));
        out += ",\"message\":";
        append_json_string(out, sentence);
        for (const auto& field : fields) {
            out += ',';
            append_json_string(out, field.name);
            out += ':';
            append_json_string(out, field.value);
        }
        out += '}';
        break;
    case Format::Journal:
        constexpr int kPriorities[] = {7, 6, 4, 3}; // syslog(3)
        std::string message{sentence};
        for (const auto& field : fields) message += fmt::format(" {}={}", field.name, text_value(field.value));
        append_journal_field(out, "MESSAGE", message);
        append_journal_field(out, "PRIORITY", fmt::format("{}", kPriorities[static_cast<int>(level)]));
        for (const auto& field : fields) append_journal_field(out, journal_name(field.name), field.value);
        break;
    }
    return out;
}

void write(Level level, std::string_view sentence, Fields fields) {
    if (level < g_level.load(std::memory_order_relaxed)) return;
    Format format = g_format;
    if (format == Format::Journal) {
        if (send_to_journal(render(format, level, sentence, fields, ""))) return;
        format = Format::Text;
    }
    std::string line = render(format, level, sentence, fields, WallTime::now().text()) + "\n";
    ssize_t written = ::write(2, line.data(), line.size());
    (void)written; // a log that can't be written has nobody to tell
}

} // namespace tailrace::log
