// policy/explain.cpp - asks every rule how near it comes.
#include "policy/explain.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/judge.hpp"
#include "policy/names.hpp"
#include "policy/quote.hpp"
#include "policy/stage.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace tailrace {
namespace {

/// "DST:PORT[/PROTO]" taken apart.
struct Question {
    std::string name;
    std::uint16_t port = 0;
    std::optional<int> protocol;
};

Result<Question> parse_destination(std::string_view text) {
    Question question;
    std::string_view rest = text;
    const auto slash = rest.rfind('/');
    if (slash != std::string_view::npos) {
        auto protocol = parse_protocol(rest.substr(slash + 1));
        if (!protocol) return protocol.error().with("{}", quoted(text));
        question.protocol = *protocol;
        rest = rest.substr(0, slash);
    }
    const bool needs_port = !question.protocol || has_ports(*question.protocol);
    const auto colon = rest.rfind(':');
    const auto port = colon == std::string_view::npos ? Result<std::uint16_t>{Error::make("none")}
                                                      : parse_number<std::uint16_t>(rest.substr(colon + 1));
    // The last group of an IPv6 address is no port.
    const bool bare_ipv6 = static_cast<bool>(IpAddress::parse(rest)) && !rest.empty();
    if (port && *port != 0 && !(bare_ipv6 && !needs_port)) {
        question.port = *port;
        rest = rest.substr(0, colon);
    } else if (needs_port) {
        return Error::make("{}: want a destination with one port, such as tag:web:443 or tag:web:53/udp", quoted(text));
    }
    if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
    question.name = std::string{rest};
    return question;
}

class Explainer {
public:
    Explainer(std::shared_ptr<const CompiledPolicy> policy, Question question)
        : judge_(std::move(policy)), document_(judge_.compiled().document()),
          free_(CompiledPolicy::compile(std::make_shared<const Document>(without_postures(document_)),
                                        judge_.compiled().tailnet())),
          quotes_(document_), question_(std::move(question)) {}

    Result<void> look_up(std::string_view source) {
        auto sources = devices_named(document_, judge_.directory(), source);
        if (!sources) return sources.error();
        auto destinations = devices_named(document_, judge_.directory(), question_.name);
        if (!destinations) return destinations.error();
        sources_ = std::move(*sources);
        destinations_ = std::move(*destinations);
        return {};
    }

    void answer(Explanation& out) {
        std::size_t pairs = 0;
        std::vector<std::string> refused;
        for (const auto& source : sources_) {
            for (const auto& destination : destinations_) {
                if (source.node && source.node == destination.node) continue;
                ++pairs;
                if (!ask(source, destination))
                    refused.push_back(fmt::format("{} to {}", source.name, destination.name));
            }
        }
        const auto what = fmt::format("{} to {}", out.source, out.destination);
        using Verdict = Explanation::Verdict;
        out.verdict = pairs == 0 || refused.size() == pairs ? Verdict::Denied
                      : refused.empty()                     ? Verdict::Allowed
                                                            : Verdict::Partly;
        for (const auto offset : deciding_) out.deciding.push_back(line(offset));
        if (sources_.empty() || destinations_.empty()) {
            out.summary = fmt::format("{}: denied: {} stands for no device", what,
                                      sources_.empty() ? out.source : question_.name);
            return;
        }
        if (pairs == 0) {
            out.summary = fmt::format("{}: both are the same device", what);
            return;
        }
        if (out.verdict == Verdict::Allowed) {
            out.summary = fmt::format("{}: allowed by {}", what, place(out.deciding.front()));
        } else if (out.verdict == Verdict::Partly) {
            out.summary = fmt::format("{}: allowed for some only; not for {}", what, some_of(refused));
        } else {
            out.summary = fmt::format("{}: denied: no rule allows it", what);
        }
        if (out.verdict != Verdict::Allowed) add_near_misses(out);
        if (miss_work_ > kMostWork)
            out.notes.emplace_back("near misses were looked for among the first devices only: ask about fewer at once");
        add_route_note(out);
        add_ssh_note(out);
    }

private:
    std::string place(const Explanation::Line& line) const {
        return line.rule.empty() ? "default: the policy has neither acls nor grants" : line.position.text();
    }

    Explanation::Line line(std::uint32_t offset, std::string reason = {}) const {
        return {quotes_.position_of(offset), quotes_.rule_at(offset), std::move(reason)};
    }

    /// Whether one device reaches the other; keeps how near each rule came.
    bool ask(const NamedDevice& source, const NamedDevice& destination) {
        bool reached = false;
        for (const auto& from : source.addresses) {
            for (const auto& to : destination.addresses) {
                if (from.bits() != to.bits()) continue;
                same_family_ = true;
                const Probe probe{from, to, question_.port, question_.protocol};
                bool passes = false;
                for (const auto* rule : rules_from(from)) {
                    if (!judge_.match(*rule, probe).allows()) continue;
                    passes = true;
                    if (decides_.insert(rule->offset).second) deciding_.push_back(rule->offset);
                }
                reached = reached || passes;
                if (passes || miss_work_ > kMostWork) continue;
                miss_work_ += free_.rules().size();
                for (const auto& rule : free_.rules()) {
                    const auto match = free_.match(rule, probe);
                    if (Judge::is_about_packets(rule) && (match.source || match.destination)) keep_miss({&rule, match});
                }
            }
        }
        return reached;
    }

    /// Of the source that is asked about; the next question mostly has the same.
    const std::vector<const Rule*>& rules_from(const IpAddress& source) {
        constexpr std::size_t kMostKept = 16;
        const auto known = rules_from_.find(source);
        if (known != rules_from_.end()) return known->second;
        if (rules_from_.size() > kMostKept) rules_from_.clear();
        return rules_from_[source] = judge_.rules_from(source);
    }

    struct Miss {
        const Rule* rule; ///< as if every posture were fulfilled: when it allows, a posture is what is missing
        RuleMatch match;
    };

    void keep_miss(const Miss& miss) {
        const auto [known, is_new] = miss_at_.try_emplace(miss.rule->offset, misses_.size());
        if (is_new) {
            misses_.push_back(miss);
        } else if (rank(miss) < rank(misses_[known->second])) {
            misses_[known->second] = miss;
        }
    }

    static int rank(const Miss& miss) { return miss.match.misses(); }

    const std::vector<std::string>& postures_of(std::uint32_t offset) const {
        const auto own = [&](const auto& rules) -> const std::vector<std::string>* {
            if (!rules) return nullptr;
            for (const auto& rule : *rules) {
                if (rule.offset == offset && !rule.postures.empty()) return &rule.postures;
            }
            return nullptr;
        };
        const auto* of_acl = own(document_.acls);
        const auto* of_grant = own(document_.grants);
        return of_acl != nullptr ? *of_acl : of_grant != nullptr ? *of_grant : document_.default_source_postures;
    }

    void add_near_misses(Explanation& out) const {
        if (!same_family_) {
            out.notes.emplace_back("source and destination have no address of the same family (IPv4, IPv6)");
            return;
        }
        auto misses = misses_;
        misses.erase(std::remove_if(misses.begin(), misses.end(),
                                    [&](const Miss& miss) {
                                        const bool decides = decides_.count(miss.rule->offset) != 0;
                                        return decides || miss.match.misses() > 2;
                                    }),
                     misses.end());
        std::stable_sort(misses.begin(), misses.end(), [](const Miss& a, const Miss& b) { return rank(a) < rank(b); });
        constexpr std::size_t kMost = 5;
        for (const auto& miss : misses) {
            if (out.near_misses.size() == kMost) break;
            out.near_misses.push_back(line(miss.rule->offset, reason(miss, out)));
        }
    }

    std::string reason(const Miss& miss, const Explanation& out) const {
        const auto& rule = *miss.rule;
        std::vector<std::string> reasons;
        if (miss.match.allows())
            return fmt::format("{} fulfils none of {}", out.source, some_of(postures_of(rule.offset)));
        if (!miss.match.source) reasons.push_back(fmt::format("src does not include {}", out.source));
        if (!miss.match.destination) reasons.push_back(fmt::format("dst does not include {}", question_.name));
        if (!miss.match.routed) reasons.push_back("no router that `via` names has an approved route to it");
        if (!miss.match.protocol) {
            reasons.push_back(fmt::format("it allows {}, not {}", protocols_text(rule.protocols),
                                          question_.protocol ? protocol_text(*question_.protocol) : "this"));
        } else if (!miss.match.ports) {
            std::vector<PortRange> ports;
            for (const auto& destination : rule.destinations) {
                for (const auto& range : destination.ports) {
                    if (std::find(ports.begin(), ports.end(), range) == ports.end()) ports.push_back(range);
                }
            }
            const bool needs_all = question_.protocol && !has_ports(*question_.protocol);
            reasons.push_back(needs_all
                                  ? fmt::format("{} needs a rule for all ports", protocol_text(*question_.protocol))
                                  : fmt::format("it allows port {}, not {}", ports_text(ports), question_.port));
        }
        return join(reasons, "; ");
    }

    /// Where packets to an address that is no device's would go.
    void add_route_note(Explanation& out) const {
        for (const auto& destination : destinations_) {
            if (destination.node) continue;
            const auto& ip = destination.addresses.front();
            std::vector<std::string> routers;
            bool passes = false; // at one of them
            for (NodeIndex i = 0; i < judge_.directory().size(); ++i) {
                for (const auto& route : judge_.directory().node(i).routes) {
                    if (!route.contains(ip)) continue;
                    routers.push_back(fmt::format("{} by {}", route.text(), describe(judge_.directory(), i)));
                    passes = passes || is_decided_at(i);
                }
            }
            out.notes.push_back(routers.empty()
                                    ? fmt::format("no device has {} and no approved route leads there", ip.text())
                                    : fmt::format("{} is routed: {}", ip.text(), some_of(routers)));
            if (!routers.empty() && !passes && out.verdict != Explanation::Verdict::Denied)
                out.notes.push_back(
                    fmt::format("{} is not reached all the same: autogroup:internet holds at exit nodes "
                                "and app connectors, and none of these is one",
                                ip.text()));
        }
    }

    /// Whether the filter of this node has one of the rules that decide.
    bool is_decided_at(NodeIndex node) const {
        return std::any_of(judge_.rules().begin(), judge_.rules().end(), [&](const Rule& rule) {
            return Judge::is_about_packets(rule) && decides_.count(rule.offset) != 0 && rule.receivers.contains(node);
        });
    }

    void add_ssh_note(Explanation& out) const {
        constexpr std::uint16_t kSshPort = 22;
        if (question_.port != kSshPort || document_.ssh.empty()) return;
        std::set<std::string> logins;
        for (const auto& destination : destinations_) {
            if (!destination.node) continue;
            const auto rules = judge_.compiled().ssh_rules_for(judge_.directory().node(*destination.node).id);
            for (const auto& rule : rules) {
                for (const auto& source : sources_) {
                    const bool is_principal =
                        std::any_of(source.addresses.begin(), source.addresses.end(), [&](const IpAddress& address) {
                            return std::find(rule.principals.begin(), rule.principals.end(), address) !=
                                   rule.principals.end();
                        });
                    if (!is_principal) continue;
                    for (const auto& [asked, local] : rule.ssh_users) {
                        if (!local.empty())
                            logins.insert((asked == "*" ? "anybody but root" : asked) + (rule.check ? " (check)" : ""));
                    }
                }
            }
        }
        out.notes.push_back(logins.empty() ? "the ssh section lets nobody in here"
                                           : fmt::format("the ssh section allows logging in as {}",
                                                         some_of({logins.begin(), logins.end()})));
    }

    Judge judge_;
    const Document& document_;
    Judge free_; ///< the same policy as it treats devices that fulfil every posture
    PolicyQuotes quotes_;
    Question question_;
    std::vector<NamedDevice> sources_, destinations_;
    std::vector<std::uint32_t> deciding_;
    std::vector<Miss> misses_;
    std::unordered_set<std::uint32_t> decides_;
    std::unordered_map<std::uint32_t, std::size_t> miss_at_; ///< by the rule's offset: where in `misses_`
    std::map<IpAddress, std::vector<const Rule*>> rules_from_;
    static constexpr std::size_t kMostWork = 100'000'000; ///< rules that are looked at for how near they come
    std::size_t miss_work_ = 0;
    bool same_family_ = false;
};

void append_lines(std::string& out, const char* name, const std::vector<Explanation::Line>& lines) {
    out += fmt::format(",\"{}\":[", name);
    for (const auto& line : lines) {
        if (&line != &lines.front()) out += ',';
        out += fmt::format("{{\"line\":{},\"column\":{},\"rule\":", line.position.line, line.position.column);
        json::append(out, line.rule);
        if (!line.reason.empty()) {
            out += ",\"reason\":";
            json::append(out, line.reason);
        }
        out += '}';
    }
    out += ']';
}

} // namespace

std::string Explanation::text() const {
    std::string out = summary + "\n";
    for (const auto& line : deciding) {
        if (!line.rule.empty()) out += fmt::format("  {}: {}\n", line.position.text(), line.rule);
    }
    if (!near_misses.empty()) out += "nearest misses:\n";
    for (const auto& line : near_misses)
        out += fmt::format("  {}: {}\n    {}\n", line.position.text(), line.reason, line.rule);
    for (const auto& note : notes) out += fmt::format("note: {}\n", note);
    return out;
}

std::string Explanation::json() const {
    const char* word = verdict == Verdict::Allowed ? "allowed" : verdict == Verdict::Partly ? "partly" : "denied";
    std::string out = fmt::format("{{\"verdict\":\"{}\",\"src\":", word);
    json::append(out, source);
    out += ",\"dst\":";
    json::append(out, destination);
    out += ",\"summary\":";
    json::append(out, summary);
    append_lines(out, "deciding", deciding);
    append_lines(out, "nearMisses", near_misses);
    out += ",\"notes\":";
    json::append(out, notes);
    return out + "}";
}

Result<Explanation> explain(std::shared_ptr<const CompiledPolicy> policy, std::string_view source,
                            std::string_view destination) {
    auto question = parse_destination(trim(destination));
    if (!question) return question.error();
    Explanation out;
    out.source = std::string{trim(source)};
    out.destination = std::string{trim(destination)};
    Explainer explainer{std::move(policy), std::move(*question)};
    if (auto found = explainer.look_up(out.source); !found) return found.error();
    explainer.answer(out);
    return out;
}

} // namespace tailrace
