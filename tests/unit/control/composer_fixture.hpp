// What clients would read of a tailnet's maps.
#pragma once
#include "control/map/composer.hpp"
#include "control/server/policy_input.hpp"
#include "tests/unit/control/tailnet_fixture.hpp"

#include <memory>
#include <string>
#include <vector>

namespace tailrace {

struct Composer : TailnetFixture {
    MapComposer composer{tailnet, {two_regions(), proxied(), "tail.lab"}};
    std::vector<Machine> machines;
    std::shared_ptr<const CompiledPolicy> last;

    static wire::DnsConfig proxied() {
        wire::DnsConfig config;
        config.proxied = true;
        return config;
    }
    static wire::DerpMap two_regions() {
        wire::DerpMap map;
        map.regions.emplace();
        for (int id : {900, 901}) {
            wire::DerpRegion region;
            region.region_id = id;
            region.nodes.emplace_back().region_id = id;
            (*map.regions)[id] = region;
        }
        return map;
    }
    static std::vector<int> region_ids(const wire::MapResponse& map) {
        std::vector<int> out;
        for (const auto& [id, region] : *map.derp_map->regions) out.push_back(region ? id : -id);
        return out;
    }
    void join_some(int count) {
        std::string key = reusable_key();
        for (int i = 0; i < count; ++i) {
            Machine& machine = machines.emplace_back();
            machine.hostname = "host";
            ASSERT_TRUE(succeeded(join(machine, key)));
        }
        pass_on();
    }
    void pass_on() {
        for (const NodeEvent& event : tailnet.take_changes().events) composer.on_node_event(event);
    }
    void use_policy(const char* text) {
        auto document = Document::parse(text);
        ASSERT_TRUE(document) << document.error().message();
        composer.set_policy(
            compile_for(std::make_shared<const Document>(std::move(*document)), tailnet.snapshot(), last));
    }
    static std::string text_of(const FramePieces& pieces) {
        std::string body;
        for (const SharedText& piece : pieces) body += *piece;
        return body;
    }
    wire::MapResponse read(const FramePieces& pieces, MapCompression compression = MapCompression::Zstd) {
        MapFrameReader reader{compression};
        reader.feed(as_bytes(text_of(pieces)));
        auto json = reader.next();
        EXPECT_TRUE(json) << json.error().message();
        EXPECT_TRUE(json && json->has_value());
        if (!json || !*json) return {};
        auto response = wire::parse_map_response(**json);
        EXPECT_TRUE(response) << response.error().message() << "\n" << **json;
        auto more = reader.next();
        EXPECT_TRUE(more && !more->has_value());
        return response ? *response : wire::MapResponse{};
    }
    static std::vector<NodeId> ids(const std::vector<wire::Node>& nodes) {
        std::vector<NodeId> out;
        for (const wire::Node& node : nodes) out.push_back(node.id);
        return out;
    }
    MapViewer viewer(NodeId id, MapCompression compression = MapCompression::Zstd) {
        MapViewer viewer;
        viewer.id = id;
        viewer.compression = compression;
        return viewer;
    }
};

} // namespace tailrace
