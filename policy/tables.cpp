#include "policy/tables.hpp"

#include "policy/table_compiler.hpp"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>

namespace tailrace {
namespace {

tr_addr to_map(const IpAddress& address) {
    tr_addr out{};
    std::memcpy(out.bytes, address.bytes().data(), address.bytes().size());
    return out;
}

} // namespace

void TableCompiler::build(const std::vector<bool>& kept, PolicyTables& out) {
    kept_ = kept;
    by_number_.clear();
    sources_.clear();
    destinations_.clear();
    port_classes_of_.clear();
    rule_sets_written_.clear();
    pairs_made_.clear();
    own4_ = own6_ = {};
    out.hosts.clear();
    out.nets.clear();
    out.pairs.clear();
    out.rows.clear();
    out.rules.clear();
    out.settings = {};
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        if (!kept_[i]) continue;
        by_number_[rules_[i].number] = &rules_[i];
        out.rules[rules_[i].number] = rules_[i].index;
    }
    build_sources(out);
    build_destinations(out);
    build_ports(out);
    build_pairs(out);
    build_settings(out);
}

void TableCompiler::sweep() {
    numbers_.source_classes_.sweep();
    numbers_.destination_classes_.sweep();
    numbers_.port_classes_.sweep();
    numbers_.rule_sets_.sweep();
}

void TableCompiler::build_settings(PolicyTables& out) const {
    tr_settings& settings = out.settings;
    if (input_.shields_up) settings.flags |= TR_SETTING_SHIELDS_UP;
    if (input_.strict_forwarded) settings.flags |= TR_SETTING_STRICT_FORWARDED;
    if (input_.strict_own) settings.flags |= TR_SETTING_STRICT_OWN;
    for (const PolicyTables::Address& net : out.nets)
        settings.flags |= TR_SETTING_HAS_NETS(net.side, net.prefix.address().is_v4() ? 4u : 6u);
    settings.peer_api4 = htons(input_.peer_api4);
    settings.peer_api6 = htons(input_.peer_api6);
    for (const IpAddress& address : input_.own_addresses) {
        if (address.is_v4() && !settings.has_own4) {
            settings.has_own4 = 1;
            settings.own4 = to_map(address);
            settings.own4_address = own4_;
        } else if (address.is_v6() && !settings.has_own6) {
            settings.has_own6 = 1;
            settings.own6 = to_map(address);
            settings.own6_address = own6_;
        }
    }
}

namespace {

std::vector<tr_host> hosts_of(const PolicyTables& tables) {
    std::vector<tr_host> out;
    out.reserve(tables.hosts.size());
    for (const PolicyTables::Address& host : tables.hosts) {
        const IpAddress& address = host.prefix.address();
        std::uint8_t family = address.is_v4() ? 4 : 6;
        out.push_back({to_map(address), {0, host.side, family, 0}, host.value});
    }
    return out;
}

/// Makes a policy of it in which no packet finds its destination.
void allow_nothing(PolicyTables& tables) {
    tables.hosts.clear();
    tables.nets.clear();
    tables.pairs.clear();
    tables.rows.clear();
    tables.rules.clear();
    tr_settings settings{};
    settings.flags =
        tables.settings.flags & (TR_SETTING_SHIELDS_UP | TR_SETTING_STRICT_FORWARDED | TR_SETTING_STRICT_OWN);
    tables.settings = settings;
    tables.image = *lay_out({}, {}, {});
}

bool fits(const PolicyTables& tables, const TableLimits& limits) {
    return tables.hosts.size() <= limits.hosts && tables.nets.size() <= limits.nets &&
           tables.pairs.size() <= limits.pairs && tables.rows.size() <= limits.rows;
}

} // namespace

static PolicyTables compile(const FilterInput& input, TableNumbers& numbers, const TableLimits& limits) {
    PolicyTables out;
    TableCompiler compiler{input, numbers};
    compiler.read_rules(out);
    std::vector<bool> kept(compiler.rule_count(), true);
    compiler.build(kept, out);

    // Too large: find the first rule that does not fit and go on without it, a few times; then without all the rest.
    std::size_t settled = 0; // rules before this one are decided
    for (int round = 0; !fits(out, limits) && settled < kept.size(); ++round) {
        std::size_t low = settled, high = kept.size(); // the first `low` fit, the first `high` don't
        std::vector<bool> trial;
        while (low + 1 < high) {
            std::size_t middle = (low + high) / 2;
            trial = kept;
            std::fill(trial.begin() + static_cast<std::ptrdiff_t>(middle), trial.end(), false);
            compiler.build(trial, out);
            (fits(out, limits) ? low : high) = middle;
        }
        constexpr int kRounds = 8;
        std::size_t until = round < kRounds ? low + 1 : kept.size();
        for (std::size_t i = low; i < until; ++i) {
            kept[i] = false;
            out.left_out.push_back(compiler.rule_index(i));
            out.warnings.push_back(fmt::format("{} does not fit into the packet filter and is not in force",
                                               rule_name(compiler.rule_index(i))));
        }
        settled = until;
        compiler.build(kept, out);
    }
    compiler.sweep();
    auto image = fits(out, limits)
                     ? lay_out(hosts_of(out), out.pairs, out.rows,
                               {image_buckets(limits.hosts), image_buckets(limits.pairs), image_buckets(limits.rows)})
                     : std::nullopt;
    out.ports_sum = content_sum(std::as_bytes(std::span{out.ports.get(), 1}));
    if (image) {
        out.image = std::move(*image);
    } else {
        allow_nothing(out);
        out.warnings.push_back("the addresses of this network alone do not fit into the packet filter: nothing is "
                               "allowed");
    }
    return out;
}

PolicyTables compile_tables(const FilterInput& input, TableNumbers& numbers, const TableLimits& limits) {
    PolicyTables out = compile(input, numbers, limits);
    // A large policy leaves a hundred thousand freed pieces, and the allocator sorts ten thousand of them in an
    // allocation that finds none to fit. Made here, so that it does not happen in the commit.
    for (std::size_t pieces = out.pairs.size(); pieces > 2000; pieces /= 2) {
        void* volatile unused = std::malloc(65536);
        std::free(unused);
    }
    return out;
}

} // namespace tailrace
