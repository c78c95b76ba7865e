#include "agent/cli/commands.hpp"
#include "agent/config/check.hpp"
#include "agent/local/pretty_json.hpp"

namespace tailrace::cli {

Task<int> config_check_command(std::string file, bool json_wanted) {
    auto checked = check_agent_config(file);
    if (json_wanted) {
        fmt::print("{}\n", pretty_json(checked_config_json(file, checked), "  "));
        co_return checked ? 0 : 1;
    }
    if (!checked) co_return fail(checked.error().message());
    fmt::print("{}", checked->text(file));
    co_return 0;
}

} // namespace tailrace::cli
