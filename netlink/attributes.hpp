// Reading the attributes of a netlink message by type. Only for .cpp files of this folder.
#pragma once
#include "base/net.hpp"

#include <libmnl/libmnl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace tailrace {

/// Calls `on_each(const nlattr*)` for every well-formed attribute in these bytes. libmnl's macros for it are C only.
template <typename OnEach>
void for_each_attribute(BytesView bytes, OnEach&& on_each) {
    while (bytes.size() >= NLA_HDRLEN) {
        const auto* attribute = reinterpret_cast<const nlattr*>(bytes.data());
        if (attribute->nla_len < NLA_HDRLEN || attribute->nla_len > bytes.size()) return;
        on_each(attribute);
        bytes = bytes.subspan(std::min<std::size_t>(NLA_ALIGN(attribute->nla_len), bytes.size()));
    }
}
inline BytesView payload_of(const nlattr* attribute) {
    if (attribute == nullptr) return {};
    return {static_cast<const std::byte*>(mnl_attr_get_payload(attribute)), mnl_attr_get_payload_len(attribute)};
}

/// The attributes of one message or nest, at most one of each type. Types past kMost are of no interest to us.
class Attributes {
public:
    static constexpr std::size_t kMost = 64;

    static Attributes of_message(const nlmsghdr& message, std::size_t header_size_bytes) {
        Attributes found;
        const std::size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(header_size_bytes);
        if (message.nlmsg_len < skip) return found;
        BytesView body{reinterpret_cast<const std::byte*>(&message) + skip, message.nlmsg_len - skip};
        for_each_attribute(body, [&](const nlattr* attribute) { found.remember(attribute); });
        return found;
    }
    static Attributes of_nest(const nlattr* nest) {
        Attributes found;
        for_each_attribute(payload_of(nest), [&](const nlattr* attribute) { found.remember(attribute); });
        return found;
    }

    const nlattr* get(unsigned type) const { return type < kMost ? by_type_[type] : nullptr; }
    bool has(unsigned type) const { return get(type) != nullptr; }

    template <typename T>
    std::optional<T> value(unsigned type) const {
        const nlattr* attribute = get(type);
        if (attribute == nullptr || mnl_attr_get_payload_len(attribute) < sizeof(T)) return std::nullopt;
        T value;
        std::memcpy(&value, mnl_attr_get_payload(attribute), sizeof value);
        return value;
    }
    std::uint32_t u32(unsigned type, std::uint32_t otherwise = 0) const {
        return value<std::uint32_t>(type).value_or(otherwise);
    }
    BytesView bytes(unsigned type) const { return payload_of(get(type)); }
    /// Up to the first NUL.
    std::string_view text(unsigned type) const {
        std::string_view all = as_chars(bytes(type));
        return all.substr(0, all.find('\0'));
    }
    IpAddress address(unsigned type) const { return IpAddress::from_bytes(bytes(type)); }

private:
    void remember(const nlattr* attribute) {
        std::uint16_t type = mnl_attr_get_type(attribute);
        if (type < kMost) by_type_[type] = attribute;
    }
    std::array<const nlattr*, kMost> by_type_{};
};

/// The fixed header after the netlink header; the zero value when the message is too short for one.
template <typename T>
T header_of(const nlmsghdr& message) {
    T header{};
    if (message.nlmsg_len >= NLMSG_HDRLEN + sizeof(T))
        std::memcpy(&header, reinterpret_cast<const char*>(&message) + NLMSG_HDRLEN, sizeof header);
    return header;
}

} // namespace tailrace
