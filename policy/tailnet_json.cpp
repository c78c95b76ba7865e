// policy/tailnet_json.cpp - reads and writes tailnets.
#include "policy/tailnet_json.hpp"

#include "base/json/json.hpp"
#include "policy/hujson.hpp"
#include "policy/quote.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <functional>
#include <set>

namespace tailrace {
namespace {

class TailnetReader {
public:
    using Value = hujson::Value;
    using Kind = hujson::Kind;

    explicit TailnetReader(const hujson::Tree& tree) : tree_(tree) {}

    Result<Tailnet> read() {
        const bool good = members(tree_.root(), "the tailnet", [&](const std::string& name, const Value& value) {
            if (name == "domain") return string(value, name, tailnet_.domain);
            if (name == "users") return each(value, name, [&](const Value& user) { return read_user(user); });
            if (name == "nodes") return each(value, name, [&](const Value& node) { return read_node(node); });
            if (name == "services") return each(value, name, [&](const Value& one) { return read_service(one); });
            return true; // written by a later version
        });
        if (!good || !resolve()) return Error::make("{}", problem_);
        return std::move(tailnet_);
    }

private:
    bool fail(const Value& at, std::string why) {
        if (problem_.empty()) problem_ = fmt::format("{}: {}", tree_.position_of(at).text(), why);
        return false;
    }
    bool expect(const Value& value, Kind kind, std::string_view what) {
        return value.kind == kind ||
               fail(value, fmt::format("{}: want {}, not {}", what, name_of(kind), name_of(value.kind)));
    }
    bool string(const Value& value, std::string_view what, std::string& out) {
        if (!expect(value, Kind::String, what)) return false;
        out = value.text;
        return true;
    }
    bool number(const Value& value, std::string_view what, std::int64_t& out) {
        auto parsed = value.kind == Kind::Number ? parse_number<std::int64_t>(value.text) : Result<std::int64_t>{0};
        if (value.kind != Kind::Number || !parsed || *parsed <= 0)
            return fail(value, fmt::format("{}: want a whole number above 0", what));
        out = *parsed;
        return true;
    }
    bool each(const Value& array, std::string_view what, const std::function<bool(const Value&)>& read) {
        if (array.kind == Kind::Null) return true;
        return expect(array, Kind::Array, what) && std::all_of(array.elements.begin(), array.elements.end(), read);
    }
    bool members(const Value& object, std::string_view what,
                 const std::function<bool(const std::string&, const Value&)>& read) {
        return expect(object, Kind::Object, what) &&
               std::all_of(object.members.begin(), object.members.end(),
                           [&](const hujson::Member& member) { return read(member.name.text, member.value); });
    }
    template <typename T>
    bool list(const Value& array, std::string_view what, std::vector<T>& out) {
        return each(array, what, [&](const Value& item) {
            std::string text;
            if (!string(item, what, text)) return false;
            auto parsed = T::parse(text);
            if (!parsed || !parsed->valid()) return fail(item, fmt::format("{}: {} is not one", what, quoted(text)));
            out.push_back(*parsed);
            return true;
        });
    }

    bool read_user(const Value& object) {
        auto& user = tailnet_.users.emplace_back();
        const bool good = members(object, "a user", [&](const std::string& name, const Value& value) {
            if (name == "id") return number(value, "id", user.id);
            if (name == "login") return string(value, "login", user.login);
            if (name != "role") return true;
            std::string role;
            if (!string(value, "role", role)) return false;
            auto known = parse_role(role);
            if (!known) return fail(value, known.error().message());
            user.role = *known;
            return true;
        });
        return good && (!user.login.empty() || fail(object, "a user needs a login"));
    }

    bool read_node(const Value& object) {
        auto& node = tailnet_.nodes.emplace_back();
        auto& owner = owners_.emplace_back();
        const bool good = members(object, "a node", [&](const std::string& name, const Value& value) {
            if (name == "id") return number(value, "id", node.id);
            if (name == "name") return string(value, "name", node.name);
            if (name == "user" && value.kind == Kind::Number) return number(value, "user", node.user);
            if (name == "user" && value.kind != Kind::Null) return string(value, "user", owner);
            if (name == "addresses") return list(value, "an address", node.addresses);
            if (name == "routes") return list(value, "a route", node.routes);
            if (name == "primaries") return list(value, "a route", node.primaries);
            if (name == "tags")
                return each(value, "tags",
                            [&](const Value& tag) { return string(tag, "tags", node.tags.emplace_back()); });
            if (name == "online") {
                node.online = value.truth;
                return expect(value, Kind::Bool, "online");
            }
            if (name == "appConnector") {
                node.app_connector = value.truth;
                return expect(value, Kind::Bool, "appConnector");
            }
            if (name == "attributes") return value.kind == Kind::Null || read_attributes(value, node);
            return true;
        });
        if (good && node.addresses.empty()) return fail(object, "a node needs addresses");
        if (good && node.tags.empty() && owner.empty() && node.user == 0)
            return fail(object, "a node needs a user or tags");
        return good;
    }

    bool read_service(const Value& object) {
        auto& service = tailnet_.services.emplace_back();
        const bool good = members(object, "a service", [&](const std::string& name, const Value& value) {
            if (name == "name") return string(value, "name", service.name);
            if (name == "addresses") return list(value, "an address", service.addresses);
            if (name != "ports") return true;
            return each(value, "ports", [&](const Value& item) {
                std::string text;
                if (!string(item, "ports", text)) return false;
                auto ports = parse_port_range(text);
                if (!ports) return fail(item, ports.error().message());
                service.ports.push_back(*ports);
                return true;
            });
        });
        if (good && !service.name.starts_with("svc:"))
            return fail(object, "a service needs a name that begins with svc:");
        return good && (!service.addresses.empty() || fail(object, "a service needs addresses"));
    }

    bool read_attributes(const Value& object, TailnetNode& node) {
        return members(object, "attributes", [&](const std::string& name, const Value& value) {
            if (value.kind == Kind::String) {
                node.attributes[name] = value.text;
            } else if (value.kind == Kind::Bool) {
                node.attributes[name] = value.truth;
            } else if (value.kind == Kind::Number) {
                node.attributes[name] = std::strtod(value.text.c_str(), nullptr);
            } else {
                return fail(value, fmt::format("attributes[{}]: want a string, a number, true or false", quoted(name)));
            }
            return true;
        });
    }

    /// Gives IDs to whatever has none, and nodes their users.
    bool resolve() {
        if (!number_all(tailnet_.users, "users") || !number_all(tailnet_.nodes, "nodes")) return false;
        for (std::size_t i = 0; i < owners_.size(); ++i) {
            if (owners_[i].empty()) continue;
            auto found = std::find_if(tailnet_.users.begin(), tailnet_.users.end(),
                                      [&](const TailnetUser& user) { return user.login == owners_[i]; });
            if (found == tailnet_.users.end()) {
                std::int64_t last = 0;
                for (const auto& user : tailnet_.users) last = std::max(last, user.id);
                tailnet_.users.push_back({last + 1, owners_[i], UserRole::Member});
                found = tailnet_.users.end() - 1;
            }
            tailnet_.nodes[i].user = found->id;
        }
        std::sort(tailnet_.nodes.begin(), tailnet_.nodes.end(),
                  [](const auto& a, const auto& b) { return a.id < b.id; });
        std::sort(tailnet_.users.begin(), tailnet_.users.end(),
                  [](const auto& a, const auto& b) { return a.id < b.id; });
        choose_primaries(tailnet_);
        return true;
    }

    template <typename T>
    bool number_all(std::vector<T>& all, const char* what) {
        std::set<std::int64_t> taken;
        for (const auto& item : all) {
            if (item.id != 0 && !taken.insert(item.id).second) {
                problem_ = fmt::format("{}: the id {} is there twice", what, item.id);
                return false;
            }
        }
        std::int64_t next = taken.empty() ? 0 : *taken.rbegin();
        for (auto& item : all) {
            if (item.id == 0) item.id = ++next;
        }
        return true;
    }

    const hujson::Tree& tree_;
    Tailnet tailnet_;
    std::vector<std::string> owners_; ///< of the nodes, by login
    std::string problem_;
};

template <typename T>
void append_texts(std::string& out, const char* name, const std::vector<T>& list) {
    if (list.empty()) return;
    std::vector<std::string> texts;
    for (const auto& item : list) texts.push_back(item.text());
    out += fmt::format(",\"{}\":", name);
    json::append(out, texts);
}

} // namespace

std::string tailnet_json(const Tailnet& tailnet) {
    std::string out = "{\"domain\":";
    json::append(out, tailnet.domain);
    out += ",\"users\":[";
    for (const auto& user : tailnet.users) {
        out += fmt::format("{}\n {{\"id\":{},\"login\":", &user == &tailnet.users.front() ? "" : ",", user.id);
        json::append(out, user.login);
        out += fmt::format(",\"role\":\"{}\"}}", role_name(user.role));
    }
    out += "],\n\"nodes\":[";
    for (const auto& node : tailnet.nodes) {
        out += fmt::format("{}\n {{\"id\":{},\"name\":", &node == &tailnet.nodes.front() ? "" : ",", node.id);
        json::append(out, node.name);
        if (node.is_tagged()) {
            out += ",\"tags\":";
            json::append(out, node.tags);
        } else {
            out += fmt::format(",\"user\":{}", node.user);
        }
        append_texts(out, "addresses", node.addresses);
        append_texts(out, "routes", node.routes);
        append_texts(out, "primaries", node.primaries);
        if (!node.online) out += ",\"online\":false";
        if (node.app_connector) out += ",\"appConnector\":true";
        if (!node.attributes.empty()) {
            out += ",\"attributes\":{";
            for (const auto& [name, value] : node.attributes) {
                if (out.back() != '{') out += ',';
                json::append(out, name);
                out += ':';
                std::visit([&](const auto& each) { json::append(out, each); }, value);
            }
            out += '}';
        }
        out += '}';
    }
    out += ']';
    if (!tailnet.services.empty()) out += ",\n\"services\":[";
    for (const auto& service : tailnet.services) {
        out += fmt::format("{}\n {{\"name\":", &service == &tailnet.services.front() ? "" : ",");
        json::append(out, service.name);
        append_texts(out, "addresses", service.addresses);
        std::vector<std::string> ports;
        for (const auto& range : service.ports) ports.push_back(ports_text({range}));
        if (!ports.empty()) out += ",\"ports\":";
        if (!ports.empty()) json::append(out, ports);
        out += '}';
    }
    if (!tailnet.services.empty()) out += ']';
    return out + "}\n";
}

Result<Tailnet> parse_tailnet(std::string_view text) {
    auto tree = hujson::Tree::parse(std::string{text});
    if (!tree) return tree.error();
    return TailnetReader{*tree}.read();
}

} // namespace tailrace
