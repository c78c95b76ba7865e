// control/store/migrations.hpp - the schema, step by step. A step that has been released never changes: add another.
#pragma once
#include <array>
#include <string_view>

namespace tailrace {

/// Step n brings schema n to n + 1. SQLite keeps the number in PRAGMA user_version. Statements end in ";\n".
inline constexpr std::array kMigrations{
    std::string_view{R"(
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE users (
    id           INTEGER PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    created      TEXT NOT NULL
);
CREATE TABLE auth_keys (
    id          INTEGER PRIMARY KEY,
    prefix      TEXT NOT NULL UNIQUE,
    secret_hash TEXT NOT NULL,
    user_id     INTEGER NOT NULL,
    tags        TEXT NOT NULL,
    reusable    INTEGER NOT NULL,
    ephemeral   INTEGER NOT NULL,
    preapproved INTEGER NOT NULL,
    created     TEXT NOT NULL,
    expires     TEXT NOT NULL,
    used        TEXT NOT NULL,
    revoked     TEXT NOT NULL,
    description TEXT NOT NULL
);
CREATE TABLE nodes (
    id              INTEGER PRIMARY KEY,
    machine_key     TEXT NOT NULL,
    node_key        TEXT NOT NULL,
    hostname        TEXT NOT NULL,
    given_name      TEXT NOT NULL,
    name_is_fixed   INTEGER NOT NULL,
    user_id         INTEGER NOT NULL,
    tags            TEXT NOT NULL,
    v4              TEXT NOT NULL,
    v6              TEXT NOT NULL,
    ephemeral       INTEGER NOT NULL,
    authorized      INTEGER NOT NULL,
    auth_key_id     INTEGER NOT NULL,
    created         TEXT NOT NULL,
    key_expiry      TEXT NOT NULL,
    approved_routes TEXT NOT NULL
);
CREATE UNIQUE INDEX nodes_by_node_key ON nodes(node_key);
CREATE TABLE reports (
    node_id     INTEGER PRIMARY KEY REFERENCES nodes(id) ON DELETE CASCADE,
    disco_key   TEXT NOT NULL,
    endpoints   TEXT NOT NULL,
    home_derp   INTEGER NOT NULL,
    cap_version INTEGER NOT NULL,
    hostinfo    TEXT NOT NULL,
    routable    TEXT NOT NULL,
    last_seen   TEXT NOT NULL,
    online      INTEGER NOT NULL
);
)"},
    std::string_view{R"(
ALTER TABLE nodes ADD COLUMN policy_routes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE nodes ADD COLUMN revoked_routes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE nodes ADD COLUMN primary_routes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE nodes ADD COLUMN router_since TEXT NOT NULL DEFAULT '0001-01-01T00:00:00Z';
)"},
    std::string_view{R"(
ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'member';
ALTER TABLE nodes ADD COLUMN attributes TEXT NOT NULL DEFAULT '[]';
)"},
    std::string_view{R"(
CREATE TABLE oauth_clients (
    id          INTEGER PRIMARY KEY,
    prefix      TEXT NOT NULL UNIQUE,
    secret_hash TEXT NOT NULL,
    scopes      TEXT NOT NULL,
    tags        TEXT NOT NULL,
    created     TEXT NOT NULL,
    revoked     TEXT NOT NULL,
    description TEXT NOT NULL
);
ALTER TABLE auth_keys ADD COLUMN oauth_client_id INTEGER NOT NULL DEFAULT 0;
)"},
    std::string_view{R"(
CREATE TABLE services (
    name    TEXT PRIMARY KEY,
    v4      TEXT NOT NULL,
    v6      TEXT NOT NULL,
    tags    TEXT NOT NULL,
    ports   TEXT NOT NULL,
    created TEXT NOT NULL
) WITHOUT ROWID;
ALTER TABLE nodes ADD COLUMN hosting TEXT NOT NULL DEFAULT '[]';
ALTER TABLE reports ADD COLUMN services TEXT NOT NULL DEFAULT '{}';
)"},
    std::string_view{R"(
ALTER TABLE nodes ADD COLUMN regional_routes TEXT NOT NULL DEFAULT '{}';
ALTER TABLE nodes ADD COLUMN router_falls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN router_gone INTEGER NOT NULL DEFAULT 0;
)"},
};

} // namespace tailrace
