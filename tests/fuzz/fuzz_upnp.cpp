// What a UPnP gateway says: the first byte chooses SSDP answer, device description or SOAP answer.
#include "proto/portmap/igd.hpp"
#include "proto/portmap/ssdp.hpp"

#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    if (size == 0) return 0;
    BytesView data{reinterpret_cast<const std::byte*>(bytes + 1), size - 1};
    if (bytes[0] % 3 == 0) {
        auto answer = ssdp::parse_answer(data);
        if (!answer) return 0;
        if (answer->location.empty() || answer->location.size() > ssdp::kMaxField) std::abort();
        std::vector<ssdp::Answer> answers{*answer, *answer};
        ssdp::sort_answers(answers);
        if (answers.size() != 1) std::abort();
    } else if (bytes[0] % 3 == 1) {
        auto description = igd::parse_description(as_chars(data));
        if (!description) return 0;
        if (description->services.size() > igd::kMaxServices) std::abort();
        for (const igd::Service& service : description->services)
            if (service.control_url.empty() || service.control_url.size() > igd::kMaxValue) std::abort();
    } else {
        auto answer = igd::parse_answer(as_chars(data));
        if (answer && answer->fault && !answer->values.empty()) std::abort();
    }
    return 0;
}
