// agent/local/prometheus.hpp - metrics as text that Prometheus reads (its exposition format, version 0.0.4).
#pragma once
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace tailrace {

/// One family after the other: family() first, then its samples.
class PrometheusText {
public:
    using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;
    enum class Type { Counter, Gauge };

    void family(std::string_view name, Type type, std::string_view help);
    template <std::unsigned_integral Value>
    void sample(Value value, Labels labels = {}) {
        write_sample(static_cast<std::uint64_t>(value), labels);
    }
    void sample(double value, Labels labels = {});
    /// A family of one sample.
    template <typename Value>
    void single(std::string_view name, Type type, std::string_view help, Value value) {
        family(name, type, help);
        sample(value);
    }
    std::string take() { return std::move(out_); }

private:
    void write_sample(std::uint64_t value, Labels labels);
    void begin_sample(Labels labels);
    std::string out_, name_;
};

inline constexpr const char* kPrometheusContentType = "text/plain; version=0.0.4; charset=utf-8";

} // namespace tailrace
