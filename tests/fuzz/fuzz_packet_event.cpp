// A record of the ring buffer: packet programs write it, maybe those of another agent. And the lines that the command
// line makes of what the agent tells.
#include "agent/cli/commands.hpp"
#include "agent/engine/flow_report.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    BytesView bytes{reinterpret_cast<const std::byte*>(data), size};
    (void)cli::drop_text(as_chars(bytes));
    (void)cli::flows_text(as_chars(bytes), 10);
    auto event = parse_packet_event(bytes);
    if (!event) return 0;
    if (size != sizeof(tr_event) || text(event->kind) == "unknown") std::abort();
    const std::vector<KnownRule> rules{{{{"*", "cap:a"}, {{"*", {22, 22}, false}}, {}, {}, false}, {{3, 0}}}};
    FlowNames names{[](const IpAddress& address) { return address.text(); },
                    [](const IpAddress&) { return std::vector<std::string>{"a"}; },
                    [](std::uint32_t rule) { return std::optional<std::size_t>{rule % 2}; }, rules};
    auto text = cli::drop_text(write_drop(WallTime::now(), *event, names, true));
    if (!text || text->empty()) std::abort(); // our own lines are read again
    FlowTable table;
    TimePoint now{std::chrono::hours{1}};
    table.take_event(now, *event);
    if (event->flow)
        table.take_traffic(now, std::chrono::seconds{1},
                           {{*event->flow, {1, event->bytes, 2, event->bytes, event->rule, 0}}});
    if (!cli::flows_text(write_flows(WallTime::now(), table.rows(now, 10), table.totals(), {}, names), 10))
        std::abort();
    return 0;
}
