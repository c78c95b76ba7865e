#include "control/admin/attributes_api.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "control/admin/failure.hpp"
#include "control/tailnet/attributes.hpp"

namespace tailrace {

using namespace admin;

std::vector<AttributeInfo> describe_attributes(const Node& node) {
    std::vector<AttributeInfo> out;
    for (const auto& [name, value] : posture_of(node)) {
        AttributeInfo& info = out.emplace_back(AttributeInfo{name, attribute_text(value), "reported", {}});
        auto set = node.record.attributes.find(name);
        if (set == node.record.attributes.end()) continue;
        info.source = "set";
        if (!set->second.expires.is_zero()) info.expires = set->second.expires;
    }
    return out;
}

Task<HttpResponse> change_attributes(AdminBackend& backend, NodeId id, std::string body) {
    auto asked = json::parse<ChangeAttributes>(body);
    if (!asked) co_return failed(400, asked.error().message());
    const WallTime now = WallTime::now();
    WallTime expires;
    if (!asked->expiry.empty()) {
        auto lifetime = parse_duration(asked->expiry);
        if (!lifetime) co_return failed(400, lifetime.error().with("expiry").message());
        if (*lifetime <= Duration{0}) co_return failed(400, "expiry: want a time to come: 90s, 8h, 30d");
        expires = now.plus(*lifetime);
    }
    std::map<std::string, std::optional<CustomAttribute>> wish;
    for (const auto& [name, text] : asked->set) {
        auto value = parse_attribute(text);
        if (!value) co_return failed(400, value.error().with("{}", name).message());
        wish[name] = CustomAttribute{std::move(*value), expires};
    }
    for (const std::string& name : asked->unset)
        if (!wish.emplace(name, std::nullopt).second)
            co_return failed(400, fmt::format("{} can't be set and unset at once", name));
    if (auto changed = backend.tailnet().change_attributes(now, id, wish); !changed)
        co_return failed(400, changed.error().message());
    auto committed = co_await backend.commit();
    if (!committed) co_return failed(500, committed.error().message());
    NodePtr node = backend.tailnet().node(id);
    if (!node) co_return failed(404, "the node has left meanwhile");
    co_return HttpResponse::json(200, json::write(describe_attributes(*node)));
}

} // namespace tailrace
