// What any local user may send to the agent's socket: the head that decides who gets in, and the bodies behind it.
#include "agent/cli/format.hpp"
#include "agent/coordination/c2n.hpp"
#include "agent/local/pretty_json.hpp"
#include "agent/local/status.hpp"
#include "agent/services/hosted_services.hpp"
#include "agent/store/prefs.hpp"
#include "base/io/http.hpp"
#include "base/json/json.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view text{reinterpret_cast<const char*>(data), size};
    HttpRequest request;
    request.target = std::string{text};
    (void)request.path();
    (void)request.query("ip");

    Prefs prefs;
    prefs.hostname = "kept";
    if (auto changed = apply_masked_prefs(prefs, text)) {
        if (changed->config) std::abort(); // keys never come from outside
        (void)check_prefs(*changed);
        auto again = parse_prefs(write_prefs(*changed));
        if (!again || !(*again == *changed)) std::abort();
    }
    if (auto whole = parse_prefs(text)) {
        auto again = parse_prefs(write_prefs(*whole));
        if (!again || !(*again == *whole)) std::abort();
    }
    if (auto value = json::parse_value(text)) (void)pretty_json(json::write_value(*value), "  ");
    (void)pretty_json(text, "\t");
    if (auto status = parse_status(text)) (void)cli::addresses_of_service(*status, "web");
    (void)cli::whois_text(text);
    (void)cli::scrub_auth_keys(text);
    auto answer = [] { return std::string{"{}"}; };
    (void)answer_c2n(text, {answer, answer});
    wire::Node self;
    self.cap_map[kServiceHostCap] = {RawJson{std::string{text}}};
    Prefs offers;
    offers.advertise_services = std::vector<std::string>{"svc:web"};
    for (const IpAddress& address : hosted_services(self, offers).addresses)
        if (!is_tailscale_address(address)) std::abort(); // it would stay on the device
    return 0;
}
