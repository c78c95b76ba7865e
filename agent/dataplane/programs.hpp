// agent/dataplane/programs.hpp - the policy and the egress program with the maps that they share.
#pragma once
#include "agent/dataplane/bpffs.hpp"
#include "agent/dataplane/table_writer.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <map>
#include <string>

namespace tailrace {

struct ProgramOptions {
    std::uint32_t l2_bytes = 0;                     ///< 14 in test runs, which put an Ethernet header before the packet
    std::map<std::string, std::uint32_t> map_sizes; ///< name of a map -> entries, where not as in bpf/maps.bpf.h
    const PinDirectory* pins = nullptr; ///< where maps are looked for and pinned; null: they stay ours alone
};

struct PacketPrograms {
    Fd policy, egress;
    std::map<std::string, Fd> maps;

    /// Own descriptors of the maps that hold policies.
    Result<TableMaps> table_maps() const;
};

/// Verifies and loads both, not attached. code() is EPERM without the privilege.
Result<PacketPrograms> load_packet_programs(const ProgramOptions& options);

/// Loads the verdict of the policy program without its traces, for ask_program(). `maps`: PacketPrograms::maps. Apart,
/// for few ever ask, and the kernel takes long to verify it.
Result<Fd> load_question(const std::map<std::string, Fd>& maps, std::uint32_t l2_bytes = 0);

/// Two copies of one program? Compares the instructions, not the maps.
Result<bool> is_same_program(int a, int b);

/// Does a loaded program read or write this map?
Result<bool> uses_map(int program, int map);

} // namespace tailrace
