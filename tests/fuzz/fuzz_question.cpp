// What `debug explain` asks, from any local user: source, destination, port and protocol, a line each.
#include "agent/engine/explanation.hpp"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view text{reinterpret_cast<const char*>(data), size};
    std::array<std::string_view, 4> words{};
    for (std::string_view& word : words) {
        auto end = text.find('\n');
        word = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    }
    auto question = parse_question(words[0], words[1], words[2], words[3]);
    if (!question) return 0;
    if (!question->source.valid() || question->source.is_v4() != question->destination.is_v4()) std::abort();
    Bytes packet = question_packet(*question);
    std::size_t header = question->source.is_v4() ? 20 : 40;
    if (packet.size() < header + 20) std::abort();
    bool v4 = question->source.is_v4();
    if (packet[v4 ? 9 : 6] != std::byte{question->protocol}) std::abort();
    // Said again in its own words it is the same question.
    auto again = parse_question(question->source.text(), question->destination.text(), std::to_string(question->port),
                                std::to_string(question->protocol));
    if (!again || question_packet(*again) != packet) std::abort();
    const std::vector<KnownRule> rules{{{{"*", "cap:a"}, {{"*", {22, 22}, false}}, {}, {}, false}, {{3, 0}}}};
    (void)write_explanation(*question, {false, "no-rule", 0}, std::nullopt, {"a"}, rules);
    return 0;
}
