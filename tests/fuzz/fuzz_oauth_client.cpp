// Any text as an OAuth client's secret with what follows it, and as the answer of an API to its questions.
#include "agent/coordination/oauth_client.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    std::string text{reinterpret_cast<const char*>(bytes), size};
    if (auto client = OAuthClientSecret::parse(text)) {
        HttpRequest request = oauth_token_request(*client);
        if (request.body.find_first_of(" \r\n") != std::string::npos) std::abort();
        if (!client->base_url.empty()) {
            auto url = Url::parse(client->base_url);
            if (!url || url->target.find_first_of(" \r\n?") != std::string::npos) std::abort();
        }
    }
    for (int status : {200, 401, 503}) {
        HttpResponse response = HttpResponse::json(status, text);
        for (auto answer : {parse_oauth_token(response), parse_oauth_key(response)}) {
            if (!answer) continue;
            if (answer->text.empty() == answer->refusal.empty()) std::abort();
            if ((answer->text + answer->refusal).find_first_of("\r\n") != std::string::npos) std::abort();
        }
    }
    return 0;
}
