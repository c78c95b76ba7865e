#include "agent/cli/commands.hpp"
#include "agent/config/check.hpp"

namespace tailrace::cli {

Task<int> config_check_command(std::string file) {
    auto told = check_agent_config(file);
    if (!told) co_return fail(told.error().message());
    fmt::print("{}", *told);
    co_return 0;
}

} // namespace tailrace::cli
