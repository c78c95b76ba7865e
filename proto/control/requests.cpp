#include "proto/control/requests.hpp"

#include "base/json/json.hpp"

namespace tailrace::wire {

Result<OverTlsPublicKeyResponse> parse_public_key_response(std::string_view text) {
    return json::parse<OverTlsPublicKeyResponse>(text);
}
std::string write_public_key_response(const OverTlsPublicKeyResponse& response) {
    return json::write(response);
}
Result<EarlyNoise> parse_early_noise(std::string_view text) {
    return json::parse<EarlyNoise>(text);
}
std::string write_early_noise(const EarlyNoise& early) {
    return json::write(early);
}
Result<SetDnsRequest> parse_set_dns_request(std::string_view text) {
    return json::parse<SetDnsRequest>(text);
}
std::string write_set_dns_request(const SetDnsRequest& request) {
    return json::write(request);
}
Result<TokenRequest> parse_token_request(std::string_view text) {
    return json::parse<TokenRequest>(text);
}
std::string write_token_response(const TokenResponse& response) {
    return json::write(response);
}
Result<SetDeviceAttributesRequest> parse_set_device_attributes_request(std::string_view text) {
    return json::parse<SetDeviceAttributesRequest>(text);
}
Result<AuditLogRequest> parse_audit_log_request(std::string_view text) {
    return json::parse<AuditLogRequest>(text);
}
std::string write_audit_log_request(const AuditLogRequest& request) {
    return json::write(request);
}
Result<HealthChangeRequest> parse_health_change_request(std::string_view text) {
    return json::parse<HealthChangeRequest>(text);
}
Result<QueryFeatureRequest> parse_query_feature_request(std::string_view text) {
    return json::parse<QueryFeatureRequest>(text);
}
std::string write_query_feature_response(const QueryFeatureResponse& response) {
    return json::write(response);
}
std::string write_web_client_auth_response(const WebClientAuthResponse& response) {
    return json::write(response);
}
Result<DerpAdmitClientRequest> parse_derp_admit_request(std::string_view text) {
    return json::parse<DerpAdmitClientRequest>(text);
}
std::string write_derp_admit_request(const DerpAdmitClientRequest& request) {
    return json::write(request);
}
Result<DerpAdmitClientResponse> parse_derp_admit_response(std::string_view text) {
    return json::parse<DerpAdmitClientResponse>(text);
}
std::string write_derp_admit_response(const DerpAdmitClientResponse& response) {
    return json::write(response);
}

} // namespace tailrace::wire
