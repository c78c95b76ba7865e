#include "agent/dataplane/map_window.hpp"

#include <sys/mman.h>

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

void MapWindow::write(std::size_t offset, BytesView contents) {
    if (offset > bytes_ || contents.size() > bytes_ - offset) return;
    std::memcpy(memory_ + offset, contents.data(), contents.size());
}

} // namespace tailrace
