#include "agent/dataplane/local_addresses.hpp"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstring>
#include <set>

namespace tailrace {

tr_local_key local_key(const IpAddress& address) {
    tr_local_key key{};
    key.family = address.is_v4() ? 4 : 6;
    std::memcpy(key.addr.bytes, address.bytes().data(), address.bytes().size());
    return key;
}

Result<void> write_local_addresses(int map, const std::vector<IpAddress>& addresses) {
    auto before = [](const tr_local_key& a, const tr_local_key& b) { return std::memcmp(&a, &b, sizeof a) < 0; };
    std::set<tr_local_key, decltype(before)> wanted(before), present(before);
    for (const IpAddress& address : addresses)
        if (address.valid()) wanted.insert(local_key(address));
    tr_local_key key{}, next{};
    for (bool first = true; ::bpf_map_get_next_key(map, first ? nullptr : &key, &next) == 0; first = false) {
        present.insert(next);
        key = next;
    }
    std::uint32_t one = 1;
    for (const tr_local_key& old : present)
        if (!wanted.count(old) && ::bpf_map_delete_elem(map, &old) != 0 && errno != ENOENT)
            return Error::from_errno(errno, "forget a local address");
    for (const tr_local_key& fresh : wanted)
        if (!present.count(fresh) && ::bpf_map_update_elem(map, &fresh, &one, BPF_ANY) != 0)
            return Error::from_errno(errno, "tell the packet programs a local address");
    return {};
}

} // namespace tailrace
