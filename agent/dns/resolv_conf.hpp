// agent/dns/resolv_conf.hpp - /etc/resolv.conf, where nothing else on the host manages DNS (dns.md 7.4, "direct").
//
// The file is written in place and never replaced: its owner, mode, labels and links stay, a file that is a mount of
// its own (containers, systemd's sandbox) is no exception, and nobody sees it empty. What stood there is kept in the
// agent's state directory first, and is put back byte for byte.
#pragma once
#include "base/net.hpp"
#include "base/result.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

inline constexpr const char* kResolvConf = "/etc/resolv.conf";

/// The text that makes programs ask `servers`; lines of options of the text before us stay.
std::string resolv_conf_text(const std::vector<IpAddress>& servers, const std::vector<std::string>& search,
                             std::string_view before);
bool is_our_resolv_conf(std::string_view text);
std::vector<std::string> search_domains_in(std::string_view resolv_conf);

enum class ResolvConfOwner { Nobody, Resolved, NetworkManager, Resolvconf };
/// By its leading comments, and by 127.0.0.53 as the only server. Source: dns.md 7.1.
ResolvConfOwner resolv_conf_owner(std::string_view text);

class ResolvConf {
public:
    ResolvConf(std::string path, std::string kept_path) : path_(std::move(path)), kept_path_(std::move(kept_path)) {}

    /// What is there now; "" when there is no file.
    Result<std::string> read() const;
    /// What is or was there without us.
    Result<std::string> original() const;
    /// Keeps what others wrote, and makes it say this. True when the file said something else before.
    Result<bool> write(std::string_view text);
    /// Puts back what was there, if it is ours now.
    Result<void> restore();
    /// Changes with the file: by whom it was written last is another matter.
    std::string stamp() const;
    /// systemd-resolved's own, which would write it again: hands off.
    bool is_managed() const;
    const std::string& path() const { return path_; }

private:
    Result<void> put(std::string_view text);

    std::string path_, kept_path_;
};

} // namespace tailrace
