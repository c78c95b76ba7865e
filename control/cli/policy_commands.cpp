#include "control/cli/policy_commands.hpp"

#include "base/file.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "control/cli/admin_client.hpp"
#include "control/cli/table.hpp"
#include "policy/check.hpp"
#include "policy/diff.hpp"
#include "policy/explain.hpp"
#include "policy/hujson_format.hpp"
#include "policy/lint.hpp"
#include "policy/preview.hpp"
#include "policy/quote.hpp"
#include "policy/stage.hpp"
#include "policy/tailnet_json.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>
#include <optional>
#include <unistd.h>

namespace tailrace {
namespace {

using Answer = Result<PolicyAnswer>;

// ---- what the commands work on

Result<std::string> read_standard_input() {
    constexpr std::size_t kMost = 64 << 20;
    std::string text;
    char buffer[65536];
    while (std::cin.read(buffer, sizeof buffer) || std::cin.gcount() != 0) {
        text.append(buffer, static_cast<std::size_t>(std::cin.gcount()));
        if (text.size() > kMost) return Error::make("standard input: larger than {} bytes", kMost);
    }
    return text;
}

/// The policy of a file, or the one in force.
Result<std::string> policy_text(const PolicyWords& words, const std::string& file) {
    if (!file.empty()) return read_policy_words(file);
    return ask_server(*words.socket, "GET", "/v1/policy", "");
}

Result<Document> read_document(const PolicyWords& words, const std::string& file) {
    auto text = policy_text(words, file);
    if (!text) return text.error();
    auto document = Document::parse(*text);
    if (!document) return document.error().with("{}", file.empty() ? "the policy in force" : file);
    return document;
}

/// Who is in the tailnet: as a file says, else as the server says; nothing when there is neither.
Result<std::optional<Tailnet>> load_tailnet(const PolicyWords& words) {
    std::string origin = words.tailnet_file;
    Result<std::string> text = Error::make("nothing was asked");
    if (!words.tailnet_file.empty()) {
        text = words.tailnet_file == "-" ? read_standard_input() : read_file(words.tailnet_file);
    } else if (words.offline) {
        return std::optional<Tailnet>{};
    } else {
        if (!*words.socket_is_given && ::access(words.socket->c_str(), F_OK) != 0) {
            fmt::print(stderr,
                       "note: no server at {}: judged by the names in the policy alone; --tailnet FILE says who "
                       "there is\n",
                       *words.socket);
            return std::optional<Tailnet>{};
        }
        origin = "the server's tailnet";
        text = ask_server(*words.socket, "GET", "/v1/policy/tailnet", "");
    }
    if (!text) return text.error();
    auto tailnet = parse_tailnet(*text);
    if (!tailnet) return tailnet.error().with("{}", origin);
    return std::optional<Tailnet>{std::move(*tailnet)};
}

/// A policy applied to the tailnet there is, or to the one that it describes itself.
struct Applied {
    std::shared_ptr<const CompiledPolicy> policy;
    bool imagined = false;
};

Result<Applied> applied_policy(const PolicyWords& words, std::string_view somebody = {}) {
    auto document = read_document(words, words.file);
    if (!document) return document.error();
    auto tailnet = load_tailnet(words);
    if (!tailnet) return tailnet.error();
    Applied applied;
    applied.imagined = !*tailnet;
    auto everybody = *tailnet ? std::move(**tailnet) : imagined_tailnet({&*document});
    if (applied.imagined && !is_comparable(everybody.nodes.size(), rules_in(*document)))
        return Error::make("the policy has {} rules for {} users and tags, too many to judge without knowing who there "
                           "is: --tailnet FILE says it",
                           rules_in(*document), everybody.nodes.size());
    Stage stage{std::move(everybody)};
    if (!somebody.empty()) stage.need_user(std::string{somebody}); // who has no device yet may be asked about too
    if (applied.imagined) *document = without_postures(std::move(*document));
    applied.policy = CompiledPolicy::compile(std::make_shared<const Document>(std::move(*document)), stage.tailnet());
    return applied;
}

// ---- the commands

Answer check_policy(const PolicyWords& words) {
    auto text = policy_text(words, words.file);
    if (!text) return text.error();
    auto tailnet = load_tailnet(words);
    if (!tailnet) return tailnet.error();
    auto document = *tailnet ? check(*text, **tailnet) : Document::parse(*text);
    if (!document) return document.error().with("{}", words.file);
    if (words.json) return PolicyAnswer{"{\"ok\":true}"};
    const auto tests = document->tests.size() + document->ssh_tests.size();
    if (tests == 0) return PolicyAnswer{fmt::format("{} is good", words.file)};
    return PolicyAnswer{
        *tailnet ? fmt::format("{} is good and passes its {} tests", words.file, tests)
                 : fmt::format("{} is good; its {} tests were not run, for they need a tailnet", words.file, tests)};
}

Answer lint_policy(const PolicyWords& words) {
    auto text = policy_text(words, words.file);
    if (!text) return text.error();
    auto tailnet = load_tailnet(words);
    if (!tailnet) return tailnet.error();
    std::string said;
    if (words.fix) {
        if (words.file.empty()) return Error::make("--fix needs a FILE to write to");
        auto fixed = fix_policy(*text);
        if (!fixed) return fixed.error().with("{}", words.file);
        for (const auto& unclear : fixed->unclear) fmt::print(stderr, "{}: left as it is: {}\n", words.file, unclear);
        if (words.file == "-") return PolicyAnswer{fixed->text, fixed->unclear.empty() ? 0 : 1};
        if (!fixed->changes.empty()) {
            if (auto written = write_file_atomically(words.file, fixed->text, 0644); !written) return written.error();
        }
        for (const auto& change : fixed->changes) said += fmt::format("fixed: {}\n", change);
        *text = fixed->text;
    }
    const auto findings = lint(*text, *tailnet ? &**tailnet : nullptr);
    const bool bad = std::any_of(findings.begin(), findings.end(), [](const LintFinding& finding) {
        return finding.severity != LintFinding::Severity::Note;
    });
    if (words.json) return PolicyAnswer{lint_json(findings), bad ? 1 : 0};
    said += lint_text(findings);
    return PolicyAnswer{said.empty() ? "nothing to say" : said, bad ? 1 : 0};
}

Answer format_policy(const PolicyWords& words) {
    auto text = policy_text(words, words.file);
    if (!text) return text.error();
    auto formatted = hujson::format(*text);
    if (!formatted) return formatted.error().with("{}", words.file);
    const bool differs = *formatted != *text;
    if (words.only_check)
        return PolicyAnswer{
            fmt::format("{} {}", words.file, differs ? "is not formatted: `policy fmt` does it" : "is formatted"),
            differs ? 1 : 0};
    if (words.file == "-" || words.file.empty()) return PolicyAnswer{*formatted};
    if (!differs) return PolicyAnswer{fmt::format("{} was formatted already", words.file)};
    if (auto written = write_file_atomically(words.file, *formatted, 0644); !written) return written.error();
    return PolicyAnswer{fmt::format("formatted {}", words.file)};
}

Answer diff_policy(const PolicyWords& words) {
    const bool from_force = words.second_file.empty(); // one file: compared with the policy in force
    auto before = read_document(words, from_force ? std::string{} : words.file);
    if (!before) return before.error();
    auto after = read_document(words, from_force ? words.file : words.second_file);
    if (!after) return after.error();
    auto tailnet = load_tailnet(words);
    if (!tailnet) return tailnet.error();
    const auto diff = diff_policies(*before, *after, *tailnet ? &**tailnet : nullptr);
    return PolicyAnswer{words.json ? diff.json() : diff.text()};
}

Answer explain_policy(const PolicyWords& words) {
    auto applied = applied_policy(words);
    if (!applied) return applied.error();
    auto explanation = explain(applied->policy, words.source, words.destination);
    if (!explanation) return explanation.error();
    if (applied->imagined)
        explanation->notes.emplace_back("judged for a device of everybody that the policy names; all postures count as "
                                        "fulfilled");
    const int status = explanation->verdict == Explanation::Verdict::Allowed ? 0 : 1; // for scripts
    return PolicyAnswer{words.json ? explanation->json() : explanation->text(), status};
}

Answer test_policy(const PolicyWords& words) {
    auto document = read_document(words, words.file);
    if (!document) return document.error();
    auto tailnet = load_tailnet(words);
    if (!tailnet) return tailnet.error();
    const auto failures = run_policy_tests(*document, *tailnet ? **tailnet : imagined_tailnet({&*document}));
    const auto tests = document->tests.size() + document->ssh_tests.size();
    std::string text;
    if (words.json) {
        text = fmt::format("{{\"tests\":{},\"failures\":[", tests);
        for (const auto& failure : failures) {
            const auto position = document->position_of(failure.offset);
            text += fmt::format("{}{{\"line\":{},\"column\":{},\"src\":", &failure == &failures.front() ? "" : ",",
                                position.line, position.column);
            json::append(text, failure.source);
            text += ",\"message\":";
            json::append(text, failure.message);
            text += '}';
        }
        return PolicyAnswer{text + "]}", failures.empty() ? 0 : 1};
    }
    for (const auto& failure : failures)
        text +=
            fmt::format("{}: {}: {}\n", document->position_of(failure.offset).text(), failure.source, failure.message);
    if (tests == 0) return PolicyAnswer{"the policy has no tests"};
    text += failures.empty() ? fmt::format("all {} tests hold", tests)
                             : fmt::format("{} of the expectations in {} tests do not hold", failures.size(), tests);
    return PolicyAnswer{text, failures.empty() ? 0 : 1};
}

Answer preview_policy(const PolicyWords& words) {
    if (words.source.empty() == words.destination.empty())
        return Error::make("say whose access to show: --user NAME; or who may reach what: --to ADDRESS:PORT");
    auto applied = applied_policy(words, words.source);
    if (!applied) return applied.error();
    auto preview = words.source.empty() ? preview_destination(applied->policy, words.destination)
                                        : preview_source(applied->policy, words.source);
    if (!preview) return preview.error();
    if (words.json) return PolicyAnswer{preview->json()};
    if (preview->rows.empty()) return PolicyAnswer{"nothing"};
    const bool to = words.source.empty();
    std::vector<std::vector<std::string>> rows{
        {"LINE", to ? "SOURCE" : "DESTINATION", "ACCESS", "CONDITION", "DEVICES"}};
    for (const auto& row : preview->rows) {
        std::vector<std::string> conditions;
        if (!row.via.empty()) conditions.push_back("through " + join(row.via, " or "));
        if (!row.postures.empty())
            conditions.push_back("if " + join(row.postures, " or ") + (row.fulfilled ? "" : " (no device fulfils it)"));
        rows.push_back({std::to_string(row.position.line), to ? some_of(row.sources) : row.destination, row.access,
                        conditions.empty() ? "-" : join(conditions, ", "),
                        row.devices.empty() ? "-" : some_of(row.devices, 4)});
    }
    return PolicyAnswer{render_table(rows)};
}

Answer show_tailnet(const PolicyWords& words) {
    auto text = ask_server(*words.socket, "GET", "/v1/policy/tailnet", "");
    if (!text) return text.error();
    return PolicyAnswer{std::move(*text)};
}

} // namespace

Result<std::string> read_policy_words(const std::string& file) {
    if (file != "-") return read_policy_file(file);
    auto text = read_standard_input();
    if (text && text->size() > kMostPolicyBytes) return Document::parse(*text).error(); // which says what helps
    return text;
}

void declare_policy_commands(CLI::App& group, PolicyWords& words, PolicyCommand& chosen) {
    const auto command = [&](const char* name, const char* text, Answer (*run)(const PolicyWords&)) {
        auto* made = group.add_subcommand(name, text);
        made->fallthrough();
        made->add_flag("--json", words.json, "print JSON");
        made->callback([&words, &chosen, run] { chosen = [&words, run] { return run(words); }; });
        return made;
    };
    const auto with_tailnet = [&](CLI::App* made) {
        made->add_option("--tailnet", words.tailnet_file,
                         "who is in the tailnet, as `policy tailnet` prints it (default: the server is asked)");
        made->add_flag("--offline", words.offline, "judge by the names in the policy alone");
        return made;
    };
    constexpr const char* kFile = "- for standard input";
    constexpr const char* kFileOrForce = "- for standard input (default: the policy in force)";

    with_tailnet(command("check", "say whether a policy is good and passes its tests", check_policy))
        ->add_option("FILE", words.file, kFile)
        ->required();
    auto* linter = with_tailnet(command("lint", "find rules that do something else than they seem to", lint_policy));
    linter->add_option("FILE", words.file, kFileOrForce);
    linter->add_flag("--fix", words.fix, "rewrite what can be said better without a change of meaning");
    auto* formatter = command("fmt", "lay a policy out; comments stay", format_policy);
    formatter->add_option("FILE", words.file, "- for standard input and output")->required();
    formatter->add_flag("--check", words.only_check, "only say whether it is");
    auto* diff = with_tailnet(command("diff", "say who gains and who loses what", diff_policy));
    diff->add_option("OLD", words.file, "the policy before; the only file: the new one, compared with what is in force")
        ->required();
    diff->add_option("NEW", words.second_file, "the policy after");
    auto* explainer =
        with_tailnet(command("explain", "name the line that decides, or the nearest misses", explain_policy));
    explainer->add_option("SRC", words.source, "a device, an address, a user, a group or a tag")->required();
    explainer->add_option("DST", words.destination, "DST:PORT[/PROTO], such as tag:web:443 or tag:web:53/udp")
        ->required();
    explainer->add_option("--policy", words.file, kFileOrForce);
    with_tailnet(command("test", "run the tests of a policy", test_policy))
        ->add_option("FILE", words.file, kFileOrForce);
    auto* previewer = with_tailnet(command("preview", "list what one may reach, or who may reach one", preview_policy));
    previewer->add_option("--user", words.source, "a login; also a device, a tag or a group");
    previewer->add_option("--to", words.destination, "ADDRESS:PORT");
    previewer->add_option("--policy", words.file, kFileOrForce);
    command("tailnet", "print who is in the tailnet, for --tailnet", show_tailnet);
}

} // namespace tailrace
