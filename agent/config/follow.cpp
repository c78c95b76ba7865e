#include "agent/config/follow.hpp"

#include "agent/coordination/oauth_client.hpp"
#include "base/file.hpp"
#include "base/text.hpp"

namespace tailrace {
namespace {

/// The auth key to log in with, or the secret that makes one; "" when there is none.
Result<std::string> read_key(const AgentConfig& config) {
    const bool is_client = !config.oauth_client_file.empty();
    const std::string& path = is_client ? config.oauth_client_file : config.auth_key_file;
    const char* setting = is_client ? "oauth-client-file" : "auth-key-file";
    if (path.empty()) return std::string{};
    auto text = read_file(path, 64 << 10);
    if (!text) return text.error().with("{}", setting);
    std::string key{trim(*text)};
    if (key.empty()) return Error::make("{}: {} is empty", setting, path);
    if (auto client = OAuthClientSecret::parse(key); is_client && !client)
        return client.error().with("{}: {}", setting, path);
    return key;
}

} // namespace

ConfigFollower::ConfigFollower(std::string path, AgentConfig config, Read read, Backend& backend, LocalServer& server)
    : path_(std::move(path)), config_(std::move(config)), read_(std::move(read)), backend_(backend), server_(server) {}

Result<void> ConfigFollower::apply_prefs() {
    const Prefs& current = backend_.prefs();
    auto wanted = declared_prefs(config_, current);
    if (!wanted) return wanted.error();
    bool is_known = current.config && current.config->has_node_key() && !current.logged_out;
    if (!config_.enabled || (is_known && wanted->control_url == current.control_url))
        return backend_.edit_prefs(std::move(*wanted));
    auto key = read_key(config_); // only a node that must log in needs it: it may be gone by then
    if (!key) return key.error();
    bool by_hand = key->empty();
    if (auto started = backend_.start_with(std::move(*wanted), std::move(*key)); !started) return started;
    return by_hand ? backend_.login_interactive() : Result<void>{};
}

void ConfigFollower::apply() {
    bool locks = config_.declares_prefs && config_.locked;
    server_.lock_prefs(locks ? path_ : "");
    if (!config_.declares_prefs) return;
    auto applied = apply_prefs();
    if (!applied) log::error("the configuration is not in force", {{"file", path_}, {"error", applied.error()}});
    backend_.set_config_trouble(applied ? "" : fmt::format("{}: {}", path_, applied.error().message()));
}

void ConfigFollower::reload() {
    if (path_.empty()) {
        log::info("nothing to reload: tailraced was started without --config", {});
        return;
    }
    auto fresh = read_();
    if (!fresh) {
        log::error("the configuration was not reloaded", {{"error", fresh.error()}});
        backend_.set_config_trouble(
            fmt::format("{} (the configuration that was read before is still in force)", fresh.error().message()));
        return;
    }
    auto changed = changed_options(config_.daemon, fresh->daemon);
    if (!changed.empty())
        log::warn("some changes need \"systemctl restart tailraced\"",
                  {{"file", path_}, {"keys", join(changed, ", ")}});
    backend_.set_config_trouble("");
    config_ = std::move(*fresh);
    log::set_level(config_.daemon.log_level);
    log::info("configuration reloaded", {{"file", path_}});
    apply();
}

} // namespace tailrace
