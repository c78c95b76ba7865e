// tests/unit/vectors.hpp - files of tests/vectors, found from where the test program is. (A path compiled in would be
// another in every clone, and so would be what the compiler's cache has to find.)
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace tailrace {

/// The path of tests/vectors/`name` in the checkout whose build this program is in. One that is in none finds no file.
inline std::string vector_file(std::string_view name) {
    std::error_code failure;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", failure);
    for (auto folder = program.parent_path(); folder.has_relative_path(); folder = folder.parent_path()) {
        if (const auto file = folder / "tests/vectors" / name; std::filesystem::exists(file, failure)) return file;
    }
    return std::string{name};
}

} // namespace tailrace
