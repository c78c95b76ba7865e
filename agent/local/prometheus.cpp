#include "agent/local/prometheus.hpp"

#include <fmt/format.h>

#include <cmath>

namespace tailrace {
namespace {

/// `quotes`: in a label's value they are escaped as well.
std::string escaped(std::string_view text, bool quotes) {
    std::string out;
    for (char c : text) {
        if (c == '\\' || (quotes && c == '"')) out += '\\';
        if (c == '\n')
            out += "\\n";
        else
            out += c;
    }
    return out;
}

} // namespace

void PrometheusText::family(std::string_view name, Type type, std::string_view help) {
    name_ = name;
    out_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escaped(help, false), name,
                        type == Type::Counter ? "counter" : "gauge");
}

void PrometheusText::begin_sample(Labels labels) {
    out_ += name_;
    bool first = true;
    for (const auto& [name, value] : labels) {
        out_ += fmt::format("{}{}=\"{}\"", first ? "{" : ",", name, escaped(value, true));
        first = false;
    }
    out_ += first ? " " : "} ";
}

void PrometheusText::write_sample(std::uint64_t value, Labels labels) {
    begin_sample(labels);
    out_ += fmt::format("{}\n", value);
}

void PrometheusText::sample(double value, Labels labels) {
    begin_sample(labels);
    out_ += std::isfinite(value) ? fmt::format("{}\n", value) : "NaN\n";
}

} // namespace tailrace
