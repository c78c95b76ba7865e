// base/result.hpp - errors are values: Result<T> is either a T or an Error that reads as a sentence.
#pragma once
#include <fmt/core.h>

#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace tailrace {

/// What went wrong, as a sentence that every layer makes longer at the front: "create tailrace0: TUNSETIFF: Device
/// busy".
class [[nodiscard]] Error {
public:
    template <typename... Args>
    static Error make(fmt::format_string<Args...> text, Args&&... args) {
        return Error{0, fmt::format(text, std::forward<Args>(args)...)};
    }

    /// "<what>: <text of errno>". `code` is an errno value (positive).
    template <typename... Args>
    static Error from_errno(int code, fmt::format_string<Args...> what, Args&&... args) {
        return Error{code, fmt::format("{}: {}", fmt::format(what, std::forward<Args>(args)...), errno_text(code))};
    }

    /// The same error seen from one layer up.
    template <typename... Args>
    Error with(fmt::format_string<Args...> doing, Args&&... args) const {
        return Error{code_, fmt::format("{}: {}", fmt::format(doing, std::forward<Args>(args)...), message_)};
    }

    const std::string& message() const { return message_; }
    /// The errno behind the error, 0 when there was none.
    int code() const { return code_; }

private:
    Error(int code, std::string message) : code_(code), message_(std::move(message)) {}
    static std::string errno_text(int code);

    int code_;
    std::string message_;
};

template <typename T>
class [[nodiscard]] Result {
public:
    using value_type = T;
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}     // NOLINT: a value is a success
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {} // NOLINT: an error is a failure

    explicit operator bool() const { return state_.index() == 0; }
    T& operator*() & { return std::get<0>(state_); }
    const T& operator*() const& { return std::get<0>(state_); }
    T&& operator*() && { return std::get<0>(std::move(state_)); }
    T* operator->() { return &std::get<0>(state_); }
    const T* operator->() const { return &std::get<0>(state_); }
    const Error& error() const { return std::get<1>(state_); }
    T value_or(T other) const { return *this ? **this : std::move(other); }

private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    using value_type = void;
    Result() = default;
    Result(Error error) : state_(std::move(error)) {} // NOLINT: an error is a failure

    explicit operator bool() const { return state_.index() == 0; }
    const Error& error() const { return std::get<1>(state_); }

private:
    std::variant<std::monostate, Error> state_;
};

} // namespace tailrace

template <>
struct fmt::formatter<tailrace::Error> {
    constexpr format_parse_context::iterator parse(format_parse_context& context) { return context.begin(); }
    format_context::iterator format(const tailrace::Error& error, format_context& context) const;
};
