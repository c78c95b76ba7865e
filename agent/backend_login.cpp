// Preferences, and who we are to the coordination server.
#include "agent/backend.hpp"
#include "agent/coordination/oauth_client.hpp"
#include "base/json/json.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "base/text.hpp"

namespace tailrace {

namespace {

std::string new_profile_id() {
    return hex_encode(random_array<2>());
}

} // namespace

Result<void> Backend::edit_prefs(Prefs wanted) {
    wanted = with_connector_routes(std::move(wanted));
    if (auto good = check_prefs(wanted); !good) return good;
    remember_exit_node(prefs_, wanted);
    auto changed = changed_prefs(prefs_, wanted);
    if (changed.empty()) return {};
    if (auto closed = close_past_tunnel(wanted); !closed) return closed.error().with("the exit node is not used");
    if (auto saved = save_prefs(wanted); !saved) return saved;
    connector_.routes_are_saved();
    bool was_running = prefs_.want_running;
    bool other_server = prefs_.control_url != wanted.control_url;
    prefs_ = std::move(wanted);
    publish("\"Prefs\":" + write_prefs(prefs_.without_secrets()));
    if (!prefs_.want_running && was_running) {
        stop();
        auth_url_.clear();
        login_trouble_.clear();
        in_map_poll_ = false;
        login_pending_ = false;
    } else if (prefs_.want_running && (!was_running || other_server)) {
        if (prefs_.config && prefs_.config->has_node_key() && !prefs_.logged_out) {
            if (!netmap_.has_self()) load_netmap();
            connect(ControlClient::Login::Restore, "");
        }
    }
    update_report();
    update_state();
    wake_engine();
    return {};
}

Result<void> Backend::start_with(Prefs wanted, std::string auth_key) {
    const bool other_server = prefs_.control_url != wanted.control_url;
    if (!other_server) wanted = with_connector_routes(std::move(wanted));
    if (auto good = check_prefs(wanted); !good) return good;
    if (auto good = check_oauth_login(auth_key, wanted.tags()); !good) return good;
    wanted.config = prefs_.config;
    remember_exit_node(prefs_, wanted);
    auto how = prefs_.tags() == wanted.tags() ? ControlClient::Login::Restore : ControlClient::Login::Readmit;
    if (other_server && wanted.config && wanted.config->has_node_key() && !prefs_.control_url.empty()) {
        wanted.config.reset(); // who we are there is nothing to the new server
        netmap_ = Netmap{};
        netmap_from_control_ = false;
    }
    if (other_server) {
        stop();
        connector_.restore({});
    }
    wanted.logged_out = false;
    if (auto closed = close_past_tunnel(wanted); !closed) return closed.error().with("the exit node is not used");
    if (auto saved = save_prefs(wanted); !saved) return saved;
    prefs_ = std::move(wanted);
    publish("\"Prefs\":" + write_prefs(prefs_.without_secrets()));
    auth_url_.clear();
    engine_trouble_told_.clear(); // whoever asked now shall hear of it again
    login_pending_ = true;
    bool has_key = prefs_.config && prefs_.config->has_node_key();
    auth_key_does_it_ = !has_key && !auth_key.empty();
    // An auth key means a new login only for who has none: a container that starts again with its key stays who it is.
    if (prefs_.want_running && (has_key || !auth_key.empty())) connect(how, std::move(auth_key));
    update_state();
    wake_engine();
    return {};
}

Result<void> Backend::login_interactive() {
    if (prefs_.control_url.empty()) return Error::make("no coordination server is known; name it with --login-server");
    prefs_.logged_out = false;
    // `up` asks for a login without waiting for what its auth key does, which may be done already.
    if (std::exchange(auth_key_does_it_, false)) return {};
    login_pending_ = true;
    std::string key = control_ ? control_->auth_key() : "";
    connect(ControlClient::Login::Interactive, std::move(key));
    update_state();
    return {};
}

/// Over a connection of its own when there is none: after `down`.
Task<Result<void>> Backend::tell_control_of_logout() {
    if (!prefs_.config || !prefs_.config->has_node_key()) co_return Result<void>{}; // it does not know us
    if (control_) co_return co_await control_->logout();
    auto settings = control_settings();
    if (!settings) co_return settings.error();
    ControlClient client{reactor_, std::move(*settings), *this, report()};
    co_return co_await client.logout();
}

Task<Result<void>> Backend::logout() {
    auto alive = alive_;
    auto told = co_await tell_control_of_logout();
    if (!*alive) co_return Error::make("the agent ended");
    Result<void> outcome;
    if (!told) {
        outcome =
            Error::make("logged out, but control was not told: {}; run \"tailrace-control nodes expire {}\" "
                        "there, else it goes on trusting this node's key",
                        told.error().message(), netmap_.has_self() ? netmap_.self().name : report().hostinfo.hostname);
        log::warn("control was not told of the logout", {{"error", told.error()}});
    }
    stop();
    Prefs gone;
    gone.control_url = prefs_.control_url;
    gone.logged_out = true;
    gone.operator_user = prefs_.operator_user;
    if (!profile_id_.empty()) {
        ::unlink(netmap_path().c_str()); // first: on a full disk it makes room
        auto erased = store_.erase({"profile-" + profile_id_, connector_key(), "_profiles", "_current-profile"});
        if (erased)
            profile_id_.clear();
        else
            outcome = Error::make("the login cannot be erased, so that the next start of tailraced would be logged in "
                                  "again: {}; make room and run \"tailrace logout\" again{}",
                                  erased.error().message(), told ? "" : "; " + outcome.error().message());
    }
    prefs_ = gone;
    connector_.restore({});
    connector_saved_ = {};
    netmap_ = Netmap{};
    netmap_from_control_ = false;
    auth_url_.clear();
    login_trouble_.clear();
    login_pending_ = false;
    in_map_poll_ = false;
    publish("\"Prefs\":" + write_prefs(prefs_.without_secrets()));
    update_state();
    wake_engine();
    co_return outcome;
}

void Backend::on_login_url(const std::string& url) {
    auth_url_ = url;
    std::string member = "\"BrowseToURL\":";
    json::append_string(member, url);
    publish(member);
    log::info("somebody must visit a page to let this node in", {{"url", url}});
    update_state();
}

void Backend::on_logged_in(const NodePrivateKey& node_key, const NodePrivateKey& old_key,
                           const wire::RegisterResponse& answer) {
    Prefs prefs = prefs_;
    if (!prefs.config) prefs.config.emplace();
    prefs.config->private_node_key = node_key.text_for_storing();
    prefs.config->old_private_node_key = old_key.is_zero() ? Persist::zero_node_key() : old_key.text_for_storing();
    prefs.config->network_lock_key = lock_key_.text_for_storing();
    prefs.config->user_profile = {answer.user.id, answer.login.login_name, answer.login.display_name,
                                  answer.login.profile_pic_url};
    prefs.logged_out = false;
    prefs_ = prefs;
    auth_url_.clear();
    login_trouble_.clear();
    login_pending_ = false;
    bool fresh = profile_id_.empty();
    if (fresh) profile_id_ = new_profile_id();
    Result<void> saved = save_prefs(prefs_);
    if (saved && fresh) {
        std::string profile = fmt::format("{{\"{0}\":{{\"ID\":\"{0}\",\"Name\":", profile_id_);
        json::append_string(profile, answer.login.login_name);
        profile += fmt::format(
            ",\"Key\":\"profile-{}\",\"UserProfile\":{},\"NodeID\":\"\",\"LocalUserID\":\"\",\"ControlURL\":",
            profile_id_, json::write(prefs_.config->user_profile));
        json::append_string(profile, prefs_.control_url);
        saved = store_.set("_profiles", profile + "}}");
        if (saved) saved = store_.set("_current-profile", "profile-" + profile_id_);
    }
    if (!saved) {
        store_trouble_ = saved.error().message();
        log::error("the login was not saved: the next start will need a new one", {{"error", saved.error()}});
        publish_error(
            fmt::format("logged in, but the login cannot be saved ({}); make room and run \"tailrace up\" again",
                        saved.error().message()));
    } else {
        store_trouble_.clear();
    }
    publish("\"LoginFinished\":{}");
    update_state();
    wake_engine();
}

void Backend::on_login_refused(const std::string& text) {
    login_trouble_ = text;
    login_pending_ = false;
    log::warn("control refused the login", {{"text", text}});
    update_state();
    publish_error(fmt::format("{} refused the login: {}; see to that, or get another auth key from whoever runs the "
                              "server, and run \"tailrace up\" again",
                              prefs_.control_url, text));
}

void Backend::on_key_expired() {
    login_pending_ = true;
    log::warn("the node key has expired; somebody must log in again", {});
    update_state();
}

} // namespace tailrace
