#include "base/file.hpp"

#include "base/fd.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

namespace tailrace {

Result<std::string> read_file(const std::string& path, std::size_t limit_bytes) {
    Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!fd) return Error::from_errno(errno, "open {}", path);
    std::string out;
    char buffer[65536];
    for (;;) {
        ssize_t count = ::read(fd.get(), buffer, sizeof buffer);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return Error::from_errno(errno, "read {}", path);
        if (count == 0) return out;
        out.append(buffer, static_cast<std::size_t>(count));
        if (out.size() > limit_bytes) return Error::make("read {}: larger than {} bytes", path, limit_bytes);
    }
}

Result<void> write_file_atomically(const std::string& path, std::string_view content, mode_t mode) {
    std::string neighbour = path + ".new";
    {
        Fd fd{::open(neighbour.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode)};
        if (!fd) return Error::from_errno(errno, "create {}", neighbour);
        auto fail = [&](const char* what) {
            Error error = Error::from_errno(errno, "{} {}", what, neighbour);
            ::unlink(neighbour.c_str());
            return error;
        };
        if (::fchmod(fd.get(), mode) != 0) return fail("chmod");
        std::string_view left = content;
        while (!left.empty()) {
            ssize_t count = ::write(fd.get(), left.data(), left.size());
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return fail("write");
            left.remove_prefix(static_cast<std::size_t>(count));
        }
        if (::fsync(fd.get()) != 0) return fail("sync");
    }
    if (::rename(neighbour.c_str(), path.c_str()) != 0)
        return Error::from_errno(errno, "rename {} to {}", neighbour, path);
    auto slash = path.rfind('/');
    Fd directory{::open(slash == std::string::npos ? "." : path.substr(0, slash + 1).c_str(),
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (directory) (void)::fsync(directory.get()); // best effort: the rename itself has happened
    return {};
}

Result<void> make_directories(const std::string& path, mode_t mode) {
    for (std::size_t at = 1; at != std::string::npos;) {
        at = path.find('/', at);
        std::string part = path.substr(0, at);
        if (at != std::string::npos) ++at;
        if (::mkdir(part.c_str(), at == std::string::npos ? mode : 0755) != 0 && errno != EEXIST)
            return Error::from_errno(errno, "create directory {}", part);
    }
    return {};
}

} // namespace tailrace
