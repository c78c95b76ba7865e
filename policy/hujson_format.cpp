// policy/hujson_format.cpp - lays a document out. The rules are those of github.com/tailscale/hujson format.go (July
// 2026); its test vectors are in tests/vectors/hujson.
#include "policy/hujson_format.hpp"

#include "policy/hujson_extra.hpp"

#include <algorithm>
#include <set>

namespace tailrace::hujson {
namespace {

/// Lines of a text that is to stand among others: how long are the first and the last?
struct LineLengths {
    std::size_t first = 0;
    std::size_t last = 0;
    bool several = false;
};

class Formatter {
public:
    explicit Formatter(bool standard) : standard_(standard) {}

    void run(Draft& root) {
        normalize(root);
        measure(root);
        lay_out(root, 0);
        align(root);
    }

private:
    static void normalize(Draft& draft) {
        if (draft.kind == Kind::String && draft.literal.find('\\') != std::string::npos)
            draft.literal = quote(draft.string_value());
        if (!draft.is_container()) return;
        if (draft.values.empty()) {
            if (!has_comment(draft.inside)) draft.inside.clear();
            return;
        }
        for (auto* children : {&draft.names, &draft.values}) {
            for (auto& child : *children) {
                if (child.after && !has_comment(*child.after)) child.after.reset();
                normalize(child);
            }
        }
    }

    static LineLengths lengths_of(std::string_view extra) {
        const auto first = extra.find('\n');
        if (first == std::string_view::npos) {
            const auto length = comment_length(extra);
            return {length, length, false};
        }
        return {comment_length(extra.substr(0, first)), comment_length(extra.substr(extra.rfind('\n') + 1)), true};
    }
    static LineLengths lengths_of(const std::optional<std::string>& extra) {
        return extra ? lengths_of(std::string_view{*extra}) : LineLengths{};
    }

    /// Decides which containers have a line for each child: from the innermost out.
    LineLengths measure(const Draft& draft) {
        if (!draft.is_container()) return {draft.literal.size(), draft.literal.size(), false};
        bool expand = false;
        std::size_t length = 1;
        std::vector<std::size_t> lines;
        const auto add = [&](const LineLengths& part) {
            length += part.first;
            if (!part.several) return;
            lines.push_back(length);
            length = part.last;
        };
        for (std::size_t i = 0; i < draft.values.size(); ++i) {
            if (draft.kind == Kind::Object) {
                expand = expand || has_line_feed(draft.names[i].before);
                add(lengths_of(std::string_view{draft.names[i].before}));
                add(measure(draft.names[i]));
                add(lengths_of(draft.names[i].after));
                length += 2;
            } else {
                expand = expand || has_line_feed(draft.values[i].before);
            }
            add(lengths_of(std::string_view{draft.values[i].before}));
            add(measure(draft.values[i]));
            add(lengths_of(draft.values[i].after));
            length += 2;
        }
        length += 1;
        if (!draft.values.empty()) expand = expand || has_line_feed(draft.values.back().after.value_or(""));
        expand = expand || has_line_feed(draft.inside);
        lines.push_back(length);
        expand = expand || std::any_of(lines.begin(), lines.end(), [](std::size_t line) { return line > kWidth; });
        if (!expand) return {lines.front(), lines.back(), lines.size() > 1};
        expanded_.insert(&draft);
        const auto& first_extra = draft.values.empty()         ? draft.inside
                                  : draft.kind == Kind::Object ? draft.names.front().before
                                                               : draft.values.front().before;
        return {1 + lengths_of(std::string_view{first_extra}).first, 1, true};
    }

    void lay_out(Draft& draft, int depth) {
        if (!draft.is_container()) return;
        const bool expand = expanded_.count(&draft) != 0;
        const ExtraLayout behind{.no_leading_blank = true, .no_trailing_blank = true};
        for (std::size_t i = 0; i < draft.values.size(); ++i) {
            auto& value = draft.values[i];
            const ExtraLayout in_front{
                .leading_line_feed = expand, .no_leading_blank = i == 0, .space_if_empty = i != 0};
            int value_depth = depth + (expand ? 1 : 0);
            if (draft.kind == Kind::Object) {
                auto& name = draft.names[i];
                lay_out_extra(name.before, depth + 1, in_front);
                if (name.after) lay_out_extra(*name.after, depth + 2, behind);
                auto before_value = behind;
                before_value.space_if_empty = true;
                lay_out_extra(value.before, depth + 2, before_value);
                if (has_line_feed(name.after.value_or("")) || has_line_feed(value.before)) ++value_depth;
            } else {
                lay_out_extra(value.before, depth + 1, in_front);
            }
            lay_out(value, value_depth);
            if (value.after) lay_out_extra(*value.after, depth + 2, behind);
        }
        lay_out_extra(draft.inside, depth + 1,
                      {.trailing_line_feed = expand,
                       .no_leading_blank = draft.values.empty(),
                       .no_trailing_blank = true,
                       .unindent = true});
        if (draft.values.empty()) return;
        auto& tail = draft.values.back().after;
        const bool surrounded = tail && !tail->empty() && !draft.inside.empty();
        if (!expand && !surrounded) {
            if (tail) draft.inside = *tail + draft.inside;
            tail.reset();
        } else if (expand && !standard_ && !tail) {
            tail.emplace();
        }
    }

    static bool has_line_feed_inside(const Draft& draft) {
        const auto anywhere = [](const Draft& child) {
            return has_line_feed(child.before) || has_line_feed(child.after.value_or("")) ||
                   has_line_feed_inside(child);
        };
        return std::any_of(draft.names.begin(), draft.names.end(), anywhere) ||
               std::any_of(draft.values.begin(), draft.values.end(), anywhere);
    }

    /// Brings the values of neighbouring one-line members into one column.
    static void align(Draft& draft) {
        if (draft.kind == Kind::Object) {
            std::vector<std::pair<std::string*, std::size_t>>
                rows; // the extra that is made wider, and the width so far
            const auto flush = [&] {
                std::size_t most = 0;
                for (const auto& row : rows) most = std::max(most, row.second);
                for (const auto& row : rows) row.first->append(most - row.second, ' ');
                rows.clear();
            };
            for (std::size_t i = 0; i < draft.values.size(); ++i) {
                const auto& name = draft.names[i];
                auto& value = draft.values[i];
                const std::string name_after = name.after.value_or("");
                if (!has_line_feed(name.before) || has_line_feed(name_after) || has_line_feed(value.before) ||
                    has_line_feed_inside(value) || has_line_feed(value.after.value_or(""))) {
                    flush();
                    continue;
                }
                if (std::count(name.before.begin(), name.before.end(), '\n') > 1) flush();
                rows.emplace_back(&value.before, name.literal.size() + name_after.size() + 1 + value.before.size());
            }
            flush();
        }
        for (auto& child : draft.values) align(child);
    }

    static constexpr std::size_t kWidth = 80;

    const bool standard_;
    std::set<const Draft*> expanded_;
};

bool is_standard(const Draft& draft) {
    if (has_comment(draft.before) || has_comment(draft.after.value_or(""))) return false;
    if (!draft.is_container()) return true;
    if (has_comment(draft.inside)) return false;
    if (!draft.values.empty() && draft.values.back().after) return false;
    return std::all_of(draft.names.begin(), draft.names.end(), is_standard) &&
           std::all_of(draft.values.begin(), draft.values.end(), is_standard);
}

} // namespace

void format(Draft& document) {
    lay_out_extra(document.before, 0, {});
    document.before.erase(0, document.before.find_first_not_of(" \t\r\n"));
    Formatter{is_standard(document)}.run(document);
    std::string after = document.after.value_or("");
    lay_out_extra(after, 0, {});
    document.after = std::string{trim_right(after)} + "\n";
}

Result<std::string> format(std::string_view text) {
    auto tree = Tree::parse(std::string{text});
    if (!tree) return tree.error();
    auto draft = Draft::of(*tree);
    format(draft);
    return draft.pack();
}

} // namespace tailrace::hujson
