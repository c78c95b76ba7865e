// agent/cli/pref_flags.hpp - the flags of `up` and `set` that are preferences, in one table (cli-localapi.md 2.1).
#pragma once
#include "agent/store/prefs.hpp"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tailrace::cli {

struct PrefFlag {
    enum class Kind { Bool, Text };
    enum class Where { Both, UpOnly, SetOnly };
    const char* name; ///< without dashes
    Kind kind;
    Where where;
    std::vector<std::string> prefs; ///< JSON names of what it changes
    const char* help;
    Result<void> (*assign)(Prefs& prefs, const std::string& value);
    std::string (*value)(const Prefs& prefs);
};
const std::vector<PrefFlag>& pref_flags();
/// As it is given to a command: "--ssh", "--ssh=false", "--hostname='a b'".
std::string flag_text(const PrefFlag& flag, const std::string& value);

/// What was given on a command line: flag name -> text.
using GivenFlags = std::map<std::string, std::string>;

void add_pref_flags(CLI::App& app, PrefFlag::Where command, GivenFlags& given);

/// The complete preferences that `up` asks for: flags given over defaults.
Result<Prefs> prefs_of_up(const GivenFlags& given, const Prefs& current);
/// `current` with the flags given; exit-node and subnet routes each keep the other.
Result<Prefs> prefs_of_set(const GivenFlags& given, const Prefs& current);
/// JSON names of what the given flags change.
std::vector<std::string> prefs_named(const GivenFlags& given);
/// Empty, or why `up` must not go on: settings that it would silently reset. `other_flags` are the arguments given that
/// are no preferences, as "--timeout=3s".
std::string missing_flags_text(const GivenFlags& given,
                               const std::vector<std::pair<std::string, std::string>>& other_flags,
                               const Prefs& current, const Prefs& wanted);

} // namespace tailrace::cli
