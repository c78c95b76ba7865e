// base/cli/mistakes.hpp - what CLI11 says too little about.
#pragma once
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tailrace {

/// A word that is no subcommand, or one that is missing, as a sentence: "tailrace debug: unknown subcommand: x". Empty
/// when neither is the matter. `words` are the arguments without the program's name.
std::string subcommand_mistake(const CLI::App& app, const std::vector<std::string>& words);

} // namespace tailrace
