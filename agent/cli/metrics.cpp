// `tailrace metrics`: what Prometheus would read.
#include "agent/cli/commands.hpp"
#include "base/file.hpp"

namespace tailrace::cli {

Task<int> metrics(LocalClient& client, std::string file) {
    auto text = co_await client.request("GET", "/localapi/v0/usermetrics", "");
    if (!text) co_return fail(text.error().message());
    if (file.empty()) {
        fmt::print("{}", *text);
        co_return 0;
    }
    if (auto written = write_file_atomically(file, *text, 0644); !written) co_return fail(written.error().message());
    co_return 0;
}

} // namespace tailrace::cli
