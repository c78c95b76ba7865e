#include "agent/dataplane/bpffs.hpp"

#include "base/text.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <memory>

namespace tailrace {
namespace {

Result<void> ensure_mounted(const std::string& bpffs) {
    struct statfs about {};
    if (::statfs(bpffs.c_str(), &about) == 0 && static_cast<unsigned long>(about.f_type) == BPF_FS_MAGIC) return {};
    if (::mkdir(bpffs.c_str(), 0700) != 0 && errno != EEXIST) return Error::from_errno(errno, "create {}", bpffs);
    if (::mount("bpf", bpffs.c_str(), "bpf", 0, "mode=0700") != 0)
        return Error::from_errno(errno, "mount the BPF file system on {}", bpffs);
    return {};
}

Result<void> make_directories(const std::string& bpffs, const std::string& below) {
    for (std::size_t slash = 0; slash != below.npos;) {
        slash = below.find('/', slash + 1);
        std::string path = bpffs + "/" + below.substr(0, slash);
        if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return Error::from_errno(errno, "create {}", path);
    }
    return {};
}

/// "@4026532281", or nothing in the namespace of the machine's first process.
std::string namespace_suffix() {
    struct stat ours {
    }, machine{};
    if (::stat("/proc/self/ns/net", &ours) != 0) return "";
    if (::stat("/proc/1/ns/net", &machine) == 0 && ours.st_ino == machine.st_ino) return "";
    return fmt::format("@{}", ours.st_ino);
}

std::string below_bpffs(const std::string& device, unsigned schema) {
    return fmt::format("tailrace/v{}/{}{}", schema, device, namespace_suffix());
}

/// None where there is no such directory.
Result<std::vector<std::string>> entries_of(const std::string& path) {
    std::vector<std::string> found;
    std::unique_ptr<DIR, int (*)(DIR*)> directory{::opendir(path.c_str()), &::closedir};
    if (!directory && errno == ENOENT) return found;
    if (!directory) return Error::from_errno(errno, "look into {}", path);
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(directory.get());
        if (!entry && errno != 0) return Error::from_errno(errno, "look into {}", path);
        if (!entry) return found;
        if (std::string name = entry->d_name; name != "." && name != "..") found.push_back(name);
    }
}

} // namespace

Result<PinDirectory> PinDirectory::open(const std::string& bpffs, const std::string& device, unsigned schema) {
    if (auto mounted = ensure_mounted(bpffs); !mounted) return mounted.error();
    std::string below = below_bpffs(device, schema);
    if (auto made = make_directories(bpffs, below); !made) return made.error();
    return PinDirectory{bpffs + "/" + below, schema};
}

PinDirectory PinDirectory::named(const std::string& bpffs, const std::string& device, unsigned schema) {
    return {bpffs + "/" + below_bpffs(device, schema), schema};
}

Result<std::vector<PinDirectory>> PinDirectory::others(const std::string& bpffs, const std::string& device,
                                                       unsigned schema) {
    std::vector<PinDirectory> found;
    auto names = entries_of(bpffs + "/tailrace");
    if (!names) return names.error();
    for (const std::string& name : *names) {
        if (!name.starts_with("v")) continue;
        auto number = parse_number<unsigned>(name.substr(1));
        if (!number || *number == schema) continue;
        PinDirectory other = named(bpffs, device, *number);
        struct stat about {};
        if (::stat(other.path().c_str(), &about) == 0) {
            if (S_ISDIR(about.st_mode)) found.push_back(std::move(other));
        } else if (errno != ENOENT) {
            return Error::from_errno(errno, "look for {}", other.path());
        }
    }
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.schema_ > b.schema_; });
    return found;
}

Result<Fd> PinDirectory::find(const std::string& name) const {
    Fd object{::bpf_obj_get(path_of(name).c_str())};
    if (!object && errno != ENOENT) return Error::from_errno(errno, "open {}", path_of(name));
    return object;
}

Fd PinDirectory::get(const std::string& name) const {
    return Fd{::bpf_obj_get(path_of(name).c_str())};
}

Result<void> PinDirectory::pin(int object, const std::string& name) const {
    std::string path = path_of(name);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return Error::from_errno(errno, "replace {}", path);
    if (::bpf_obj_pin(object, path.c_str()) != 0) return Error::from_errno(errno, "pin {}", path);
    return {};
}

Result<void> PinDirectory::unpin(const std::string& name) const {
    std::string path = path_of(name);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return Error::from_errno(errno, "remove {}", path);
    return {};
}

Result<std::vector<std::string>> PinDirectory::names() const {
    return entries_of(path_);
}

Result<void> PinDirectory::unpin_all() const {
    auto pinned = names();
    if (!pinned) return pinned.error();
    for (const std::string& name : *pinned)
        if (auto gone = unpin(name); !gone) return gone;
    return {};
}

void PinDirectory::remove_if_empty() const {
    std::string path = path_; // BPFFS/tailrace/vN/DEVICE
    for (int level = 0; level < 3; ++level) {
        if (::rmdir(path.c_str()) != 0) return; // something is left, of ours or of another device
        path.resize(path.rfind('/'));
    }
}

namespace {

thread_local std::string last_complaint;

__attribute__((format(printf, 2, 0))) int keep_complaint(libbpf_print_level level, const char* format, va_list args) {
    if (level != LIBBPF_WARN) return 0;
    char line[512];
    int written = std::vsnprintf(line, sizeof line, format, args);
    last_complaint = line;
    while (!last_complaint.empty() && last_complaint.back() == '\n') last_complaint.pop_back();
    return written;
}

} // namespace

LibbpfComplaints::LibbpfComplaints() {
    ::libbpf_set_print(&keep_complaint);
    last_complaint.clear();
}

std::string LibbpfComplaints::text() const {
    return last_complaint.empty() ? "" : ": " + last_complaint;
}

Fd duplicate(int fd) {
    return Fd{::fcntl(fd, F_DUPFD_CLOEXEC, 0)};
}

} // namespace tailrace
