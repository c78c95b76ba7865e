// What a peer asks an exit node about names, and what a resolver answers.
#include "agent/peerapi/dns_proxy.hpp"
#include "proto/dns_query.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    std::string_view text{reinterpret_cast<const char*>(bytes), size};
    HttpRequest request;
    request.target = "/dns-query?dns=" + std::string{text};
    (void)dns_message_of(request);
    request.method = "POST";
    request.headers.add("Content-Type", "application/dns-message");
    request.body = text;
    auto message = dns_message_of(request);
    if (auto* query = std::get_if<Bytes>(&message)) {
        Bytes answer = *query;
        answer[2] |= std::byte{0x80};
        if (!is_dns_answer(*query, answer)) std::abort(); // its own question, as an answer
        (void)is_dns_truncated(answer);
    }
    if (size > 40) // two messages
        (void)is_dns_answer(as_bytes(text.substr(0, 40)), as_bytes(text.substr(40)));
    (void)resolvers_in(text);
    return 0;
}
