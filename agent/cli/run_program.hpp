// agent/cli/run_program.hpp - what another program prints.
#pragma once
#include "base/result.hpp"
#include "base/time.hpp"

#include <string>
#include <vector>

namespace tailrace::cli {

struct ProgramOutput {
    std::string text; ///< standard output and, after it is merged, standard error; cut off at the limit
    int status = 0;   ///< exit status; 128 and the signal when it was killed
};

enum class Stderr { Merge, Drop };

/// Looked up in PATH and the usual sbin directories. Waits at most `patience`, then kills it. An error when there is no
/// such program.
Result<ProgramOutput> run_program(const std::vector<std::string>& arguments, Stderr other, std::size_t limit_bytes,
                                  Duration patience);

/// Where a program is, or "".
std::string find_program(const std::string& name);

} // namespace tailrace::cli
