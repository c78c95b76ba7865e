// policy/document_ssh.cpp - ssh, and the tests that a policy brings along.
#include "base/text.hpp"
#include "policy/document_reader.hpp"
#include "policy/words.hpp"

#include <algorithm>

namespace tailrace {

bool DocumentReader::read_ssh_rule(const Value& element) {
    constexpr std::chrono::nanoseconds kMaxCheckPeriod = std::chrono::hours{168};
    SshPolicyRule rule;
    rule.offset = element.begin;
    const Value* action = nullptr;
    const Value* users = nullptr;
    const bool read = read_object(
        element, "ssh",
        {{"action",
          [&](const Value& value) {
              action = &value;
              return expect(value, hujson::Kind::String, "action");
          }},
         {"src", [&](const Value& value) { return read_selectors(value, "src", Position::SshSource, rule.sources); }},
         {"dst",
          [&](const Value& value) {
              return read_selectors(value, "dst", Position::SshDestination, rule.destinations);
          }},
         {"users",
          [&](const Value& value) {
              users = &value;
              return read_strings(value, "users", rule.users);
          }},
         {"checkPeriod",
          [&](const Value& value) {
              std::string text;
              if (!read_string(value, "checkPeriod", text)) return false;
              if (text == "always") {
                  rule.check_period = std::chrono::nanoseconds{0};
                  return true;
              }
              auto period = parse_go_duration(text);
              if (!period) return fail(value, period.error().message());
              const auto printed = duration_text(*period);
              if (period->count() < 0)
                  return fail(value, fmt::format("checkPeriod {} must be a positive duration", printed));
              if (*period > kMaxCheckPeriod)
                  return fail(value, fmt::format("checkPeriod {} is above the max (168h)", printed));
              rule.check_period = *period;
              return true;
          }},
         {"acceptEnv",
          [&](const Value& value) {
              if (!read_strings(value, "acceptEnv", rule.accept_env)) return false;
              const auto empty = std::find(rule.accept_env.begin(), rule.accept_env.end(), "");
              if (empty == rule.accept_env.end()) return true;
              return fail(value.elements[static_cast<std::size_t>(empty - rule.accept_env.begin())],
                          "acceptEnv values cannot be empty");
          }},
         {"recorder",
          [&](const Value& value) {
              return each_element(value, "recorder", [&](const Value& item) {
                  Selector recorder;
                  if (!expect(item, hujson::Kind::String, "recorder") ||
                      !read_selector(item, trim(item.text), Position::SshSource, recorder))
                      return false;
                  if (recorder.kind != Selector::Kind::Tag) return fail(item, "recorder can only be a tag");
                  rule.recorders.push_back(recorder.text);
                  return true;
              });
          }},
         {"enforceRecorder",
          [&](const Value& value) { return read_bool(value, "enforceRecorder", rule.enforce_recorder); }},
         {"srcPosture", [&](const Value& value) { return read_posture_names(value, "srcPosture", rule.postures); }}});
    if (!read) return false;

    const auto action_name = action != nullptr ? trim(action->text) : std::string_view{};
    if (action_name.empty()) return fail(action != nullptr ? *action : element, "action must be specified");
    if (action_name != "accept" && action_name != "check")
        return fail(*action, fmt::format("{} is not a valid action", quoted(action_name)));
    rule.check = action_name == "check";
    if (rule.users.empty()) return fail(users != nullptr ? *users : element, "users must be specified");
    for (std::size_t i = 0; i < rule.users.size(); ++i) {
        if (rule.users[i].empty() || rule.users[i] == "*")
            return fail(users->elements[i], fmt::format("user {} is not valid", quoted(rule.users[i])));
    }
    if (!check_ssh_rule(rule, element)) return false;
    document_.ssh.push_back(std::move(rule));
    return true;
}

bool DocumentReader::check_ssh_rule(const SshPolicyRule& rule, const Value&) {
    using Kind = Selector::Kind;
    const auto is_tagged = [](const Selector& source) {
        return source.kind == Kind::Tag || source.is(Autogroup::Tagged);
    };
    const auto tagged_source = std::find_if(rule.sources.begin(), rule.sources.end(), is_tagged);
    if (rule.check && tagged_source != rule.sources.end())
        return fail_at(tagged_source->offset, "[ssh] \"check\" action does not support tags in src");
    for (const auto& destination : rule.destinations) {
        if (destination.kind == Kind::User) {
            if (rule.sources.size() != 1 || rule.sources.front().kind != Kind::User ||
                rule.sources.front().text != destination.text)
                return fail_at(destination.offset, "user destination requires source to contain only that same user");
        } else if (tagged_source != rule.sources.end() && destination.is(Autogroup::Self)) {
            return fail_at(destination.offset, "autogroup:self destination requires source to contain only users or "
                                               "groups, not tags or autogroup:tagged");
        } else if (tagged_source != rule.sources.end() && destination.is(Autogroup::Member)) {
            return fail_at(destination.offset,
                           "tags in SSH source cannot access autogroup:member (user-owned devices)");
        }
    }
    return true;
}

bool DocumentReader::read_test(const Value& element) {
    PolicyTest test;
    test.offset = element.begin;
    const auto read_destinations = [&](std::vector<PolicyTestDestination>& out) {
        return [this, &out](const Value& value) {
            return each_element(value, "tests", [&](const Value& item) {
                if (!expect(item, hujson::Kind::String, "tests")) return false;
                out.push_back({std::string{trim(item.text)}, item.begin});
                return true;
            });
        };
    };
    const auto read_trimmed = [&](std::string& out) {
        return [this, &out](const Value& value) {
            if (!read_string(value, "tests", out)) return false;
            out = std::string{trim(out)};
            return true;
        };
    };
    if (!refuse_both(element, "tests", {{"src", "user"}, {"accept", "allow"}})) return false;
    const bool read = read_object(element, "tests",
                                  {{"src", read_trimmed(test.source)},
                                   {"user", read_trimmed(test.source)},
                                   {"proto", read_trimmed(test.protocol)},
                                   {"accept", read_destinations(test.accept)},
                                   {"allow", read_destinations(test.accept)},
                                   {"deny", read_destinations(test.deny)},
                                   {"srcPostureAttrs", [&](const Value& value) {
                                        return read_posture_attributes(value, test.posture_attributes);
                                    }}});
    if (!read) return false;
    document_.tests.push_back(std::move(test));
    return true;
}

bool DocumentReader::read_posture_attributes(const Value& value, std::map<std::string, std::string>& out) {
    return each_member(value, "srcPostureAttrs", [&](const std::string& name, const Value&, const Value& attribute) {
        using Kind = hujson::Kind;
        if (attribute.kind != Kind::String && attribute.kind != Kind::Number && attribute.kind != Kind::Bool)
            return fail(attribute,
                        fmt::format("srcPostureAttrs[{}]: want a string, a number, true or false", quoted(name)));
        out[name] = hujson::minimize(tree_.text(), attribute);
        return true;
    });
}

bool DocumentReader::read_ssh_test(const Value& element) {
    SshTest test;
    test.offset = element.begin;
    const bool read =
        read_object(element, "sshTests",
                    {{"src",
                      [&](const Value& value) {
                          if (!read_string(value, "sshTests", test.source)) return false;
                          test.source = std::string{trim(test.source)};
                          return true;
                      }},
                     {"dst",
                      [&](const Value& value) {
                          return each_element(value, "sshTests",
                                              [&](const Value& item) { return read_ssh_test_destination(item, test); });
                      }},
                     {"accept", [&](const Value& value) { return read_strings(value, "sshTests", test.accept); }},
                     {"check", [&](const Value& value) { return read_strings(value, "sshTests", test.check); }},
                     {"deny", [&](const Value& value) { return read_strings(value, "sshTests", test.deny); }},
                     {"srcPostureAttrs",
                      [&](const Value& value) { return read_posture_attributes(value, test.posture_attributes); }}});
    if (!read) return false;
    document_.ssh_tests.push_back(std::move(test));
    return true;
}

bool DocumentReader::read_ssh_test_destination(const Value& value, SshTest& test) {
    if (!expect(value, hujson::Kind::String, "sshTests")) return false;
    const auto text = trim(value.text);
    auto selector = parse_selector(text);
    if (!selector && text.starts_with("tag:"))
        return fail(value, fmt::format("SSH tests dst contains unknown tag {}", quoted(text)));
    if (!selector) { // an unknown host or group: the test fails when it runs
        test.malformed = true;
        return true;
    }
    using Kind = Selector::Kind;
    const bool one_address =
        selector->kind == Kind::Prefix && selector->prefix.is_single() && text.find('/') == std::string_view::npos;
    if (selector->kind != Kind::Tag && selector->kind != Kind::User && !one_address)
        return fail(value, fmt::format("SSH tests dst contains disallowed element {}", quoted(text)));
    selector->offset = value.begin;
    test.destinations.push_back(std::move(*selector));
    return true;
}

} // namespace tailrace
