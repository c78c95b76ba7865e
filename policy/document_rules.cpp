// policy/document_rules.cpp - acls, grants and nodeAttrs.
#include "base/text.hpp"
#include "policy/app_connectors.hpp"
#include "policy/document_reader.hpp"
#include "policy/illustrative.hpp"
#include "policy/words.hpp"

#include <algorithm>

namespace tailrace {
namespace {

/// Names in tailscale.com that a policy may grant; all others are the service's own.
constexpr std::string_view kOpenCapabilities[] = {
    "tailscale.com/cap/drive",  "tailscale.com/cap/relay",   "tailscale.com/cap/kubernetes",
    "tailscale.com/cap/webui",  "tailscale.com/cap/tsidp",   "tailscale.com/cap/secrets",
    "tailscale.com/cap/golink", "tailscale.com/cap/tailsql", "tailscale.com/cap/conn25",
};

bool is_open_capability(std::string_view name) {
    return std::any_of(std::begin(kOpenCapabilities), std::end(kOpenCapabilities), [&](std::string_view open) {
        return name == open || (name.size() > open.size() && name.starts_with(open) && name[open.size()] == '/');
    });
}

Result<void> check_ports_allowed(int protocol, std::string_view spelled, const std::vector<PortRange>& ports) {
    if (has_ports(protocol) || std::all_of(ports.begin(), ports.end(), [](PortRange range) { return range.is_all(); }))
        return {};
    return Error::make("protocol does not support specific ports: {}, only \"*\" is allowed", quoted(spelled));
}

} // namespace

bool DocumentReader::read_acl(const Value& element) {
    AclRule rule;
    rule.offset = element.begin;
    if (!expect(element, hujson::Kind::Object, "acls")) return false;
    // Generated comments: other servers of this language ignore members of a rule whose names begin with '#'.
    Value cleaned;
    cleaned.kind = hujson::Kind::Object;
    cleaned.begin = element.begin;
    for (const auto& member : element.members) {
        if (!member.name.text.starts_with('#')) cleaned.members.push_back(member);
    }

    if (!refuse_both(cleaned, "acls", {{"src", "users"}, {"dst", "ports"}})) return false;

    const Value* action = nullptr;
    const Value* sources = nullptr;
    const Value* destinations = nullptr;
    const Value* protocol = nullptr;
    const auto keep = [](const Value*& where) {
        return [&where](const Value& value) {
            where = &value;
            return true;
        };
    };
    const bool structure = read_object(
        cleaned, "acls",
        {{"action", keep(action)},
         {"src", keep(sources)},
         {"users", keep(sources)},
         {"dst", keep(destinations)},
         {"ports", keep(destinations)},
         {"proto", keep(protocol)},
         {"srcPosture", [&](const Value& value) { return read_posture_names(value, "srcPosture", rule.postures); }}});
    if (!structure) return false;

    std::string action_name;
    if (action != nullptr && !read_string(*action, "action", action_name)) return false;
    if (action_name != "accept")
        return fail(action != nullptr ? *action : element,
                    fmt::format("action={} is not supported", quoted(action_name)));
    std::string protocol_name;
    if (protocol != nullptr) {
        if (!read_string(*protocol, "proto", protocol_name)) return false;
        if (!protocol_name.empty()) {
            auto number = parse_protocol(protocol_name);
            if (!number) return fail(*protocol, number.error().message());
            rule.protocol = *number;
        }
    }
    if (sources != nullptr && !read_selectors(*sources, "src", Position::Source, rule.sources)) return false;
    const bool read = destinations == nullptr || each_element(*destinations, "dst", [&](const Value& value) {
                          auto& destination = rule.destinations.emplace_back();
                          if (!read_acl_destination(value, destination)) return false;
                          if (!destination.selector.is(Autogroup::Self)) return true;
                          return check_self(rule.sources, destination.selector, true, value);
                      });
    if (!read) return false;
    if (rule.protocol) {
        for (const auto& destination : rule.destinations) {
            if (auto allowed = check_ports_allowed(*rule.protocol, protocol_name, destination.ports); !allowed)
                return fail_at(destination.selector.offset, allowed.error().message());
        }
    }
    document_.acls->push_back(std::move(rule));
    return true;
}

bool DocumentReader::read_acl_destination(const Value& value, AclDestination& out) {
    if (!expect(value, hujson::Kind::String, "dst")) return false;
    const auto text = trim(value.text);
    const auto refuse = [&](std::string_view why) { return fail(value, fmt::format("dst={}: {}", quoted(text), why)); };
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos) return refuse("hostport must contain a colon");
    if (colon == 0) return refuse("input cannot start with a colon character");
    if (colon + 1 == text.size()) return refuse("input cannot end with a colon character");
    auto ports = parse_port_list(text.substr(colon + 1));
    if (!ports) return refuse(ports.error().message());
    out.ports = std::move(*ports);
    std::string name{text.substr(0, colon)};
    if (name.starts_with('[')) { // [fd7a::1] and [fd7a::]/64
        const auto bracket = name.find(']');
        if (bracket == std::string::npos || name.substr(1, bracket - 1).find(':') == std::string::npos)
            return refuse("square brackets are only valid around IPv6 addresses");
        name = name.substr(1, bracket - 1) + name.substr(bracket + 1);
    }
    return read_selector(value, name, Position::Destination, out.selector);
}

bool DocumentReader::check_self(const std::vector<Selector>& sources, const Selector&, bool everything_is_member,
                                const Value& at) {
    const bool allowed = std::all_of(sources.begin(), sources.end(), [&](const Selector& source) {
        using Kind = Selector::Kind;
        if (source.kind == Kind::Everything) return everything_is_member;
        return source.kind == Kind::User || source.kind == Kind::UserDomain || source.kind == Kind::Group ||
               source.is(Autogroup::Member) || (source.kind == Kind::AutogroupKind && is_role(source.autogroup));
    });
    return allowed || fail(at, "autogroup:self can only be used with users, groups, or supported autogroups");
}

bool DocumentReader::read_grant(const Value& element) {
    Grant grant;
    grant.offset = element.begin;
    if (!expect(element, hujson::Kind::Object, "grants")) return false;
    for (const auto& member : element.members) {
        if (is_illustrative(member.name.text))
            return fail(
                member.name,
                fmt::format("{} is how articles explain a grant, not how one is written: src for who, ip or app "
                            "for can, dst for to, and a comment for because; `policy lint --fix` rewrites it",
                            quoted(member.name.text)));
    }
    const Value* via = nullptr;
    const Value* destinations = nullptr;
    const bool read = read_object(
        element, "grants",
        {{"src", [&](const Value& value) { return read_selectors(value, "src", Position::Source, grant.sources); }},
         {"dst",
          [&](const Value& value) {
              destinations = &value;
              return read_selectors(value, "dst", Position::Destination, grant.destinations);
          }},
         {"ip",
          [&](const Value& value) {
              return each_element(value, "ip",
                                  [&](const Value& item) { return read_grant_ports(item, grant.ip.emplace_back()); });
          }},
         {"app", [&](const Value& value) { return read_app(value, true, grant.app); }},
         {"srcPosture", [&](const Value& value) { return read_posture_names(value, "srcPosture", grant.postures); }},
         {"via", [&](const Value& value) {
              via = &value;
              return true;
          }}});
    if (!read) return false;
    if (grant.ip.empty() && grant.app.empty()) return fail(element, "ip and app can not both be empty");
    for (std::size_t i = 0; i < grant.destinations.size(); ++i) {
        const auto& destination = grant.destinations[i];
        const auto& at = destinations->elements[i];
        if (destination.is(Autogroup::Internet) && !grant.app.empty())
            return fail(at, "cannot use app grants with autogroup:internet");
        if (destination.kind == Selector::Kind::Prefix && destination.prefix.is_default())
            return fail(at, fmt::format("dst {}: to allow all IP addresses, use \"*\" or \"autogroup:internet\"",
                                        quoted(destination.text)));
        if (destination.is(Autogroup::Self) && !check_self(grant.sources, destination, false, at)) return false;
    }
    if (via != nullptr) {
        const bool named = each_element(*via, "via", [&](const Value& item) {
            if (!expect(item, hujson::Kind::String, "via")) return false;
            std::string tag{trim(item.text)};
            if (!tag.starts_with("tag:")) return fail(item, "via can only be a tag");
            if (document_.tag_owners.count(tag) == 0) return fail(item, fmt::format("tag {} not found", quoted(tag)));
            grant.via.push_back(std::move(tag));
            return true;
        });
        if (!named) return false;
    }
    document_.grants->push_back(std::move(grant));
    return true;
}

bool DocumentReader::read_grant_ports(const Value& value, GrantPorts& out) {
    if (!expect(value, hujson::Kind::String, "ip")) return false;
    const auto text = trim(value.text);
    const auto colon = text.find(':');
    if (colon != text.rfind(':')) return fail(value, "expected only one colon in Internet protocol and port type");
    auto ports_text = text;
    if (colon != std::string_view::npos) {
        const auto spelled = text.substr(0, colon);
        ports_text = text.substr(colon + 1);
        auto protocol = parse_protocol(spelled);
        if (!protocol) return fail(value, protocol.error().message());
        out.protocol = *protocol;
    }
    auto ports = parse_port_range(ports_text);
    if (!ports) return fail(value, ports.error().message());
    out.ports = *ports;
    if (out.protocol) {
        if (auto allowed = check_ports_allowed(*out.protocol, text.substr(0, colon), {out.ports}); !allowed)
            return fail(value, allowed.error().message());
    }
    return true;
}

bool DocumentReader::read_app(const Value& value, bool restricted, CapabilityValues& out) {
    return each_member(value, "app", [&](const std::string& name, const Value& at, const Value& values) {
        const auto slash = name.find('/');
        if (restricted) {
            if (name.find("://") != std::string::npos || slash == std::string::npos || slash == 0 ||
                slash + 1 == name.size())
                return fail(at, "capability name must have the form {domain}/{path}");
            if (to_lower(name.substr(0, slash)) == "tailscale.com" && !is_open_capability(name))
                return fail(at, "capability name must not be in the tailscale.com domain");
        }
        auto& entry = out.emplace_back(name, std::vector<std::string>{});
        if (values.kind == hujson::Kind::Null) return true;
        const bool is_connectors = !restricted && name == kAppConnectorsCap && is_ == PolicyIs::New;
        return each_element(values, fmt::format("app[{}]", quoted(name)), [&](const Value& item) {
            if (!expect(item, hujson::Kind::Object, fmt::format("app[{}]", quoted(name)))) return false;
            if (is_connectors && !check_app_connector(item)) return false;
            entry.second.push_back(hujson::minimize(tree_.text(), item));
            return true;
        });
    });
}

/// Goes to agents as it stands: what they could not read, or would find nothing by, is said here.
bool DocumentReader::check_app_connector(const Value& entry) {
    const auto what = [](const char* member) { return fmt::format("app[\"{}\"].{}", kAppConnectorsCap, member); };
    const auto each_string = [&](const char* member, const std::function<Result<void>(const std::string&)>& check) {
        return Field{member, [this, member, what, check](const Value& value) {
                         return each_element(value, what(member), [&](const Value& item) {
                             if (!expect(item, hujson::Kind::String, what(member))) return false;
                             auto good = check(item.text);
                             return good || fail(item, fmt::format("{}: {}", what(member), good.error().message()));
                         });
                     }};
    };
    const auto check_connector = [this](const std::string& name) -> Result<void> {
        if (name == "*") return {};
        if (!name.starts_with("tag:")) return Error::make("{}: want a tag, or * for all that offer it", quoted(name));
        if (document_.tag_owners.count(name) == 0) return Error::make("tag not found: {}", quoted(name));
        return {};
    };
    return read_object(entry, fmt::format("app[\"{}\"]", kAppConnectorsCap),
                       {{"name", [&](const Value& value) { return expect(value, hujson::Kind::String, what("name")); }},
                        each_string("connectors", check_connector),
                        each_string("domains", [](const std::string& name) { return check_app_domain(name); }),
                        each_string("routes", [](const std::string& route) { return check_app_route(route); })});
}

bool DocumentReader::read_node_attribute(const Value& element) {
    // Addresses that the service keeps for itself inside 100.64.0.0/10.
    static const IpPrefix kReserved[] = {*IpPrefix::parse("100.100.100.0/24"), *IpPrefix::parse("100.115.92.0/23")};
    NodeAttribute entry;
    entry.offset = element.begin;
    const bool read = read_object(
        element, "nodeAttrs",
        {{"target",
          [&](const Value& value) {
              return read_selectors(value, "target", Position::AttributeTarget, entry.targets);
          }},
         {"attr", [&](const Value& value) { return read_strings(value, "attr", entry.attributes); }},
         {"app", [&](const Value& value) { return read_app(value, false, entry.app); }},
         {"ipPool", [&](const Value& value) {
              return each_element(value, "ipPool", [&](const Value& item) {
                  if (!expect(item, hujson::Kind::String, "ipPool")) return false;
                  auto prefix = IpPrefix::parse(trim(item.text));
                  if (!prefix || !prefix->valid())
                      return fail(item, fmt::format("IPPool({}): invalid prefix", item.text));
                  if (!cgnat_prefix().contains(*prefix))
                      return fail(item, fmt::format("IPPool({}): network not within 100.64.0.0/10", prefix->text()));
                  for (const auto& reserved : kReserved) {
                      if (reserved.overlaps(*prefix))
                          return fail(item, fmt::format("IPPool({}): network within reserved range", prefix->text()));
                  }
                  entry.ip_pool.push_back(prefix->masked());
                  return true;
              });
          }}});
    if (!read) return false;
    document_.node_attributes.push_back(std::move(entry));
    return true;
}

} // namespace tailrace
