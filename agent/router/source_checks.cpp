#include "agent/router/source_checks.hpp"

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/text.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace tailrace {
namespace {

/// Not by a neighbour that takes its place: it is a setting of the kernel's.
Result<void> write_setting(const std::string& path, std::string_view value) {
    Fd file{::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_TRUNC)};
    if (!file || ::write(file.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()))
        return Error::from_errno(errno, "write {}", path);
    return {};
}

} // namespace

SourceChecks::Paths SourceChecks::paths_of(const std::string& device) {
    Paths paths;
    paths.memory = fmt::format("/run/tailrace/{}.src_valid_mark", device);
    return paths;
}

Result<void> SourceChecks::use_marks() {
    auto now = read_file(paths_.setting);
    if (!now) return now.error();
    if (trim(*now) != "0") return {};
    if (auto made = make_directories(paths_.memory.substr(0, paths_.memory.rfind('/')), 0755); !made) return made;
    // First this: what an agent leaves that is killed in between is given back, too.
    if (auto noted = write_file_atomically(paths_.memory, "0\n", 0600); !noted) return noted;
    return write_setting(paths_.setting, "1\n");
}

Result<void> SourceChecks::give_back() {
    auto before = read_file(paths_.memory);
    if (!before && before.error().code() == ENOENT) return {};
    if (!before) return before.error();
    auto now = read_file(paths_.setting);
    if (!now) return now.error();
    if (trim(*now) == "1")
        if (auto written = write_setting(paths_.setting, "0\n"); !written) return written;
    if (::unlink(paths_.memory.c_str()) != 0 && errno != ENOENT)
        return Error::from_errno(errno, "remove {}", paths_.memory);
    return {};
}

} // namespace tailrace
