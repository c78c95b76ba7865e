#include "agent/cli/scrub.hpp"

#include "agent/cli/format.hpp"
#include "base/text.hpp"

#include <cctype>

namespace tailrace::cli {
namespace {

bool is_word(char c) {
    auto u = static_cast<unsigned char>(c);
    return std::isalnum(u) || c == '-' || c == '_' || c == '+' || c == '/' || c == '=' || c == '.';
}

/// From `at` on: what stands between a name and its value, then the value's characters become X.
void hide_value(std::string& out, std::size_t at) {
    while (at < out.size() && (out[at] == ' ' || out[at] == ':' || out[at] == '=' || out[at] == '"' || out[at] == '\t'))
        ++at;
    if (out.compare(at, 8, "(hidden)") == 0 || out.compare(at, 6, "(none)") == 0) return;
    for (; at < out.size() && (is_word(out[at]) || out[at] == ':'); ++at) out[at] = 'X';
}

} // namespace

std::string scrub_secrets(std::string_view text) {
    std::string out = scrub_auth_keys(text);
    std::string lower = to_lower(out);
    for (std::string_view name : {"privkey:", "nlpriv:", "private key", "private_key", "privatekey", "privatenodekey",
                                  "preshared key", "presharedkey", "preshared_key", "networklockkey", "authkey\"",
                                  "auth_key", "auth-key:", "client-secret", "client_secret", "password"})
        for (std::size_t at = lower.find(name); at != std::string::npos; at = lower.find(name, at + 1))
            hide_value(out, at + name.size());
    for (std::size_t at = lower.find("/register/"); at != std::string::npos; at = lower.find("/register/", at + 1))
        hide_value(out, at + 10);
    for (std::size_t at = out.find("://"); at != std::string::npos; at = out.find("://", at + 3)) {
        std::size_t end = out.find_first_of("/ \n\"'", at + 3);
        std::size_t user_end = out.find('@', at + 3);
        if (user_end == std::string::npos || (end != std::string::npos && user_end > end)) continue;
        for (std::size_t i = at + 3; i < user_end; ++i) out[i] = 'X';
    }
    return out;
}

} // namespace tailrace::cli
