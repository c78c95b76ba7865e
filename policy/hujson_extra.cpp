// policy/hujson_extra.cpp - lays out comments. See hujson_format.cpp for the source of the rules.
#include "policy/hujson_extra.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace tailrace::hujson {
namespace {

std::size_t white_space_at_start(std::string_view text) {
    return std::min(text.find_first_not_of(" \t\r\n"), text.size());
}

/// The size of the comment that the text begins with, a line comment's line feed included.
std::size_t comment_size(std::string_view text) {
    const bool line = text.starts_with("//");
    const auto end = line ? text.find('\n') : text.find("*/", 2);
    if (end == std::string_view::npos) return text.size();
    return line ? end + 1 : end + 2;
}

void replace_all(std::string& text, std::string_view what, std::string_view with) {
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
        text.replace(at, what.size(), with);
}

std::string_view common_start(std::string_view a, std::string_view b) {
    const auto size = std::min(a.size(), b.size());
    for (std::size_t i = 0; i < size; ++i) {
        if (a[i] != b[i]) return a.substr(0, i);
    }
    return a; // also where b ends first
}

/// A block comment of several lines: its lines keep their places relative to each other.
void append_block(std::string& out, std::string_view comment, int depth) {
    std::vector<std::string> lines;
    for (const auto line : split(comment, '\n')) lines.emplace_back(trim_right(line));
    const bool has_empty = std::any_of(lines.begin(), lines.end(), [](const auto& line) { return line.empty(); });
    const auto first = std::find_if(lines.begin() + 1, lines.end(), [](const auto& line) { return !line.empty(); });
    const std::string first_line = first == lines.end() ? std::string{} : *first;
    std::string_view prefix = first_line;
    for (auto line = lines.begin() + 1; line != lines.end(); ++line) {
        if (line->empty()) continue;
        if (line->ends_with("*/") && white_space_at_start(*line) + 2 == line->size()) {
            *line = std::string{prefix.substr(0, white_space_at_start(prefix))} + "*/";
            break;
        }
        prefix = common_start(prefix, *line);
    }
    const auto margin = white_space_at_start(prefix);
    const bool stars = !has_empty && prefix.size() > margin && prefix[margin] == '*';
    out += lines.front() + "\n";
    for (auto line = lines.begin() + 1; line != lines.end(); ++line) {
        if (!line->empty()) {
            out.append(static_cast<std::size_t>(depth), '\t');
            if (stars) out += ' ';
            out += line->substr(std::min(margin, line->size()));
        }
        out += '\n';
    }
    out.erase(out.find_last_not_of('\n') + 1);
}

} // namespace

std::string_view trim_right(std::string_view text) {
    // unicode.IsSpace of Go, in UTF-8.
    static constexpr std::array<std::string_view, 24> kSpaces = {
        " ",      "\t",     "\n",     "\v",     "\f",     "\r",     "\u0085", "\u00a0",
        "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
        "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f"};
    static constexpr std::string_view kWideSpace = "\u3000";
    for (;;) {
        const auto space =
            std::find_if(kSpaces.begin(), kSpaces.end(), [&](std::string_view each) { return text.ends_with(each); });
        if (space != kSpaces.end()) {
            text.remove_suffix(space->size());
        } else if (text.ends_with(kWideSpace)) {
            text.remove_suffix(kWideSpace.size());
        } else {
            return text;
        }
    }
}

std::size_t comment_length(std::string_view line) {
    std::size_t length = 0;
    for (;;) {
        line.remove_prefix(white_space_at_start(line));
        if (line.starts_with("//")) return length + 1 + line.size();
        if (!line.starts_with("/*")) return length > 0 ? length + 1 : 0; // a space behind the block comments
        const auto end = line.find("*/", 2);
        if (end == std::string_view::npos) return length + 1 + line.size();
        length += 1 + end + 2;
        line.remove_prefix(end + 2);
    }
}

void lay_out_extra(std::string& extra, int depth, const ExtraLayout& layout) {
    if (extra.find('\r') != std::string::npos) {
        replace_all(extra, "\r\n", "\n");
        replace_all(extra, "\n\r", "\n");
        replace_all(extra, "\r", " ");
    }
    std::string_view in = extra;
    std::string out;
    if (layout.leading_line_feed && !has_line_feed(in)) out += '\n';
    while (!in.empty()) {
        if (const auto size = white_space_at_start(in); size > 0) {
            const auto lines = std::count(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(size), '\n');
            out.append(static_cast<std::size_t>(std::min<std::ptrdiff_t>(lines, 2)), '\n');
            in.remove_prefix(size);
            continue;
        }
        auto size = comment_size(in);
        if (out.ends_with('\n'))
            out.append(static_cast<std::size_t>(depth), '\t');
        else
            out += ' ';
        const auto comment = in.substr(0, size);
        const bool line = comment.starts_with("//");
        if (line || !has_line_feed(comment)) {
            out += trim_right(comment);
            if (line && comment.ends_with('\n')) --size; // it is white space of the next round
        } else {
            append_block(out, comment, depth);
        }
        in.remove_prefix(size);
    }
    if (layout.trailing_line_feed && !out.ends_with('\n')) out += '\n';
    while (layout.no_leading_blank && out.starts_with("\n\n")) out.erase(0, 1);
    while (layout.no_trailing_blank && out.ends_with("\n\n")) out.pop_back();
    if (out.ends_with('\n')) {
        out.append(static_cast<std::size_t>(layout.unindent ? depth - 1 : depth), '\t');
    } else if (!out.empty()) {
        out += ' ';
    }
    if (layout.space_if_empty && out.empty()) out += ' ';
    extra = std::move(out);
}

} // namespace tailrace::hujson
