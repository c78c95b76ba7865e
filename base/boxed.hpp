// base/boxed.hpp - a std::optional for what is large and mostly absent.
#pragma once
#include <memory>
#include <utility>

namespace tailrace {

/// A value on the heap, or none: as large as a pointer. Copies copy the value.
template <typename T>
class Boxed {
public:
    using value_type = T;

    Boxed() = default;
    Boxed(T value) : value_(std::make_unique<T>(std::move(value))) {}
    Boxed(const Boxed& other) : value_(other.value_ ? std::make_unique<T>(*other.value_) : nullptr) {}
    Boxed(Boxed&&) noexcept = default;
    Boxed& operator=(Boxed other) noexcept {
        value_ = std::move(other.value_);
        return *this;
    }
    ~Boxed() = default;

    explicit operator bool() const { return value_ != nullptr; }
    T& operator*() { return *value_; }
    const T& operator*() const { return *value_; }
    T* operator->() { return value_.get(); }
    const T* operator->() const { return value_.get(); }
    T& emplace() { return *(value_ = std::make_unique<T>()); }
    void reset() { value_.reset(); }

    bool operator==(const Boxed& other) const {
        return value_ && other.value_ ? *value_ == *other.value_ : value_ == other.value_;
    }

private:
    std::unique_ptr<T> value_;
};

} // namespace tailrace
