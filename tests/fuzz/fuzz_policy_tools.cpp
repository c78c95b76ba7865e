// What people and scripts do with policy files: lay them out, edit them, fix them, lint them, compare and explain them.
// Whatever comes in, the layout is stable and means the same, what is edited still parses, and nothing crashes.
#include "policy/diff.hpp"
#include "policy/explain.hpp"
#include "policy/hujson_format.hpp"
#include "policy/lint.hpp"
#include "policy/preview.hpp"
#include "policy/stage.hpp"
#include "policy/tailnet_json.hpp"

#include <cstdlib>

using namespace tailrace;

namespace {

void require(bool truth) {
    if (!truth) std::abort();
}

std::string meaning(const std::string& text) {
    auto tree = hujson::Tree::parse(text);
    require(static_cast<bool>(tree));
    auto draft = hujson::Draft::of(*tree);
    hujson::format(draft); // spells strings one way
    auto again = hujson::Tree::parse(draft.pack());
    require(static_cast<bool>(again));
    return hujson::minimize(again->text(), again->root());
}

/// Comment openings outside of strings: none of them may get lost.
std::size_t comments_in(const hujson::Draft& draft) {
    const auto count = [](std::string_view extra) {
        std::size_t found = 0;
        while (!extra.empty()) {
            const auto begin = extra.find('/');
            if (begin == std::string_view::npos) break;
            extra.remove_prefix(begin);
            const bool line = extra.starts_with("//");
            const auto end = line ? extra.find('\n') : extra.find("*/", 2);
            ++found;
            extra.remove_prefix(end == std::string_view::npos ? extra.size() : end + (line ? 1 : 2));
        }
        return found;
    };
    std::size_t sum = count(draft.before) + count(draft.inside) + count(draft.after.value_or(""));
    for (const auto& name : draft.names) sum += comments_in(name);
    for (const auto& value : draft.values) sum += comments_in(value);
    return sum;
}

void lay_out(const hujson::Tree& tree) {
    const auto draft = hujson::Draft::of(tree);
    require(draft.pack() == tree.text());
    auto formatted = draft;
    hujson::format(formatted);
    const auto text = formatted.pack();
    require(comments_in(formatted) == comments_in(draft));
    auto twice = hujson::format(text);
    require(twice && *twice == text);
    require(meaning(text) == meaning(tree.text()));
}

void edit(const hujson::Tree& tree) {
    auto draft = hujson::Draft::of(tree);
    if (!draft.is_container()) return;
    if (draft.kind == hujson::Kind::Object) {
        draft.set("added", hujson::Draft::string("value"));
        require(draft.find("added").has_value());
    } else {
        draft.append(hujson::Draft::made("{\"added\": []}"));
    }
    draft.add_comment(0, "why");
    require(static_cast<bool>(hujson::Tree::parse(draft.pack())));
    while (!draft.values.empty()) {
        draft.erase(0);
        require(static_cast<bool>(hujson::Tree::parse(draft.pack())));
    }
}

void judge(const std::string& text) {
    (void)lint_text(lint(text));
    (void)lint_json(lint(text));
    auto fixed = fix_policy(text);
    if (fixed && !fixed->changes.empty()) require(static_cast<bool>(hujson::Tree::parse(fixed->text)));
    auto document = Document::parse(text);
    if (!document) return;
    // A fix does not change what the policy means.
    if (fixed && !fixed->changes.empty() && fixed->unclear.empty()) {
        auto after = Document::parse(fixed->text);
        require(after && diff_policies(*document, *after).empty());
    }
    const auto tailnet = imagined_tailnet({&*document});
    require(tailnet_json(*parse_tailnet(tailnet_json(tailnet))) == tailnet_json(tailnet));
    require(diff_policies(*document, *document, &tailnet).empty());
    const auto everything = Document::parse("{}");
    (void)diff_policies(*document, *everything, &tailnet).json();
    const auto policy = CompiledPolicy::compile(std::make_shared<const Document>(*document), tailnet);
    for (const auto& node : tailnet.nodes) {
        (void)preview_source(policy, node.name);
        auto answer = explain(policy, node.name, tailnet.nodes.front().addresses.front().text() + ":22");
        if (answer) (void)answer->text();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    constexpr std::size_t kMost = 4096; // larger inputs only take longer
    if (size > kMost) return 0;
    const std::string text{reinterpret_cast<const char*>(data), size};
    (void)parse_tailnet(text);
    auto tree = hujson::Tree::parse(text);
    if (!tree) return 0;
    lay_out(*tree);
    edit(*tree);
    judge(text);
    return 0;
}
