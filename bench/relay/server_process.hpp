// bench/relay/server_process.hpp - what /proc says about the server under test.
#pragma once
#include "base/file.hpp"
#include "base/text.hpp"

#include <unistd.h>

#include <cstdlib>

namespace tailrace::bench {

/// Resident memory without what is mapped from files, in KB: a program's size is not the price of a client.
inline double anonymous_kb(int pid) {
    auto status = read_file(fmt::format("/proc/{}/status", pid));
    if (!status) return 0;
    auto at = status->find("RssAnon:");
    return at == std::string::npos ? 0 : std::strtod(status->c_str() + at + 8, nullptr);
}

/// Seconds of all its threads, in user space and in the kernel.
inline double cpu_seconds(int pid) {
    auto stat = read_file(fmt::format("/proc/{}/stat", pid));
    if (!stat) return 0;
    auto fields = split(std::string_view{*stat}.substr(stat->rfind(')') + 2), ' ');
    double ticks = 0;
    for (std::size_t i : {11U, 12U}) // utime and stime, proc(5)
        if (i < fields.size()) ticks += static_cast<double>(parse_number<long>(fields[i]).value_or(0));
    return ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

} // namespace tailrace::bench
