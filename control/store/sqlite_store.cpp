#include "control/store/sqlite_store.hpp"

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "control/store/migrations.hpp"
#include "control/tailnet/attributes.hpp"
#include "control/tailnet/services.hpp"

#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include <fcntl.h>
#include <sys/stat.h>

namespace tailrace {

namespace {

/// A value in the file that is not what we wrote; thrown within this file only.
struct Damaged {
    std::string what;
};

template <typename T>
T parsed(std::string_view text, const char* column) {
    auto value = T::parse(text);
    if (!value) throw Damaged{fmt::format("{}: {}", column, value.error().message())};
    return *value;
}

template <typename T>
T from_json(std::string_view text, const char* column) {
    auto value = json::parse<T>(text);
    if (!value) throw Damaged{fmt::format("{}: {}", column, value.error().message())};
    return std::move(*value);
}

std::string write_regional(const RegionalRoutes& routes) {
    std::map<std::string, std::vector<int>> named;
    for (const auto& [route, regions] : routes) named.emplace(route.text(), regions);
    return json::write(named);
}

RegionalRoutes read_regional(std::string_view text) {
    constexpr const char* kColumn = "nodes.regional_routes";
    RegionalRoutes out;
    for (auto& [route, regions] : from_json<std::map<std::string, std::vector<int>>>(text, kColumn))
        out.emplace(parsed<IpPrefix>(route, kColumn), std::move(regions));
    return out;
}

std::array<std::byte, 32> hash_in(std::string_view text, const char* column) {
    std::array<std::byte, 32> out{};
    auto bytes = hex_decode(text);
    if (!bytes || bytes->size() != out.size()) throw Damaged{column};
    std::copy(bytes->begin(), bytes->end(), out.begin());
    return out;
}

/// SQLite wants two of its own words explained to people.
std::string explained(const std::string& path, std::string_view message) {
    auto has = [&](std::string_view part) { return message.find(part) != std::string_view::npos; };
    if (has("disk is full")) return fmt::format("write {}: the disk is full: make room and try again", path);
    if (has("readonly") || has("unable to open") || has("Cannot establish"))
        return fmt::format("open {}: no permission to write the file or its directory ({})", path, message);
    if (has("locked")) return fmt::format("open {}: another process is using it: end that one", path);
    return fmt::format("database {}: {}", path, message);
}

/// What SQLite said, without SOCI's story around it and in one line.
std::string message_of(const std::exception& bad) {
    auto* soci_error = dynamic_cast<const soci::soci_error*>(&bad);
    std::string text = soci_error != nullptr ? soci_error->get_error_message() : bad.what();
    if (auto at = text.find(": "); text.starts_with("sqlite3_") && at != std::string::npos) text.erase(0, at + 2);
    return text.substr(0, text.find('\n'));
}

bool is_damage(std::string_view message) {
    return message.find("malformed") != std::string_view::npos ||
           message.find("not a database") != std::string_view::npos;
}

/// Keeps a copy for whoever repairs it, and says what to do.
Error damaged(const std::string& path, std::string_view what) {
    std::string copy = path + ".damaged";
    std::string note = "no copy could be made";
    struct ::stat there {};
    if (::stat(copy.c_str(), &there) == 0) {
        note = fmt::format("a copy is in {}", copy);
    } else if (auto content = read_file(path, std::size_t{4} << 30); content) {
        if (write_file_atomically(copy, *content, 0600)) note = fmt::format("a copy is in {}", copy);
    }
    return Error::make(
        "the database {} is damaged ({}) and was left as it is, {}: restore a backup over it, or move it "
        "away to begin with an empty tailnet",
        path, what, note);
}

} // namespace

struct SqliteStore::Impl {
    std::string path;
    soci::session sql;

    void pragma(const std::string& text) { sql << text; }

    std::string single(const std::string& query) {
        std::string value;
        sql << query, soci::into(value);
        return value;
    }

    void migrate() {
        int version = std::stoi(single("SELECT CAST(user_version AS TEXT) FROM pragma_user_version"));
        const int newest = static_cast<int>(kMigrations.size());
        if (version > newest)
            throw Damaged{fmt::format("its schema {} is newer than this program, which knows {}", version, newest)};
        for (; version < newest; ++version) {
            soci::transaction all_or_nothing{sql};
            std::string_view rest = kMigrations[static_cast<std::size_t>(version)];
            for (std::size_t end; (end = rest.find(";\n")) != std::string_view::npos; rest = rest.substr(end + 2))
                sql << std::string{rest.substr(0, end)};
            sql << fmt::format("PRAGMA user_version = {}", version + 1);
            all_or_nothing.commit();
        }
    }

    void raise_counter(const std::string& name, std::int64_t value) {
        long long number = value;
        sql << "INSERT INTO counters(name, value) VALUES(:n, :v) "
               "ON CONFLICT(name) DO UPDATE SET value = max(value, excluded.value)",
            soci::use(name), soci::use(number);
    }
    std::int64_t counter(const std::string& name) {
        long long value = 0;
        sql << "SELECT coalesce(max(value), 0) FROM counters WHERE name = :n", soci::use(name), soci::into(value);
        return value;
    }

    void apply(const PutUser& op) {
        const User& user = *op.user;
        long long id = user.id;
        std::string created = user.created.text(), role{role_name(user.role)};
        sql << "INSERT INTO users(id, name, display_name, created, role) "
               "VALUES(:id, :name, :display, :created, :role) "
               "ON CONFLICT(id) DO UPDATE SET name = excluded.name, display_name = excluded.display_name, "
               "role = excluded.role",
            soci::use(id), soci::use(user.name), soci::use(user.display_name), soci::use(created), soci::use(role);
        raise_counter("user", user.id);
    }
    void apply(const DeleteUser& op) {
        long long id = op.id;
        sql << "DELETE FROM users WHERE id = :id", soci::use(id);
    }
    void apply(const PutAuthKey& op) {
        const AuthKey& key = *op.key;
        long long id = key.id, user = key.user, client = key.oauth_client;
        int reusable = key.reusable, ephemeral = key.ephemeral, preapproved = key.preapproved;
        std::string hash = hex_encode(key.secret_hash), tags = json::write(key.tags), created = key.created.text(),
                    expires = key.expires.text(), used = key.used.text(), revoked = key.revoked.text();
        sql << "INSERT OR REPLACE INTO auth_keys(id, prefix, secret_hash, user_id, tags, reusable, ephemeral, "
               "preapproved, created, expires, used, revoked, description, oauth_client_id) "
               "VALUES(:id, :prefix, :hash, :user, :tags, :reusable, :ephemeral, :preapproved, :created, :expires, "
               ":used, :revoked, :description, :client)",
            soci::use(id), soci::use(key.prefix), soci::use(hash), soci::use(user), soci::use(tags),
            soci::use(reusable), soci::use(ephemeral), soci::use(preapproved), soci::use(created), soci::use(expires),
            soci::use(used), soci::use(revoked), soci::use(key.description), soci::use(client);
        raise_counter("auth_key", key.id);
    }
    void apply(const DeleteAuthKey& op) {
        long long id = op.id;
        sql << "DELETE FROM auth_keys WHERE id = :id", soci::use(id);
    }
    void apply(const PutOAuthClient& op) {
        const OAuthClient& client = *op.client;
        long long id = client.id;
        std::string hash = hex_encode(client.secret_hash), scopes = json::write(client.scopes),
                    tags = json::write(client.tags), created = client.created.text(), revoked = client.revoked.text();
        sql << "INSERT OR REPLACE INTO oauth_clients(id, prefix, secret_hash, scopes, tags, created, revoked, "
               "description) VALUES(:id, :prefix, :hash, :scopes, :tags, :created, :revoked, :description)",
            soci::use(id), soci::use(client.prefix), soci::use(hash), soci::use(scopes), soci::use(tags),
            soci::use(created), soci::use(revoked), soci::use(client.description);
        raise_counter("oauth_client", client.id);
    }
    void apply(const PutNode& op) {
        const NodeRecord& node = op.node->record;
        long long id = node.id, user = node.user, auth_key = node.auth_key;
        int fixed = node.name_is_fixed, ephemeral = node.ephemeral, authorized = node.authorized,
            falls = node.router_falls, gone = node.router_gone;
        std::string machine = node.machine_key.text(), key = node.node_key.text(), tags = json::write(node.tags),
                    v4 = node.v4.text(), v6 = node.v6.text(), created = node.created.text(),
                    expiry = node.key_expiry.text(), routes = json::write(node.approved_routes),
                    by_policy = json::write(node.policy_routes), revoked = json::write(node.revoked_routes),
                    primary = json::write(node.primary_routes), since = node.router_since.text(),
                    regional = write_regional(node.regional_routes), attributes = write_attributes(node.attributes),
                    hosting = write_hosting(node.hosting);
        sql << "INSERT INTO nodes(id, machine_key, node_key, hostname, given_name, name_is_fixed, user_id, tags, v4, "
               "v6, ephemeral, authorized, auth_key_id, created, key_expiry, approved_routes, "
               "policy_routes, revoked_routes, primary_routes, router_since, attributes, hosting, regional_routes, "
               "router_falls, router_gone) "
               "VALUES(:id, :machine, :key, :hostname, :given, :fixed, :user, :tags, :v4, :v6, :ephemeral, "
               ":authorized, :auth_key, :created, :expiry, :routes, :by_policy, :revoked, :primary, :since, "
               ":attributes, :hosting, :regional, :falls, :gone) "
               "ON CONFLICT(id) DO UPDATE SET machine_key = excluded.machine_key, node_key = excluded.node_key, "
               "hostname = excluded.hostname, given_name = excluded.given_name, "
               "name_is_fixed = excluded.name_is_fixed, user_id = excluded.user_id, tags = excluded.tags, "
               "v4 = excluded.v4, v6 = excluded.v6, ephemeral = excluded.ephemeral, "
               "authorized = excluded.authorized, auth_key_id = excluded.auth_key_id, "
               "key_expiry = excluded.key_expiry, approved_routes = excluded.approved_routes, "
               "policy_routes = excluded.policy_routes, revoked_routes = excluded.revoked_routes, "
               "primary_routes = excluded.primary_routes, router_since = excluded.router_since, "
               "attributes = excluded.attributes, hosting = excluded.hosting, regional_routes = "
               "excluded.regional_routes, "
               "router_falls = excluded.router_falls, router_gone = excluded.router_gone",
            soci::use(id), soci::use(machine), soci::use(key), soci::use(node.hostname), soci::use(node.given_name),
            soci::use(fixed), soci::use(user), soci::use(tags), soci::use(v4), soci::use(v6), soci::use(ephemeral),
            soci::use(authorized), soci::use(auth_key), soci::use(created), soci::use(expiry), soci::use(routes),
            soci::use(by_policy), soci::use(revoked), soci::use(primary), soci::use(since), soci::use(attributes),
            soci::use(hosting), soci::use(regional), soci::use(falls), soci::use(gone);
        raise_counter("node", node.id);
    }
    void apply(const DeleteNode& op) {
        long long id = op.id;
        sql << "DELETE FROM nodes WHERE id = :id", soci::use(id);
    }
    void apply(const PutReport& op) {
        const NodeReport& report = op.node->report;
        long long id = op.node->id();
        int online = report.online;
        std::string disco = report.disco_key.text(), endpoints = json::write(report.endpoints),
                    routable = json::write(report.routable_ips), seen = report.last_seen.text(),
                    services = wire::write_vip_services(report.announced);
        sql << "INSERT OR REPLACE INTO reports(node_id, disco_key, endpoints, home_derp, cap_version, hostinfo, "
               "routable, last_seen, online, services) "
               "SELECT :id, :disco, :endpoints, :derp, :cap, :hostinfo, :routable, :seen, :online, :services "
               "WHERE EXISTS (SELECT 1 FROM nodes WHERE id = :same)",
            soci::use(id), soci::use(disco), soci::use(endpoints), soci::use(report.home_derp),
            soci::use(report.cap_version), soci::use(report.hostinfo), soci::use(routable), soci::use(seen),
            soci::use(online), soci::use(services), soci::use(id);
    }
    void apply(const PutService& op) {
        const Service& service = *op.service;
        std::string v4 = service.v4.text(), v6 = service.v6.text(), tags = json::write(service.tags),
                    ports = json::write(service_ports_text(service.ports)), created = service.created.text();
        sql << "INSERT OR REPLACE INTO services(name, v4, v6, tags, ports, created) "
               "VALUES(:name, :v4, :v6, :tags, :ports, :created)",
            soci::use(service.name), soci::use(v4), soci::use(v6), soci::use(tags), soci::use(ports),
            soci::use(created);
    }
    void apply(const DeleteService& op) { sql << "DELETE FROM services WHERE name = :name", soci::use(op.name); }
    void apply(const PutPolicy& op) {
        sql << "INSERT OR REPLACE INTO settings(name, value) VALUES('policy', :text)", soci::use(op.text);
    }

    void load_users(StoredTailnet& out) {
        soci::rowset<soci::row> rows =
            (sql.prepare << "SELECT id, name, display_name, created, role FROM users ORDER BY id");
        for (const auto& row : rows) {
            User user;
            user.id = row.get<int>(0);
            user.name = row.get<std::string>(1);
            user.display_name = row.get<std::string>(2);
            user.created = parsed<WallTime>(row.get<std::string>(3), "users.created");
            auto role = parse_role(row.get<std::string>(4));
            if (!role) throw Damaged{"users.role: " + role.error().message()};
            user.role = *role;
            out.users.push_back(std::move(user));
        }
    }
    void load_auth_keys(StoredTailnet& out) {
        soci::rowset<soci::row> rows =
            (sql.prepare << "SELECT id, prefix, secret_hash, user_id, tags, reusable, ephemeral, preapproved, "
                            "created, expires, used, revoked, description, oauth_client_id FROM auth_keys ORDER BY id");
        for (const auto& row : rows) {
            AuthKey key;
            key.id = row.get<int>(0);
            key.prefix = row.get<std::string>(1);
            key.secret_hash = hash_in(row.get<std::string>(2), "auth_keys.secret_hash");
            key.user = row.get<int>(3);
            key.tags = from_json<std::vector<std::string>>(row.get<std::string>(4), "auth_keys.tags");
            key.reusable = row.get<int>(5) != 0;
            key.ephemeral = row.get<int>(6) != 0;
            key.preapproved = row.get<int>(7) != 0;
            key.created = parsed<WallTime>(row.get<std::string>(8), "auth_keys.created");
            key.expires = parsed<WallTime>(row.get<std::string>(9), "auth_keys.expires");
            key.used = parsed<WallTime>(row.get<std::string>(10), "auth_keys.used");
            key.revoked = parsed<WallTime>(row.get<std::string>(11), "auth_keys.revoked");
            key.description = row.get<std::string>(12);
            key.oauth_client = row.get<int>(13);
            out.auth_keys.push_back(std::move(key));
        }
    }
    void load_oauth_clients(StoredTailnet& out) {
        soci::rowset<soci::row> rows = (sql.prepare << "SELECT id, prefix, secret_hash, scopes, tags, created, "
                                                       "revoked, description FROM oauth_clients ORDER BY id");
        for (const auto& row : rows) {
            OAuthClient client;
            client.id = row.get<int>(0);
            client.prefix = row.get<std::string>(1);
            client.secret_hash = hash_in(row.get<std::string>(2), "oauth_clients.secret_hash");
            client.scopes = from_json<std::vector<std::string>>(row.get<std::string>(3), "oauth_clients.scopes");
            client.tags = from_json<std::vector<std::string>>(row.get<std::string>(4), "oauth_clients.tags");
            client.created = parsed<WallTime>(row.get<std::string>(5), "oauth_clients.created");
            client.revoked = parsed<WallTime>(row.get<std::string>(6), "oauth_clients.revoked");
            client.description = row.get<std::string>(7);
            out.oauth_clients.push_back(std::move(client));
        }
    }
    void load_services(StoredTailnet& out) {
        soci::rowset<soci::row> rows =
            (sql.prepare << "SELECT name, v4, v6, tags, ports, created FROM services ORDER BY name");
        for (const auto& row : rows) {
            Service service;
            service.name = row.get<std::string>(0);
            service.v4 = parsed<IpAddress>(row.get<std::string>(1), "services.v4");
            service.v6 = parsed<IpAddress>(row.get<std::string>(2), "services.v6");
            service.tags = from_json<std::vector<std::string>>(row.get<std::string>(3), "services.tags");
            auto ports =
                parse_service_ports(from_json<std::vector<std::string>>(row.get<std::string>(4), "services.ports"));
            if (!ports) throw Damaged{"services.ports: " + ports.error().message()};
            service.ports = std::move(*ports);
            service.created = parsed<WallTime>(row.get<std::string>(5), "services.created");
            out.services.push_back(std::move(service));
        }
    }
    void load_nodes(StoredTailnet& out) {
        soci::rowset<soci::row> rows =
            (sql.prepare
             << "SELECT id, machine_key, node_key, hostname, given_name, name_is_fixed, user_id, tags, v4, v6, "
                "ephemeral, authorized, auth_key_id, created, key_expiry, approved_routes, "
                "coalesce(disco_key, ''), coalesce(endpoints, '[]'), coalesce(home_derp, 0), "
                "coalesce(cap_version, 0), coalesce(hostinfo, ''), coalesce(routable, '[]'), "
                "coalesce(last_seen, created), coalesce(online, 0), policy_routes, revoked_routes, primary_routes, "
                "router_since, attributes, hosting, coalesce(services, '{}'), regional_routes, "
                "router_falls, router_gone "
                "FROM nodes LEFT JOIN reports ON reports.node_id = nodes.id ORDER BY id");
        for (const auto& row : rows) {
            Node node;
            NodeRecord& record = node.record;
            record.id = row.get<int>(0);
            record.machine_key = parsed<MachineKey>(row.get<std::string>(1), "nodes.machine_key");
            record.node_key = parsed<NodeKey>(row.get<std::string>(2), "nodes.node_key");
            record.hostname = row.get<std::string>(3);
            record.given_name = row.get<std::string>(4);
            record.name_is_fixed = row.get<int>(5) != 0;
            record.user = row.get<int>(6);
            record.tags = from_json<std::vector<std::string>>(row.get<std::string>(7), "nodes.tags");
            record.v4 = parsed<IpAddress>(row.get<std::string>(8), "nodes.v4");
            record.v6 = parsed<IpAddress>(row.get<std::string>(9), "nodes.v6");
            record.ephemeral = row.get<int>(10) != 0;
            record.authorized = row.get<int>(11) != 0;
            record.auth_key = row.get<int>(12);
            record.created = parsed<WallTime>(row.get<std::string>(13), "nodes.created");
            record.key_expiry = parsed<WallTime>(row.get<std::string>(14), "nodes.key_expiry");
            record.approved_routes =
                from_json<std::vector<IpPrefix>>(row.get<std::string>(15), "nodes.approved_routes");
            NodeReport& report = node.report;
            if (std::string disco = row.get<std::string>(16); !disco.empty())
                report.disco_key = parsed<DiscoKey>(disco, "reports.disco_key");
            report.endpoints = from_json<std::vector<Endpoint>>(row.get<std::string>(17), "reports.endpoints");
            report.home_derp = static_cast<int>(std::stoll(row.get<std::string>(18)));
            report.cap_version = static_cast<int>(std::stoll(row.get<std::string>(19)));
            report.hostinfo = row.get<std::string>(20);
            report.routable_ips = from_json<std::vector<IpPrefix>>(row.get<std::string>(21), "reports.routable");
            report.last_seen = parsed<WallTime>(row.get<std::string>(22), "reports.last_seen");
            report.online = row.get<std::string>(23) != "0";
            record.policy_routes = from_json<std::vector<IpPrefix>>(row.get<std::string>(24), "nodes.policy_routes");
            record.revoked_routes = from_json<std::vector<IpPrefix>>(row.get<std::string>(25), "nodes.revoked_routes");
            record.primary_routes = from_json<std::vector<IpPrefix>>(row.get<std::string>(26), "nodes.primary_routes");
            record.router_since = parsed<WallTime>(row.get<std::string>(27), "nodes.router_since");
            auto attributes = read_attributes(row.get<std::string>(28));
            if (!attributes) throw Damaged{"nodes.attributes: " + attributes.error().message()};
            record.attributes = std::move(*attributes);
            auto hosting = read_hosting(row.get<std::string>(29));
            if (!hosting) throw Damaged{"nodes.hosting: " + hosting.error().message()};
            record.hosting = std::move(*hosting);
            auto announced = wire::parse_vip_services(row.get<std::string>(30));
            if (!announced) throw Damaged{"reports.services: " + announced.error().message()};
            report.announced = std::move(*announced);
            record.regional_routes = read_regional(row.get<std::string>(31));
            record.router_falls = row.get<int>(32);
            record.router_gone = row.get<int>(33) != 0;
            out.nodes.push_back(std::move(node));
        }
    }
};

SqliteStore::SqliteStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SqliteStore::~SqliteStore() = default;

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::string& path) {
    // Made here, so that nobody else can read it from the first byte on. SQLite gives its -wal the same mode.
    Fd file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (!file) return Error::from_errno(errno, "open the database {}", path);
    auto impl = std::make_unique<Impl>();
    impl->path = path;
    try {
        impl->sql.open(soci::sqlite3, fmt::format("dbname={} timeout=5 shared_cache=false", path));
        impl->pragma("PRAGMA busy_timeout = 5000");
        if (auto check = impl->single("SELECT quick_check FROM pragma_quick_check(1)"); check != "ok")
            return damaged(path, check.substr(0, check.find('\n')));
        impl->pragma("PRAGMA journal_mode = WAL");
        impl->pragma("PRAGMA synchronous = FULL");
        impl->pragma("PRAGMA foreign_keys = ON");
        impl->migrate();
    } catch (const Damaged& bad) {
        return Error::make("the database {} can't be used: {}", path, bad.what);
    } catch (const std::exception& bad) {
        if (is_damage(message_of(bad))) return damaged(path, message_of(bad));
        return Error::make("{}", explained(path, message_of(bad)));
    }
    return std::unique_ptr<SqliteStore>{new SqliteStore{std::move(impl)}};
}

Result<StoredTailnet> SqliteStore::load() {
    StoredTailnet out;
    try {
        impl_->load_users(out);
        impl_->load_auth_keys(out);
        impl_->load_oauth_clients(out);
        impl_->load_services(out);
        impl_->load_nodes(out);
        std::string policy;
        soci::indicator there = soci::i_null;
        impl_->sql << "SELECT value FROM settings WHERE name = 'policy'", soci::into(policy, there);
        if (impl_->sql.got_data() && there == soci::i_ok) out.policy = policy;
        out.last_user = impl_->counter("user");
        out.last_auth_key = impl_->counter("auth_key");
        out.last_oauth_client = impl_->counter("oauth_client");
        out.last_node = impl_->counter("node");
    } catch (const Damaged& bad) {
        return damaged(impl_->path, bad.what);
    } catch (const std::exception& bad) {
        if (is_damage(message_of(bad))) return damaged(impl_->path, message_of(bad));
        return Error::make("{}", explained(impl_->path, message_of(bad)));
    }
    return out;
}

Result<void> SqliteStore::commit(const std::vector<StoreOperations>& groups) {
    try {
        soci::transaction all_or_nothing{impl_->sql};
        for (const StoreOperations& group : groups)
            for (const StoreOperation& operation : group)
                std::visit([&](const auto& op) { impl_->apply(op); }, operation);
        all_or_nothing.commit();
    } catch (const std::exception& bad) {
        return Error::make("{}", explained(impl_->path, message_of(bad)));
    }
    return {};
}

} // namespace tailrace
