// policy/posture.cpp - evaluates posture assertions.
#include "policy/posture.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <optional>

namespace tailrace {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

std::string_view take_run(std::string_view& rest, bool digits) {
    const auto end = std::find_if(rest.begin(), rest.end(), [&](char c) { return is_digit(c) != digits; });
    const auto size = static_cast<std::size_t>(end - rest.begin());
    const auto run = rest.substr(0, size);
    rest.remove_prefix(size);
    return run;
}

int sign_of(std::strong_ordering order) {
    return order < 0 ? -1 : order > 0 ? 1 : 0;
}

int compare_digits(std::string_view a, std::string_view b) {
    a.remove_prefix(std::min(a.find_first_not_of('0'), a.size()));
    b.remove_prefix(std::min(b.find_first_not_of('0'), b.size()));
    return sign_of(a.size() != b.size() ? a.size() <=> b.size() : a <=> b);
}

std::optional<double> to_number(const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0') return std::nullopt;
    return value;
}

bool is_version(const std::string& attribute) {
    return attribute == "node:osVersion" || attribute == "node:tsVersion";
}

bool equals(const PostureValue& value, const std::string& operand, bool is_string) {
    if (const auto* text = std::get_if<std::string>(&value)) return is_string && *text == operand;
    if (is_string) return false;
    if (const auto* truth = std::get_if<bool>(&value)) return operand == (*truth ? "true" : "false");
    return to_number(operand) == std::get<double>(value);
}

/// The order of value and operand; nothing when they can't be ordered.
std::optional<int> order(const PostureAssertion& assertion, const PostureValue& value) {
    const auto& operand = assertion.operands.front();
    if (const auto* text = std::get_if<std::string>(&value)) {
        if (!is_version(assertion.attribute)) return std::nullopt;
        return compare_versions(*text, operand);
    }
    const auto* number = std::get_if<double>(&value);
    const auto wanted = to_number(operand);
    if (number == nullptr || assertion.is_string || !wanted) return std::nullopt;
    return *number < *wanted ? -1 : *number > *wanted ? 1 : 0;
}

} // namespace

int compare_versions(std::string_view a, std::string_view b) {
    while (!a.empty() && !b.empty()) {
        const auto words = sign_of(take_run(a, false) <=> take_run(b, false));
        if (words != 0) return words;
        const auto numbers = compare_digits(take_run(a, true), take_run(b, true));
        if (numbers != 0) return numbers;
    }
    return a.empty() ? (b.empty() ? 0 : -1) : 1;
}

bool holds(const PostureAssertion& assertion, const PostureAttributes& attributes) {
    using Operator = PostureAssertion::Operator;
    const auto found = attributes.find(assertion.attribute);
    if (found == attributes.end()) return assertion.op == Operator::NotSet;
    const auto& value = found->second;
    const auto is_any = [&] {
        return std::any_of(assertion.operands.begin(), assertion.operands.end(),
                           [&](const std::string& operand) { return equals(value, operand, assertion.is_string); });
    };
    switch (assertion.op) {
    case Operator::IsSet:
        return true;
    case Operator::NotSet:
        return false;
    case Operator::Equal:
    case Operator::In:
        return is_any();
    case Operator::NotEqual:
    case Operator::NotIn:
        return !is_any();
    default:
        break;
    }
    const auto compared = order(assertion, value);
    if (!compared) return false;
    switch (assertion.op) {
    case Operator::Less:
        return *compared < 0;
    case Operator::LessOrEqual:
        return *compared <= 0;
    case Operator::Greater:
        return *compared > 0;
    default:
        return *compared >= 0;
    }
}

bool fulfils(const Document& document, const std::vector<std::string>& asked, const PostureAttributes& attributes) {
    const auto& postures = asked.empty() ? document.default_source_postures : asked;
    if (postures.empty()) return true;
    return std::any_of(postures.begin(), postures.end(), [&](const std::string& name) {
        const auto& assertions = document.postures.at(name);
        return std::all_of(assertions.begin(), assertions.end(),
                           [&](const PostureAssertion& assertion) { return holds(assertion, attributes); });
    });
}

} // namespace tailrace
