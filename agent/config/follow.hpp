// agent/config/follow.hpp - keeps the agent at what tailraced.yaml declares.
#pragma once
#include "agent/backend.hpp"
#include "agent/config/config.hpp"
#include "agent/local/server.hpp"

#include <functional>
#include <string>

namespace tailrace {

class ConfigFollower {
public:
    /// `read` reads `path` again, with the flags of the command line above it. `path` is empty when there is no file.
    using Read = std::function<Result<AgentConfig>()>;
    ConfigFollower(std::string path, AgentConfig config, Read read, Backend& backend, LocalServer& server);

    /// Puts in force what the file declares, and locks the preferences where it wants that.
    void apply();
    /// Reads the file again; what is wrong with it leaves the old one in force, and is told in health.
    void reload();
    OnStop on_stop() const { return config_.daemon.on_stop; }

private:
    Result<void> apply_prefs();

    std::string path_;
    AgentConfig config_;
    Read read_;
    Backend& backend_;
    LocalServer& server_;
};

} // namespace tailrace
