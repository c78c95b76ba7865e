// proto/control/map.hpp - the map poll: what a node asks for and what it is told (control-protocol.md 5.1, 5.4, 5.5).
// Source: tailscale tailcfg/tailcfg.go.
#pragma once
#include "base/json/fields.hpp"
#include "base/time.hpp"
#include "proto/control/derp_map.hpp"
#include "proto/control/dns.hpp"
#include "proto/control/filter.hpp"
#include "proto/control/hostinfo.hpp"
#include "proto/control/node.hpp"
#include "proto/control/ssh.hpp"
#include "proto/keys.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace::wire {

/// How a client knows one of its endpoints. Numbers of tailcfg.EndpointType.
enum class EndpointType : int {
    Unknown = 0,
    Local = 1,
    Stun = 2,
    PortMapped = 3,
    Stun4LocalPort = 4, ///< behind a hard NAT: the STUN address with the local port
    Explicit = 5,
};

/// Among the debug flags of a node that ends and will be back in a moment. Servers that do not know it ignore it.
inline constexpr std::string_view kRestartingFlag = "tailrace-restarting";
/// Among those of a node that wants to know where in the policy its rules are written: MapResponse::policy_lines.
inline constexpr std::string_view kPolicyLinesFlag = "tailrace-policy-lines";

struct MapRequest {
    int version = 0;
    std::string compress; ///< "zstd" or ""
    bool keep_alive = false;
    NodeKey node_key;
    DiscoKey disco_key;
    std::string hardware_attestation_key;
    Bytes hardware_attestation_key_signature;
    WallTime hardware_attestation_key_signature_timestamp;
    bool stream = false;
    Kept<Hostinfo> hostinfo;
    std::string map_session_handle;
    std::int64_t map_session_seq = 0;
    std::vector<Endpoint> endpoints;
    std::vector<int> endpoint_types; ///< parallel to `endpoints`; EndpointType
    std::string tka_head;
    bool read_only = false;
    bool omit_peers = false;
    std::vector<std::string> debug_flags;
    std::string connection_handle_for_test;

    /// A lite update stores what it says and gets an empty 200 (table in 5.1).
    bool is_lite_update() const { return !stream && omit_peers && !read_only; }
};

/// Asks the client to prove that it lives, or to run a request of ours (5.7).
struct PingRequest {
    std::string url; ///< equal to the previous one: ignored
    bool url_is_noise = false;
    bool log = false;
    std::string types; ///< "", "c2n", or a list of disco, TSMP, ICMP, peerapi
    IpAddress ip;
    Bytes payload; ///< for c2n: a raw HTTP/1.x request
    bool operator==(const PingRequest&) const = default;
};

struct PingResponse {
    std::string type, ip, node_ip, node_name, err;
    double latency_seconds = 0;
    std::string endpoint, peer_relay;
    int derp_region_id = 0;
    std::string derp_region_code;
    std::uint16_t peer_api_port = 0;
    bool is_local_ip = false;
};

struct DisplayMessageAction {
    std::string url, label;
    bool operator==(const DisplayMessageAction&) const = default;
};

struct DisplayMessage {
    std::string title, text, severity; ///< severity: high, medium, low
    bool impacts_connectivity = false;
    std::optional<DisplayMessageAction> primary_action;
    bool operator==(const DisplayMessage&) const = default;
};

struct TkaInfo {
    std::string head;
    bool disabled = false;
    bool operator==(const TkaInfo&) const = default;
};

struct ControlIpCandidate {
    IpAddress ip;
    std::string ace_host;
    double dial_start_delay_sec = 0, dial_timeout_sec = 0;
    int priority = 0;
    bool operator==(const ControlIpCandidate&) const = default;
};

struct ControlDialPlan {
    std::vector<ControlIpCandidate> candidates;
    bool operator==(const ControlDialPlan&) const = default;
};

struct ClientVersion {
    bool running_latest = false;
    std::string latest_version;
    bool urgent_security_update = false, notify = false;
    std::string notify_url, notify_text;
    bool operator==(const ClientVersion&) const = default;
};

/// Obeyed by clients before anything else in the frame: never send it by accident.
struct Debug {
    double sleep_seconds = 0;
    bool disable_log_tail = false;
    std::optional<int> exit;
    bool operator==(const Debug&) const = default;
};

/// One frame of the map stream. Absent means "no statement"; the table of 5.4 says what empty means. `NodeJson` is
/// Node for whoever reads it, RawJsonView for a server that wrote each node once and splices it into many frames.
template <typename NodeJson>
struct BasicMapResponse {
    std::string map_session_handle;
    std::int64_t seq = 0;
    bool keep_alive = false;
    std::optional<PingRequest> ping_request;
    std::string pop_browser_url;
    std::optional<NodeJson> node;
    std::optional<DerpMap> derp_map;
    std::optional<std::vector<NodeJson>> peers; ///< the full list; an empty one is no statement
    std::vector<NodeJson> peers_changed;
    std::vector<NodeId> peers_removed;
    std::vector<PeerChange> peers_changed_patch;
    std::map<NodeId, bool> peer_seen_change, online_change;
    std::optional<DnsConfig> dns_config;
    std::string domain;
    std::optional<bool> collect_services;
    std::optional<std::vector<FilterRule>> packet_filter; ///< empty blocks everything
    std::optional<std::map<std::string, std::optional<std::vector<FilterRule>>>> packet_filters;
    /// Ours, for who asked (kPolicyLinesFlag): of each rule of the filter, which it follows or goes with. Not a member
    /// of the rules, so that an edit that only moves lines is a few numbers and no new filter.
    std::optional<std::vector<RuleLines>> policy_lines;
    std::vector<UserProfile> user_profiles;
    std::optional<std::vector<std::string>> health; ///< empty: healthy again
    std::optional<std::map<std::string, std::optional<DisplayMessage>>> display_messages;
    std::optional<SshPolicy> ssh_policy;
    std::optional<WallTime> control_time;
    std::optional<TkaInfo> tka_info;
    std::string domain_data_plane_audit_log_id;
    std::optional<Debug> debug;
    std::optional<ControlDialPlan> control_dial_plan;
    std::optional<ClientVersion> client_version;
    std::optional<bool> default_auto_update;
};

using MapResponse = BasicMapResponse<Node>;
/// The views must outlive the call of write_map_response.
using SplicedMapResponse = BasicMapResponse<RawJsonView>;

Result<MapRequest> parse_map_request(std::string_view text);
std::string write_map_request(const MapRequest& request);
Result<MapResponse> parse_map_response(std::string_view text);
std::string write_map_response(const MapResponse& response);
std::string write_map_response(const SplicedMapResponse& response);
Result<PingResponse> parse_ping_response(std::string_view text);
std::string write_ping_response(const PingResponse& response);
std::string write_peer_change(const PeerChange& change);
/// The endpoints of a lite update that are of use to others: no link-local ones, no zero ones, at most `limit`.
std::vector<Endpoint> usable_endpoints(const MapRequest& request, std::size_t limit = 256);

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::MapRequest> {
    using S = wire::MapRequest;
    static constexpr auto fields = field_table(
        field("Version", &S::version), field("Compress", &S::compress, Omit::Empty),
        field("KeepAlive", &S::keep_alive, Omit::Empty), field("NodeKey", &S::node_key),
        field("DiscoKey", &S::disco_key), field("HardwareAttestationKey", &S::hardware_attestation_key, Omit::Empty),
        field("HardwareAttestationKeySignature", &S::hardware_attestation_key_signature, Omit::Empty),
        field("HardwareAttestationKeySignatureTimestamp", &S::hardware_attestation_key_signature_timestamp, Omit::Zero),
        field("Stream", &S::stream, Omit::Empty), field("Hostinfo", &S::hostinfo),
        field("MapSessionHandle", &S::map_session_handle, Omit::Empty),
        field("MapSessionSeq", &S::map_session_seq, Omit::Empty), field("Endpoints", &S::endpoints, Omit::Empty),
        field("EndpointTypes", &S::endpoint_types, Omit::Empty), field("TKAHead", &S::tka_head, Omit::Empty),
        field("ReadOnly", &S::read_only, Omit::Empty), field("OmitPeers", &S::omit_peers, Omit::Empty),
        field("DebugFlags", &S::debug_flags, Omit::Empty),
        field("ConnectionHandleForTest", &S::connection_handle_for_test, Omit::Empty));
};

template <>
struct JsonFields<wire::PingRequest> {
    using S = wire::PingRequest;
    static constexpr auto fields =
        field_table(field("URL", &S::url), field("URLIsNoise", &S::url_is_noise, Omit::Empty),
                    field("Log", &S::log, Omit::Empty), field("Types", &S::types, Omit::Empty),
                    field("IP", &S::ip, Omit::Zero), field("Payload", &S::payload, Omit::Empty));
};

template <>
struct JsonFields<wire::PingResponse> {
    using S = wire::PingResponse;
    static constexpr auto fields = field_table(
        field("Type", &S::type), field("IP", &S::ip, Omit::Empty), field("NodeIP", &S::node_ip, Omit::Empty),
        field("NodeName", &S::node_name, Omit::Empty), field("Err", &S::err, Omit::Empty),
        field("LatencySeconds", &S::latency_seconds, Omit::Empty), field("Endpoint", &S::endpoint, Omit::Empty),
        field("PeerRelay", &S::peer_relay, Omit::Empty), field("DERPRegionID", &S::derp_region_id, Omit::Empty),
        field("DERPRegionCode", &S::derp_region_code, Omit::Empty),
        field("PeerAPIPort", &S::peer_api_port, Omit::Empty), field("IsLocalIP", &S::is_local_ip, Omit::Empty));
};

template <>
struct JsonFields<wire::DisplayMessageAction> {
    using S = wire::DisplayMessageAction;
    static constexpr auto fields = field_table(field("URL", &S::url), field("Label", &S::label));
};

template <>
struct JsonFields<wire::DisplayMessage> {
    using S = wire::DisplayMessage;
    static constexpr auto fields =
        field_table(field("Title", &S::title), field("Text", &S::text), field("Severity", &S::severity),
                    field("ImpactsConnectivity", &S::impacts_connectivity, Omit::Empty),
                    field("PrimaryAction", &S::primary_action, Omit::Empty));
};

template <>
struct JsonFields<wire::TkaInfo> {
    using S = wire::TkaInfo;
    static constexpr auto fields =
        field_table(field("Head", &S::head, Omit::Empty), field("Disabled", &S::disabled, Omit::Empty));
};

template <>
struct JsonFields<wire::ControlIpCandidate> {
    using S = wire::ControlIpCandidate;
    static constexpr auto fields = field_table(
        field("IP", &S::ip, Omit::Zero), field("ACEHost", &S::ace_host, Omit::Empty),
        field("DialStartDelaySec", &S::dial_start_delay_sec, Omit::Empty),
        field("DialTimeoutSec", &S::dial_timeout_sec, Omit::Empty), field("Priority", &S::priority, Omit::Empty));
};

template <>
struct JsonFields<wire::ControlDialPlan> {
    static constexpr auto fields = field_table(field("Candidates", &wire::ControlDialPlan::candidates));
};

template <>
struct JsonFields<wire::ClientVersion> {
    using S = wire::ClientVersion;
    static constexpr auto fields =
        field_table(field("RunningLatest", &S::running_latest, Omit::Empty),
                    field("LatestVersion", &S::latest_version, Omit::Empty),
                    field("UrgentSecurityUpdate", &S::urgent_security_update, Omit::Empty),
                    field("Notify", &S::notify, Omit::Empty), field("NotifyURL", &S::notify_url, Omit::Empty),
                    field("NotifyText", &S::notify_text, Omit::Empty));
};

template <>
struct JsonFields<wire::Debug> {
    using S = wire::Debug;
    static constexpr auto fields =
        field_table(field("SleepSeconds", &S::sleep_seconds, Omit::Empty),
                    field("DisableLogTail", &S::disable_log_tail, Omit::Empty), field("Exit", &S::exit, Omit::Empty));
};

template <typename NodeJson>
struct JsonFields<wire::BasicMapResponse<NodeJson>> {
    using S = wire::BasicMapResponse<NodeJson>;
    static constexpr auto fields = field_table(
        field("MapSessionHandle", &S::map_session_handle, Omit::Empty), field("Seq", &S::seq, Omit::Empty),
        field("KeepAlive", &S::keep_alive, Omit::Empty), field("PingRequest", &S::ping_request, Omit::Empty),
        field("PopBrowserURL", &S::pop_browser_url, Omit::Empty), field("Node", &S::node, Omit::Empty),
        field("DERPMap", &S::derp_map, Omit::Empty), field("Peers", &S::peers, Omit::Zero),
        field("PeersChanged", &S::peers_changed, Omit::Empty), field("PeersRemoved", &S::peers_removed, Omit::Empty),
        field("PeersChangedPatch", &S::peers_changed_patch, Omit::Empty),
        field("PeerSeenChange", &S::peer_seen_change, Omit::Empty),
        field("OnlineChange", &S::online_change, Omit::Empty), field("DNSConfig", &S::dns_config, Omit::Empty),
        field("Domain", &S::domain, Omit::Empty), field("CollectServices", &S::collect_services, Omit::Empty),
        field("PacketFilter", &S::packet_filter, Omit::Zero), field("PacketFilters", &S::packet_filters, Omit::Zero),
        field("TailracePolicyLines", &S::policy_lines, Omit::Zero),
        field("UserProfiles", &S::user_profiles, Omit::Empty), field("Health", &S::health, Omit::Zero),
        field("DisplayMessages", &S::display_messages, Omit::Zero), field("SSHPolicy", &S::ssh_policy, Omit::Empty),
        field("ControlTime", &S::control_time, Omit::Empty), field("TKAInfo", &S::tka_info, Omit::Empty),
        field("DomainDataPlaneAuditLogID", &S::domain_data_plane_audit_log_id, Omit::Empty),
        field("Debug", &S::debug, Omit::Empty), field("ControlDialPlan", &S::control_dial_plan, Omit::Empty),
        field("ClientVersion", &S::client_version, Omit::Empty),
        field("DefaultAutoUpdate", &S::default_auto_update, Omit::Empty));
};

} // namespace tailrace
