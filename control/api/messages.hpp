// control/api/messages.hpp - the JSON of the public API (admin-api.md 1.2, 2.1, 6.1).
#pragma once
#include "base/json/fields.hpp"
#include "base/time.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace tailrace::api {

/// Every answer that is not 2xx. The other two are for the token endpoint alone: a word of RFC 6749 5.2, and the
/// message again, for stock clients show these.
struct Failure {
    std::string message, error, error_description;
};

struct AccessToken {
    std::string access_token, token_type;
    std::int64_t expires_in = 0; ///< seconds
    std::string scope;
};

/// What devices that join with an auth key may and get.
struct DeviceCreate {
    bool reusable = false, ephemeral = false, preauthorized = false;
    std::vector<std::string> tags;
};
struct DeviceCapabilities {
    DeviceCreate create;
};
struct KeyCapabilities {
    DeviceCapabilities devices;
};
struct CreateKey {
    std::string key_type, description;
    KeyCapabilities capabilities;
    std::int64_t expiry_seconds = 0;
};
struct Key {
    std::string id;
    std::string key; ///< the whole text, only in the answer to its creation
    std::string key_type, description;
    std::int64_t expiry_seconds = 0;
    WallTime created, expires;
    bool invalid = false;
    KeyCapabilities capabilities;
    std::string user_id; ///< "" for what an OAuth client made
};

} // namespace tailrace::api

namespace tailrace {

template <>
struct JsonFields<api::Failure> {
    using S = api::Failure;
    static constexpr auto fields = field_table(field("message", &S::message), field("error", &S::error, Omit::Empty),
                                               field("error_description", &S::error_description, Omit::Empty));
};
template <>
struct JsonFields<api::AccessToken> {
    using S = api::AccessToken;
    static constexpr auto fields =
        field_table(field("access_token", &S::access_token), field("token_type", &S::token_type),
                    field("expires_in", &S::expires_in), field("scope", &S::scope));
};
template <>
struct JsonFields<api::DeviceCreate> {
    using S = api::DeviceCreate;
    static constexpr auto fields = field_table(field("reusable", &S::reusable), field("ephemeral", &S::ephemeral),
                                               field("preauthorized", &S::preauthorized), field("tags", &S::tags));
};
template <>
struct JsonFields<api::DeviceCapabilities> {
    static constexpr auto fields = field_table(field("create", &api::DeviceCapabilities::create));
};
template <>
struct JsonFields<api::KeyCapabilities> {
    static constexpr auto fields = field_table(field("devices", &api::KeyCapabilities::devices));
};
template <>
struct JsonFields<api::CreateKey> {
    using S = api::CreateKey;
    static constexpr auto fields =
        field_table(field("keyType", &S::key_type), field("description", &S::description),
                    field("capabilities", &S::capabilities), field("expirySeconds", &S::expiry_seconds));
};
template <>
struct JsonFields<api::Key> {
    using S = api::Key;
    static constexpr auto fields =
        field_table(field("id", &S::id), field("key", &S::key, Omit::Empty), field("keyType", &S::key_type),
                    field("description", &S::description), field("expirySeconds", &S::expiry_seconds),
                    field("created", &S::created), field("expires", &S::expires), field("invalid", &S::invalid),
                    field("capabilities", &S::capabilities), field("userId", &S::user_id));
};

} // namespace tailrace
