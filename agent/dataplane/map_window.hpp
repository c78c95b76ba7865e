// agent/dataplane/map_window.hpp - a piece of an array map, written as memory.
#pragma once
#include "base/bytes.hpp"
#include "base/result.hpp"

#include <cstddef>
#include <utility>

namespace tailrace {

/// A copy of many megabytes takes a millisecond this way; a system call an entry would take a hundred. Mapped only
/// while somebody writes: mapped pages count as memory of the process.
class MapWindow {
public:
    /// The map has BPF_F_MMAPABLE. Bytes as the values stand one after the other; `offset` is a multiple of the page
    /// size.
    static Result<MapWindow> open(int map, std::size_t offset, std::size_t bytes);
    MapWindow(MapWindow&& other) noexcept
        : memory_(std::exchange(other.memory_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    MapWindow& operator=(MapWindow&&) = delete;
    ~MapWindow();

    /// Within the window.
    void write(std::size_t offset, BytesView contents);

private:
    MapWindow(std::byte* memory, std::size_t bytes) : memory_(memory), bytes_(bytes) {}
    std::byte* memory_;
    std::size_t bytes_;
};

} // namespace tailrace
