// proto/control/register.hpp - how a node asks to be let in (control-protocol.md 4.1, 4.2). Source: tailscale
// tailcfg/tailcfg.go.
#pragma once
#include "base/json/fields.hpp"
#include "base/time.hpp"
#include "proto/control/hostinfo.hpp"
#include "proto/control/node.hpp"
#include "proto/keys.hpp"

#include <optional>
#include <string>

namespace tailrace::wire {

struct RegisterAuth {
    std::string auth_key;
    bool operator==(const RegisterAuth&) const = default;
};

struct RegisterRequest {
    int version = 0; ///< the client's capability version
    NodeKey node_key, old_node_key;
    NlKey nl_key;
    std::optional<RegisterAuth> auth;
    WallTime expiry; ///< zero: no wish; in the past with the current key: log out
    std::string followup;
    Kept<Hostinfo> hostinfo;
    bool ephemeral = false;
    Bytes node_key_signature;
    std::string signature_type;
    std::optional<WallTime> timestamp;
    Bytes device_cert, signature;
    std::string tailnet;
};

struct RegisterResponse {
    User user;
    Login login;
    bool node_key_expired = false;
    bool machine_authorized = false;
    std::string auth_url;
    Bytes node_key_signature;
    std::string error; ///< shown to the user word for word; everything else is ignored then
};

Result<RegisterRequest> parse_register_request(std::string_view text);
std::string write_register_request(const RegisterRequest& request);
Result<RegisterResponse> parse_register_response(std::string_view text);
std::string write_register_response(const RegisterResponse& response);

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::RegisterAuth> {
    static constexpr auto fields = field_table(field("AuthKey", &wire::RegisterAuth::auth_key, Omit::Empty));
};

template <>
struct JsonFields<wire::RegisterRequest> {
    using S = wire::RegisterRequest;
    static constexpr auto fields = field_table(
        field("Version", &S::version), field("NodeKey", &S::node_key), field("OldNodeKey", &S::old_node_key),
        field("NLKey", &S::nl_key), field("Auth", &S::auth, Omit::Empty), field("Expiry", &S::expiry),
        field("Followup", &S::followup), field("Hostinfo", &S::hostinfo),
        field("Ephemeral", &S::ephemeral, Omit::Empty), field("NodeKeySignature", &S::node_key_signature),
        field("SignatureType", &S::signature_type, Omit::Empty), field("Timestamp", &S::timestamp, Omit::Empty),
        field("DeviceCert", &S::device_cert, Omit::Empty), field("Signature", &S::signature, Omit::Empty),
        field("Tailnet", &S::tailnet, Omit::Empty));
};

template <>
struct JsonFields<wire::RegisterResponse> {
    using S = wire::RegisterResponse;
    static constexpr auto fields =
        field_table(field("User", &S::user), field("Login", &S::login), field("NodeKeyExpired", &S::node_key_expired),
                    field("MachineAuthorized", &S::machine_authorized), field("AuthURL", &S::auth_url),
                    field("NodeKeySignature", &S::node_key_signature), field("Error", &S::error));
};

} // namespace tailrace
