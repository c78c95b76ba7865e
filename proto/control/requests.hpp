// proto/control/requests.hpp - the small messages of the control protocol (control-protocol.md 1.2, 2.6, 6.10).
// Source: tailscale tailcfg/tailcfg.go.
#pragma once
#include "base/json/fields.hpp"
#include "base/net.hpp"
#include "base/time.hpp"
#include "proto/keys.hpp"

#include <map>
#include <optional>
#include <string>

namespace tailrace::wire {

/// The answer to GET /key. A zero or missing `public_key` is for the client to refuse.
struct OverTlsPublicKeyResponse {
    MachineKey legacy_public_key; ///< zero for every client of today
    MachineKey public_key;        ///< the server's Noise key; never changes while clients run
};

/// First words of a server inside Noise, optional.
struct EarlyNoise {
    ChallengeKey node_key_challenge;
    bool operator==(const EarlyNoise&) const = default;
};

struct SetDnsRequest {
    int version = 0;
    NodeKey node_key;
    std::string name, type, value;
};

struct TokenRequest {
    int cap_version = 0;
    NodeKey node_key;
    std::string audience;
};
struct TokenResponse {
    std::string id_token;
};

struct SetDeviceAttributesRequest {
    int version = 0;
    NodeKey node_key;
    std::map<std::string, RawJson> update; ///< name -> string, number, bool, or null to delete
};

struct AuditLogRequest {
    int version = 0;
    NodeKey node_key;
    std::string action, details;
    WallTime timestamp;
};

struct HealthChangeRequest {
    std::string subsys, error;
    NodeKey node_key;
};

struct QueryFeatureRequest {
    std::string feature;
    NodeKey node_key;
};
struct QueryFeatureResponse {
    bool complete = false;
    std::string text, url;
    bool should_wait = false;
};

struct WebClientAuthResponse {
    std::string id, url;
    bool complete = false;
};

/// A relay asks whether it may serve a client.
struct DerpAdmitClientRequest {
    NodeKey node_public;
    IpAddress source;
};
struct DerpAdmitClientResponse {
    bool allow = false;
};

Result<OverTlsPublicKeyResponse> parse_public_key_response(std::string_view text);
std::string write_public_key_response(const OverTlsPublicKeyResponse& response);
Result<EarlyNoise> parse_early_noise(std::string_view text);
std::string write_early_noise(const EarlyNoise& early);
Result<SetDnsRequest> parse_set_dns_request(std::string_view text);
std::string write_set_dns_request(const SetDnsRequest& request);
Result<TokenRequest> parse_token_request(std::string_view text);
std::string write_token_response(const TokenResponse& response);
Result<SetDeviceAttributesRequest> parse_set_device_attributes_request(std::string_view text);
Result<AuditLogRequest> parse_audit_log_request(std::string_view text);
std::string write_audit_log_request(const AuditLogRequest& request);
Result<HealthChangeRequest> parse_health_change_request(std::string_view text);
Result<QueryFeatureRequest> parse_query_feature_request(std::string_view text);
std::string write_query_feature_response(const QueryFeatureResponse& response);
std::string write_web_client_auth_response(const WebClientAuthResponse& response);
Result<DerpAdmitClientRequest> parse_derp_admit_request(std::string_view text);
std::string write_derp_admit_request(const DerpAdmitClientRequest& request);
Result<DerpAdmitClientResponse> parse_derp_admit_response(std::string_view text);
std::string write_derp_admit_response(const DerpAdmitClientResponse& response);

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::OverTlsPublicKeyResponse> {
    using S = wire::OverTlsPublicKeyResponse;
    static constexpr auto fields =
        field_table(field("legacyPublicKey", &S::legacy_public_key), field("publicKey", &S::public_key));
};
template <>
struct JsonFields<wire::EarlyNoise> {
    static constexpr auto fields = field_table(field("nodeKeyChallenge", &wire::EarlyNoise::node_key_challenge));
};
template <>
struct JsonFields<wire::SetDnsRequest> {
    using S = wire::SetDnsRequest;
    static constexpr auto fields =
        field_table(field("Version", &S::version), field("NodeKey", &S::node_key), field("Name", &S::name),
                    field("Type", &S::type), field("Value", &S::value));
};
template <>
struct JsonFields<wire::TokenRequest> {
    using S = wire::TokenRequest;
    static constexpr auto fields = field_table(field("CapVersion", &S::cap_version), field("NodeKey", &S::node_key),
                                               field("Audience", &S::audience));
};
template <>
struct JsonFields<wire::TokenResponse> {
    static constexpr auto fields = field_table(field("id_token", &wire::TokenResponse::id_token));
};
template <>
struct JsonFields<wire::SetDeviceAttributesRequest> {
    using S = wire::SetDeviceAttributesRequest;
    static constexpr auto fields =
        field_table(field("Version", &S::version), field("NodeKey", &S::node_key), field("Update", &S::update));
};
template <>
struct JsonFields<wire::AuditLogRequest> {
    using S = wire::AuditLogRequest;
    static constexpr auto fields =
        field_table(field("Version", &S::version, Omit::Empty), field("NodeKey", &S::node_key, Omit::Zero),
                    field("Action", &S::action), field("Details", &S::details, Omit::Empty),
                    field("Timestamp", &S::timestamp, Omit::Zero));
};
template <>
struct JsonFields<wire::HealthChangeRequest> {
    using S = wire::HealthChangeRequest;
    static constexpr auto fields =
        field_table(field("Subsys", &S::subsys), field("Error", &S::error), field("NodeKey", &S::node_key));
};
template <>
struct JsonFields<wire::QueryFeatureRequest> {
    using S = wire::QueryFeatureRequest;
    static constexpr auto fields =
        field_table(field("Feature", &S::feature, Omit::Empty), field("NodeKey", &S::node_key, Omit::Zero));
};
template <>
struct JsonFields<wire::QueryFeatureResponse> {
    using S = wire::QueryFeatureResponse;
    static constexpr auto fields =
        field_table(field("Complete", &S::complete, Omit::Empty), field("Text", &S::text, Omit::Empty),
                    field("URL", &S::url, Omit::Empty), field("ShouldWait", &S::should_wait, Omit::Empty));
};
template <>
struct JsonFields<wire::WebClientAuthResponse> {
    using S = wire::WebClientAuthResponse;
    static constexpr auto fields = field_table(field("ID", &S::id, Omit::Empty), field("URL", &S::url, Omit::Empty),
                                               field("Complete", &S::complete, Omit::Empty));
};
template <>
struct JsonFields<wire::DerpAdmitClientRequest> {
    using S = wire::DerpAdmitClientRequest;
    static constexpr auto fields = field_table(field("NodePublic", &S::node_public), field("Source", &S::source));
};
template <>
struct JsonFields<wire::DerpAdmitClientResponse> {
    static constexpr auto fields = field_table(field("Allow", &wire::DerpAdmitClientResponse::allow));
};

} // namespace tailrace
