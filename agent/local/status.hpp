// agent/local/status.hpp - what `tailrace status --json` says; the reference client's field names
// (cli-localapi.md 4.1).
#pragma once
#include "base/json/fields.hpp"
#include "base/net.hpp"
#include "base/time.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

enum class BackendState : int {
    NoState = 0,
    InUseOtherUser = 1,
    NeedsLogin = 2,
    NeedsMachineAuth = 3,
    Stopped = 4,
    Starting = 5,
    Running = 6,
};
std::string_view text(BackendState state); ///< "NeedsLogin"

using CapabilityMap = std::map<std::string, std::vector<RawJson>>;

struct PeerStatus {
    std::string id;
    std::int64_t node_id = 0;
    std::string public_key;
    std::string host_name;
    std::string dns_name; ///< with trailing dot
    std::string os;
    std::int64_t user_id = 0;
    std::int64_t alt_sharer_user_id = 0;
    std::optional<std::vector<IpAddress>> tailscale_ips;
    std::vector<IpPrefix> allowed_ips;
    std::vector<std::string> tags;
    std::vector<IpPrefix> primary_routes;
    std::optional<std::vector<std::string>> addrs;
    std::string cur_addr;
    std::string relay;
    std::string peer_relay;
    std::uint64_t rx_bytes = 0;
    std::uint64_t tx_bytes = 0;
    WallTime created, last_write, last_seen, last_handshake;
    bool online = false;
    bool exit_node = false;
    bool exit_node_option = false;
    bool active = false;
    std::optional<std::vector<std::string>> peer_api_url;
    int taildrop_target = 0;
    std::string no_file_sharing_reason;
    std::vector<std::string> capabilities;
    CapabilityMap cap_map;
    std::vector<std::string> ssh_host_keys;
    bool sharee_node = false;
    bool in_network_map = false;
    bool in_magic_sock = false;
    bool in_engine = false;
    bool expired = false;
    std::optional<WallTime> key_expiry;
    std::optional<RawJson> location;
};

struct UserProfileStatus {
    std::int64_t id = 0;
    std::string login_name;
    std::string display_name;
    std::string profile_pic_url;
};

struct TailnetStatus {
    std::string name;
    std::string magic_dns_suffix;
    bool magic_dns_enabled = false;
};

struct ExitNodeStatus {
    std::string id;
    bool online = false;
    std::vector<IpPrefix> tailscale_ips;
};

struct Status {
    std::string version;
    bool tun = true;
    std::string backend_state;
    bool have_node_key = false;
    std::string auth_url;
    std::optional<std::vector<IpAddress>> tailscale_ips;
    std::optional<PeerStatus> self;
    std::optional<ExitNodeStatus> exit_node_status;
    std::optional<std::vector<std::string>> health;
    std::string magic_dns_suffix;
    std::optional<TailnetStatus> current_tailnet;
    std::optional<std::vector<std::string>> cert_domains;
    std::optional<RawJson> extra_records;
    std::optional<std::map<std::string, PeerStatus>> peer; ///< by "nodekey:<hex>"
    std::optional<std::map<std::int64_t, UserProfileStatus>> user;
    std::optional<RawJson> client_version;
};

/// The answer to a ping that a person asked for.
struct PingResult {
    std::string ip;
    std::string node_ip;
    std::string node_name;
    std::string err;
    double latency_seconds = 0;
    std::string endpoint;
    std::string peer_relay;
    int derp_region_id = 0;
    std::string derp_region_code;
    std::uint16_t peer_api_port = 0;
    std::string peer_api_url;
    bool is_local_ip = false;
};

Result<Status> parse_status(std::string_view json);
std::string write_status(const Status& status);
Result<PingResult> parse_ping_result(std::string_view json);
std::string write_ping_result(const PingResult& result);

template <>
struct JsonFields<PeerStatus> {
    static constexpr auto fields = field_table(
        field("ID", &PeerStatus::id), field("NodeID", &PeerStatus::node_id),
        field("PublicKey", &PeerStatus::public_key), field("HostName", &PeerStatus::host_name),
        field("DNSName", &PeerStatus::dns_name), field("OS", &PeerStatus::os), field("UserID", &PeerStatus::user_id),
        field("AltSharerUserID", &PeerStatus::alt_sharer_user_id, Omit::Empty),
        field("TailscaleIPs", &PeerStatus::tailscale_ips), field("AllowedIPs", &PeerStatus::allowed_ips, Omit::Empty),
        field("Tags", &PeerStatus::tags, Omit::Empty), field("PrimaryRoutes", &PeerStatus::primary_routes, Omit::Empty),
        field("Addrs", &PeerStatus::addrs), field("CurAddr", &PeerStatus::cur_addr), field("Relay", &PeerStatus::relay),
        field("PeerRelay", &PeerStatus::peer_relay), field("RxBytes", &PeerStatus::rx_bytes),
        field("TxBytes", &PeerStatus::tx_bytes), field("Created", &PeerStatus::created),
        field("LastWrite", &PeerStatus::last_write), field("LastSeen", &PeerStatus::last_seen),
        field("LastHandshake", &PeerStatus::last_handshake), field("Online", &PeerStatus::online),
        field("ExitNode", &PeerStatus::exit_node), field("ExitNodeOption", &PeerStatus::exit_node_option),
        field("Active", &PeerStatus::active), field("PeerAPIURL", &PeerStatus::peer_api_url),
        field("TaildropTarget", &PeerStatus::taildrop_target),
        field("NoFileSharingReason", &PeerStatus::no_file_sharing_reason),
        field("Capabilities", &PeerStatus::capabilities, Omit::Empty),
        field("CapMap", &PeerStatus::cap_map, Omit::Empty),
        field("sshHostKeys", &PeerStatus::ssh_host_keys, Omit::Empty),
        field("ShareeNode", &PeerStatus::sharee_node, Omit::Empty), field("InNetworkMap", &PeerStatus::in_network_map),
        field("InMagicSock", &PeerStatus::in_magic_sock), field("InEngine", &PeerStatus::in_engine),
        field("Expired", &PeerStatus::expired, Omit::Empty), field("KeyExpiry", &PeerStatus::key_expiry, Omit::Empty),
        field("Location", &PeerStatus::location, Omit::Empty));
};
template <>
struct JsonFields<UserProfileStatus> {
    static constexpr auto fields =
        field_table(field("ID", &UserProfileStatus::id), field("LoginName", &UserProfileStatus::login_name),
                    field("DisplayName", &UserProfileStatus::display_name),
                    field("ProfilePicURL", &UserProfileStatus::profile_pic_url, Omit::Empty));
};
template <>
struct JsonFields<TailnetStatus> {
    static constexpr auto fields =
        field_table(field("Name", &TailnetStatus::name), field("MagicDNSSuffix", &TailnetStatus::magic_dns_suffix),
                    field("MagicDNSEnabled", &TailnetStatus::magic_dns_enabled));
};
template <>
struct JsonFields<ExitNodeStatus> {
    static constexpr auto fields =
        field_table(field("ID", &ExitNodeStatus::id), field("Online", &ExitNodeStatus::online),
                    field("TailscaleIPs", &ExitNodeStatus::tailscale_ips));
};
template <>
struct JsonFields<Status> {
    static constexpr auto fields = field_table(
        field("Version", &Status::version), field("TUN", &Status::tun), field("BackendState", &Status::backend_state),
        field("HaveNodeKey", &Status::have_node_key, Omit::Empty), field("AuthURL", &Status::auth_url),
        field("TailscaleIPs", &Status::tailscale_ips), field("Self", &Status::self),
        field("ExitNodeStatus", &Status::exit_node_status, Omit::Empty), field("Health", &Status::health),
        field("MagicDNSSuffix", &Status::magic_dns_suffix), field("CurrentTailnet", &Status::current_tailnet),
        field("CertDomains", &Status::cert_domains), field("ExtraRecords", &Status::extra_records),
        field("Peer", &Status::peer), field("User", &Status::user), field("ClientVersion", &Status::client_version));
};
template <>
struct JsonFields<PingResult> {
    static constexpr auto fields = field_table(
        field("IP", &PingResult::ip), field("NodeIP", &PingResult::node_ip), field("NodeName", &PingResult::node_name),
        field("Err", &PingResult::err), field("LatencySeconds", &PingResult::latency_seconds),
        field("Endpoint", &PingResult::endpoint), field("PeerRelay", &PingResult::peer_relay),
        field("DERPRegionID", &PingResult::derp_region_id), field("DERPRegionCode", &PingResult::derp_region_code),
        field("PeerAPIPort", &PingResult::peer_api_port, Omit::Empty),
        field("PeerAPIURL", &PingResult::peer_api_url, Omit::Empty),
        field("IsLocalIP", &PingResult::is_local_ip, Omit::Empty));
};

} // namespace tailrace
