// agent/router/ip_forwarding.hpp - whether the kernel passes on what comes for the routes that we advertise.
#pragma once
#include "base/net.hpp"
#include "base/result.hpp"

#include <functional>
#include <string>
#include <vector>

namespace tailrace {

/// The content of a file below /proc/sys, without white space around it; an error with code() ENOENT when there is
/// none.
using ReadSetting = std::function<Result<std::string>(const std::string& path)>;
Result<std::string> read_kernel_setting(const std::string& path);

struct ForwardingQuestion {
    std::vector<IpPrefix> routes;        ///< advertised
    std::vector<IpAddress> own;          ///< of the host's interfaces: a route to one of them is forwarded nowhere
    std::vector<std::string> interfaces; ///< names, without lo
};

/// Empty when all is well, else what is wrong, in the reference client's words, which scripts and people look for.
/// Only asks: tailrace changes no such setting. Source: tailscale net/netutil/ip_forward.go.
std::string ip_forwarding_trouble(const ForwardingQuestion& question, const ReadSetting& read);

} // namespace tailrace
