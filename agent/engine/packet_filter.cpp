#include "agent/engine/packet_filter.hpp"
#include "base/log.hpp"
#include "bpf/shared/marks.h"

namespace tailrace {

std::uint32_t PacketFilter::passed_mark() {
    return TR_MARK_PASSED;
}

Result<std::unique_ptr<PacketFilter>> PacketFilter::open(Reactor& reactor, const std::string& device, unsigned schema,
                                                         AttachMethod attach) {
    DataplaneOptions options;
    options.schema = schema;
    options.attach = attach;
    auto dataplane = Dataplane::open(device, options);
    if (!dataplane)
        return Error::make(
            "the packet programs cannot be loaded ({}): tailraced needs a kernel with eBPF and BTF, CAP_BPF, and "
            "bpffs on /sys/fs/bpf, and a restart where it lacked memory; nothing from the tailnet is let in",
            dataplane.error().message());
    if (auto older = dataplane->older_schema())
        log::info("packet programs of an older schema judge until the policy is in force",
                  {{"device", device}, {"older", *older}, {"ours", schema}});
    log::info(dataplane->adopted() ? "packet programs adopted" : "packet programs loaded", {{"device", device}});
    return std::unique_ptr<PacketFilter>{new PacketFilter(reactor, device, schema, attach, std::move(*dataplane))};
}

Result<void> PacketFilter::remove(const std::string& device, unsigned schema) {
    SteeringOptions steering_options;
    steering_options.schema = schema;
    auto steering = Steering::remove(device, steering_options);
    TranslatorOptions translator_options;
    translator_options.schema = schema;
    auto translator = Translator::remove(device, translator_options);
    DataplaneOptions options;
    options.schema = schema;
    auto dataplane = Dataplane::remove(device, options);
    return !dataplane ? dataplane : !steering ? steering : translator;
}

Result<void> PacketFilter::keep_attached() {
    if (auto kept = dataplane_.keep_attached(); !kept) return kept;
    return translator_ ? translator_->keep_attached() : Result<void>{};
}

Result<void> PacketFilter::translate(const ViaTable& table) {
    TranslatorOptions options;
    options.schema = schema_;
    options.attach = attach_;
    if (translated_ && *translated_ == table) return translator_ ? translator_->keep_attached() : Result<void>{};
    translated_.reset();
    if (table.nets.empty()) {
        translator_.reset();
        if (auto gone = Translator::remove(device_, options); !gone) return gone;
    } else {
        if (!translator_) {
            auto opened = Translator::open(device_, options);
            if (!opened) return opened.error();
            translator_.emplace(std::move(*opened));
            log::info("4via6 routes are translated", {{"device", device_}, {"routes", table.nets.size()}});
        }
        if (auto set = translator_->set(table); !set) return set.error().with("translate 4via6");
        if (auto attached = translator_->keep_attached(); !attached) return attached;
    }
    translated_ = table;
    return {};
}

Result<std::vector<TranslatorCount>> PacketFilter::translator_counts() const {
    return translator_ ? translator_->counts() : std::vector<TranslatorCount>{};
}

Task<Result<std::vector<std::string>>> PacketFilter::commit(FilterInput input) {
    // What does not fit is known before anything is written: the policy is in force without it, and says so.
    PolicyTables tables = compile_tables(input, numbers_, dataplane_.limits());
    if (!tables.left_out.empty())
        log::error("the packet filter is too small for the policy: some rules are not in force",
                   {{"left_out", tables.left_out.size()}, {"rules", input.rules.size()}});
    auto waited = co_await reactor_.worker([this] { return dataplane_.wait_for_readers(); });
    Result<CommitReport> report = waited ? dataplane_.commit(tables) : waited.error();
    if (report) write_trouble_.clear();
    if (!report) {
        // Memory for prefixes is taken entry by entry and may run out; maps may be spoilt. The old policy must not
        // stand for that: what it allows may have been revoked.
        std::string why = report.error().message();
        if (why != write_trouble_) // it is tried again and again
            log::error("the policy could not be written: it goes in force without any rule", {{"error", why}});
        write_trouble_ = why;
        input.rules.clear();
        input.local_nets.clear();
        tables = compile_tables(input, numbers_, dataplane_.limits());
        tables.warnings.push_back("no rule is in force, the policy could not be written: " + why);
        report = dataplane_.commit(tables);
    }
    if (!report) {
        rules_.clear();
        in_force_ = {};
        if (auto withdrawn = dataplane_.withdraw(); !withdrawn)
            co_return report.error().with("the old policy stays in force ({}), no other one could be written",
                                          withdrawn.error().message());
        co_return report.error().with("nothing from the tailnet passes, for no policy could be written");
    }
    log::info("packet filter in force",
              {{"serial", report->serial},
               {"rules", input.rules.size()},
               {"entries", report->entries},
               {"us", std::chrono::duration_cast<std::chrono::microseconds>(report->took).count()}});
    rules_ = tables.rules;
    in_force_ = {*report, input.rules.size(), tables.left_out.size()};
    if (auto older = dataplane_.older_schema()) {
        if (auto replaced = dataplane_.keep_attached(); !replaced) co_return replaced.error();
        log::info("packet programs of an older schema replaced",
                  {{"older", *older}, {"ours", schema_}, {"flows", dataplane_.shares_flows() ? "kept" : "not known"}});
    }
    co_return tables.warnings;
}

Result<void> PacketFilter::steer(const SteeringPorts& ports, const std::vector<Link>& links) {
    if (!steering_) {
        SteeringOptions options;
        options.schema = schema_;
        auto opened = Steering::open(device_, options);
        if (!opened) return opened.error().with("steering");
        steering_.emplace(std::move(*opened));
    }
    std::vector<IpAddress> addresses;
    std::vector<std::string> interfaces;
    for (const Link& link : links) {
        for (const InterfaceAddress& address : link.addresses) addresses.push_back(address.prefix.address());
        if (link.name != device_ && link.up) interfaces.push_back(link.name);
    }
    if (auto set = steering_->set_ports(ports); !set) return set.error().with("steering");
    if (auto set = steering_->set_local_addresses(addresses); !set) return set.error().with("steering");
    if (auto set = steering_->set_interfaces(interfaces); !set) return set.error().with("steering");
    return {};
}

Result<void> PacketFilter::move_ports(const std::vector<PortMove>& moves) {
    if (!steering_) return Error::make("no port can be moved before datagrams are steered");
    return steering_->set_moves(moves);
}

std::optional<std::size_t> PacketFilter::index_of(std::uint32_t rule) const {
    auto found = rules_.find(rule);
    return found == rules_.end() ? std::nullopt : std::optional<std::size_t>{found->second};
}

std::map<std::size_t, tr_counter> PacketFilter::rule_counters() const {
    std::map<std::size_t, tr_counter> out;
    if (auto hits = dataplane_.rule_hits())
        for (const auto& [number, counter] : *hits)
            if (auto index = index_of(number)) out[*index] = counter;
    return out;
}

std::string PacketFilter::counters_json() const {
    std::string out = "{\"Reasons\":[";
    if (auto reasons = dataplane_.reasons()) {
        bool first = true;
        for (const ReasonCount& reason : *reasons) {
            out += fmt::format("{}{{\"Reason\":\"{}\",\"Passes\":{},\"Packets\":{},\"Bytes\":{}}}", first ? "" : ",",
                               reason.name, reason.passes, reason.counter.packets, reason.counter.bytes);
            first = false;
        }
    }
    if (auto counts = translator_counts())
        for (const TranslatorCount& one : *counts)
            out += fmt::format(",{{\"Reason\":\"{}\",\"Passes\":{},\"Packets\":{},\"Bytes\":{}}}", one.name, one.passes,
                               one.counter.packets, one.counter.bytes);
    out += "],\"Rules\":[";
    if (auto hits = dataplane_.rule_hits()) {
        bool first = true;
        for (const auto& [number, counter] : *hits) {
            auto index = rules_.find(number);
            out += fmt::format("{}{{\"Rule\":{},\"Index\":{},\"Packets\":{},\"Bytes\":{}}}", first ? "" : ",", number,
                               index == rules_.end() ? std::string{"null"} : std::to_string(index->second),
                               counter.packets, counter.bytes);
            first = false;
        }
    }
    return out + "]}";
}

} // namespace tailrace
