// Any bytes as a form, as the Authorization header of a request, and as the request to the API that has them.
#include "base/form.hpp"
#include "control/api/api.hpp"
#include "control/api/credentials.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

namespace {

/// Nobody has an OAuth client here.
TailnetState& empty_tailnet() {
    static TailnetState tailnet = [] {
        TailnetState::Settings settings;
        settings.prefix_v4 = cgnat_prefix();
        settings.prefix_v6 = tailscale_ula_prefix();
        return TailnetState{settings, {}, {}, WallTime::from_unix(1)};
    }();
    return tailnet;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    std::string_view text{reinterpret_cast<const char*>(bytes), size};
    if (auto fields = parse_form(text)) {
        std::string again;
        for (const auto& [name, value] : *fields) again += percent_encode(name) + "=" + percent_encode(value) + "&";
        auto same = parse_form(again);
        if (!same || *same != *fields) std::abort();
    }
    auto line = text.find('\n');
    std::string_view first = text.substr(0, line), rest = line == text.npos ? "" : text.substr(line + 1);
    HttpRequest request;
    request.method = "POST";
    request.headers.add("Authorization", std::string{first});
    if (auto asked = parse_token_request(request.headers, rest); asked && asked->secret.size() > size) std::abort();
    if (access_token_of(request.headers).size() > size) std::abort();
    Api api;
    request.body = rest;
    for (std::string target :
         {std::string{"/api/v2/oauth/token"}, std::string{"/api/v2/tailnet/-/keys"}, "/api/" + std::string{first}}) {
        request.target = std::move(target);
        auto answer = api.answer(empty_tailnet(), WallTime::from_unix(2), request);
        // Nobody is let in, and what says so can be read by tools.
        if (answer.changed || answer.response.status / 100 != 4 || !answer.response.body.starts_with("{\"message\":\""))
            std::abort();
    }
    return 0;
}
