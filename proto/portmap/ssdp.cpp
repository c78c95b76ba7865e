#include "proto/portmap/ssdp.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <tuple>

namespace tailrace::ssdp {

std::string write_search(std::string_view target) {
    return fmt::format("M-SEARCH * HTTP/1.1\r\nHOST: {}:{}\r\nST: {}\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\n\r\n",
                       kGroup, kPort, target);
}

Result<Answer> parse_answer(BytesView datagram) {
    if (datagram.size() > kMaxSize) return Error::make("SSDP answer: longer than {} bytes", kMaxSize);
    std::string_view text = as_chars(datagram);
    if (text.find(":InternetGatewayDevice:") == std::string_view::npos)
        return Error::make("SSDP answer: not of an Internet gateway");
    auto lines = split(text, '\n');
    auto status = split(trim(lines.front()), ' ');
    if (status.size() < 2 || !status[0].starts_with("HTTP/1.") || status[1] != "200")
        return Error::make("SSDP answer: it does not begin with \"HTTP/1.1 200\"");
    Answer answer;
    for (std::size_t i = 1; i < lines.size(); ++i) {
        std::string_view line = trim(lines[i]);
        if (line.empty()) break;
        auto colon = line.find(':');
        if (colon == std::string_view::npos) continue;
        std::string_view name = trim(line.substr(0, colon)), value = trim(line.substr(colon + 1));
        if (value.size() > kMaxField) continue;
        if (equals_ignoring_case(name, "location")) {
            answer.location = value;
        } else if (equals_ignoring_case(name, "server")) {
            answer.server = value;
        } else if (equals_ignoring_case(name, "usn")) {
            answer.usn = value;
        } else if (equals_ignoring_case(name, "bootid.upnp.org")) {
            if (auto number = parse_number<std::uint32_t>(value)) answer.boot_id = *number;
        }
    }
    if (answer.location.empty()) return Error::make("SSDP answer: it names no location");
    return answer;
}

void sort_answers(std::vector<Answer>& answers) {
    // "...InternetGatewayDevice:2" before "...:1".
    std::ranges::sort(answers, [](const Answer& a, const Answer& b) {
        return std::tie(b.usn, a.location, a.server) < std::tie(a.usn, b.location, b.server);
    });
    std::vector<Answer> kept;
    for (Answer& answer : answers) {
        bool known = std::ranges::any_of(
            kept, [&](const Answer& one) { return one.location == answer.location && one.server == answer.server; });
        if (!known) kept.push_back(std::move(answer));
    }
    answers = std::move(kept);
}

} // namespace tailrace::ssdp
