// agent/dataplane/bpffs.hpp - where our programs, links and maps live on when the agent does not.
#pragma once
#include "base/fd.hpp"
#include "base/result.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// The directory of pins that belongs to one device: BPFFS/tailrace/vN/DEVICE, with @INODE of the network namespace
/// behind it outside the machine's own (names of devices are unique only within one). Mounts bpffs when nobody did.
class PinDirectory {
public:
    static Result<PinDirectory> open(const std::string& bpffs, const std::string& device, unsigned schema);
    /// The same, there or not.
    static PinDirectory named(const std::string& bpffs, const std::string& device, unsigned schema);
    /// Those of the same device that other schemas have, the newest first. Makes and mounts nothing.
    static Result<std::vector<PinDirectory>> others(const std::string& bpffs, const std::string& device,
                                                    unsigned schema);

    unsigned schema() const { return schema_; }
    const std::string& path() const { return path_; }
    std::string path_of(const std::string& name) const { return path_ + "/" + name; }

    /// The pinned object; no descriptor when there is none. An error says nothing of whether there is one.
    Result<Fd> find(const std::string& name) const;
    /// The same where it is no matter why there is none.
    Fd get(const std::string& name) const;
    /// Replaces what has that name.
    Result<void> pin(int object, const std::string& name) const;
    Result<void> unpin(const std::string& name) const;
    /// Of all that is pinned here; none where there is no directory.
    Result<std::vector<std::string>> names() const;
    Result<void> unpin_all() const;
    /// Removes the directory if nothing is left in it.
    void remove_if_empty() const;

private:
    PinDirectory(std::string path, unsigned schema) : path_(std::move(path)), schema_(schema) {}
    std::string path_;
    unsigned schema_;
};

/// Turns libbpf's chatter into error text: keeps what this thread's libbpf calls complained about.
class LibbpfComplaints {
public:
    LibbpfComplaints();
    /// ": " and the last complaint, or nothing.
    std::string text() const;
};

/// A second owner of what libbpf's objects close when they go.
Fd duplicate(int fd);

} // namespace tailrace
