#include "agent/doctor/ethtool.hpp"

#include "base/fd.hpp"

#include <cstring>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <vector>

namespace tailrace {
namespace {

bool ask(const Fd& socket, const std::string& interface, void* question) {
    ifreq request{};
    interface.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_data = static_cast<char*>(question);
    return ::ioctl(socket.get(), SIOCETHTOOL, &request) == 0;
}

/// The kernel's variable-sized structs, with room for their tails.
template <typename Head>
struct Room {
    explicit Room(std::size_t tail_bytes) : words((sizeof(Head) + tail_bytes) / 8 + 1) {}
    Head* head() { return reinterpret_cast<Head*>(words.data()); }
    std::vector<std::uint64_t> words;
};

} // namespace

std::map<std::string, bool> interface_features(const std::string& interface) {
    std::map<std::string, bool> out;
    Fd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    if (!socket) return out;
    Room<ethtool_sset_info> sizes{sizeof(std::uint32_t)};
    sizes.head()->cmd = ETHTOOL_GSSET_INFO;
    sizes.head()->sset_mask = 1ULL << ETH_SS_FEATURES;
    if (!ask(socket, interface, sizes.head()) || sizes.head()->sset_mask == 0) return out;
    std::uint32_t count = sizes.head()->data[0];
    constexpr std::uint32_t kMost = 1024;
    if (count == 0 || count > kMost) return out;
    Room<ethtool_gstrings> names{std::size_t{count} * ETH_GSTRING_LEN};
    names.head()->cmd = ETHTOOL_GSTRINGS;
    names.head()->string_set = ETH_SS_FEATURES;
    names.head()->len = count;
    std::uint32_t blocks = (count + 31) / 32;
    Room<ethtool_gfeatures> features{blocks * sizeof(ethtool_get_features_block)};
    features.head()->cmd = ETHTOOL_GFEATURES;
    features.head()->size = blocks;
    if (!ask(socket, interface, names.head()) || !ask(socket, interface, features.head())) return out;
    for (std::uint32_t i = 0; i < count; ++i) {
        const char* name = reinterpret_cast<const char*>(names.head()->data) + std::size_t{i} * ETH_GSTRING_LEN;
        out[std::string{name, ::strnlen(name, ETH_GSTRING_LEN)}] =
            (features.head()->features[i / 32].active >> (i % 32) & 1) != 0;
    }
    return out;
}

} // namespace tailrace
