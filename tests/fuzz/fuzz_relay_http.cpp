// The first bytes of a stranger at the relay's door: a head, and what we answer to it.
#include "relay/http/pages.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;
using namespace tailrace::relay;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    std::string_view text{reinterpret_cast<const char*>(bytes), size};
    (void)parse_response_head(text);
    auto head = parse_request_head(text);
    if (!head || !*head) return 0;
    if ((*head)->size > size) std::abort();
    for (Door door : {Door::Derp, Door::HttpOnly, Door::Metrics}) {
        PageContext context;
        context.door = door;
        Answer reply = answer(**head, context);
        const std::string& response = reply.upgrade ? reply.upgrade->response : reply.response;
        // What they say must not become a field of ours.
        std::string_view fields = std::string_view{response}.substr(0, response.find("\r\n\r\n"));
        for (std::size_t at = 0; (at = fields.find('\n', at)) != std::string_view::npos; ++at)
            if (at == 0 || fields[at - 1] != '\r') std::abort();
    }
    return 0;
}
