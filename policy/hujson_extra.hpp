// policy/hujson_extra.hpp - the layout of what stands between two tokens. Internal to policy/hujson_*.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace tailrace::hujson {

/// What the place of some white space and comments asks of them.
struct ExtraLayout {
    bool leading_line_feed = false;  ///< begin with a line feed if there is none
    bool trailing_line_feed = false; ///< end with one
    bool no_leading_blank = false;   ///< no blank line first
    bool no_trailing_blank = false;  ///< no blank line last
    bool unindent = false;           ///< the last line belongs one step further out
    bool space_if_empty = false;
};

/// Lays it out for this depth: comments indented, at most one blank line in a row.
void lay_out_extra(std::string& extra, int depth, const ExtraLayout& layout);

/// How much of a line its comments take, roughly, as the reference library estimates it.
std::size_t comment_length(std::string_view line);

inline bool has_line_feed(std::string_view extra) {
    return extra.find('\n') != std::string_view::npos;
}

/// Without Unicode white space at its end.
std::string_view trim_right(std::string_view text);

} // namespace tailrace::hujson
