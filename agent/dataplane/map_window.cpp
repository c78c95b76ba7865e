#include "agent/dataplane/map_window.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tailrace {

Result<MapWindow> MapWindow::open(int map, std::size_t offset, std::size_t bytes) {
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map, static_cast<off_t>(offset));
    if (memory == MAP_FAILED) return Error::from_errno(errno, "map {} bytes at {}", bytes, offset);
    return MapWindow{static_cast<std::byte*>(memory), bytes};
}

MapWindow::~MapWindow() {
    if (memory_) ::munmap(memory_, bytes_);
}

std::size_t MapWindow::bring_to(BytesView wanted, std::size_t piece) {
    constexpr std::size_t kBlock = 8192; // compared at once: most of a small change is the same
    std::size_t changed = 0, end = std::min(wanted.size(), bytes_);
    for (std::size_t block = 0; block < end; block += kBlock) {
        std::size_t block_end = std::min(block + kBlock, end);
        if (std::memcmp(memory_ + block, wanted.data() + block, block_end - block) == 0) continue;
        for (std::size_t at = block; at < block_end; at += piece) {
            std::size_t bytes = std::min(piece, block_end - at);
            if (std::memcmp(memory_ + at, wanted.data() + at, bytes) == 0) continue;
            std::memcpy(memory_ + at, wanted.data() + at, bytes);
            ++changed;
        }
    }
    return changed;
}

} // namespace tailrace
