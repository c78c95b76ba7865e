// base/file.hpp - whole files, read at once and replaced atomically.
#pragma once
#include "base/result.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <sys/types.h>

namespace tailrace {

/// Fails on files larger than `limit_bytes`. code() is ENOENT when there is none.
Result<std::string> read_file(const std::string& path, std::size_t limit_bytes = 64 << 20);
/// Writes a neighbour, syncs it and renames it over `path`: readers see the old content or the new, also after a crash.
Result<void> write_file_atomically(const std::string& path, std::string_view content, mode_t mode);
/// Creates the directory and its parents where missing; `mode` is for the last one.
Result<void> make_directories(const std::string& path, mode_t mode);

} // namespace tailrace
