// agent/path/disco_frame.hpp - disco as people watch it: who said what to whom, opened.
#pragma once
#include "base/time.hpp"
#include "proto/disco.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tailrace {

struct DiscoFrame {
    enum class Direction { In, Out };
    Direction direction = Direction::In;
    Endpoint via; ///< the other side's address; relay_endpoint(region) over a relay, region 0 where it is not known
    NodeKey peer;
    DiscoMessage message;
    std::optional<std::uint32_t> vni; ///< through a relay server at `via`
};

/// One JSON object without a line end. `lost`: frames before it that nobody could be told of. Nothing in it is secret:
/// transaction numbers and public keys travel with every frame.
std::string write_disco_frame(const DiscoFrame& frame, const WallTime& now, std::string_view peer_name,
                              std::uint64_t lost);

} // namespace tailrace
