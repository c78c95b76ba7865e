// proto/portmap/igd.hpp - UPnP Internet gateways: their description, and the SOAP calls that forward a port. Source:
// UPnP WANIPConnection:1 and :2; derp-disco-paths.md 5.5. XML by pugixml, which knows no entities but the five of XML
// itself.
#pragma once
#include "base/net.hpp"
#include "base/result.hpp"

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::igd {

constexpr std::size_t kMaxXmlBytes = 128 * 1024; ///< of any document that we read
constexpr std::size_t kMaxDepth = 32;            ///< of elements in one another; real descriptions have 9
constexpr std::size_t kMaxServices = 16;         ///< that we look at
constexpr std::size_t kMaxValue = 512;           ///< bytes of a text that we keep

struct Service {
    std::string_view type;   ///< one of those below
    std::string control_url; ///< as written: absolute, or relative to the description's
    bool operator==(const Service&) const = default;
};
constexpr std::string_view kIp2 = "urn:schemas-upnp-org:service:WANIPConnection:2";
constexpr std::string_view kIp1 = "urn:schemas-upnp-org:service:WANIPConnection:1";
constexpr std::string_view kPpp1 = "urn:schemas-upnp-org:service:WANPPPConnection:1";
constexpr std::string_view kOldPpp1 = "urn:dslforum-org:service:WANPPPConnection:1";
constexpr std::string_view kOldIp1 = "urn:dslforum-org:service:WANIPConnection:1";

struct Description {
    std::string url_base;          ///< what relative URLs mean, where it says so
    std::vector<Service> services; ///< that can forward ports, the best kind first
};
Result<Description> parse_description(std::string_view xml);

/// A call: the value of the SOAPAction header, and the body.
struct Call {
    std::string action;
    std::string body;
};
struct AddPortMapping {
    std::uint16_t external_port = 0, internal_port = 0;
    IpAddress internal_client;
    std::chrono::seconds lease{}; ///< 0: for ever
};
/// AddAnyPortMapping where the service has it (kIp2): the gateway may choose another port, and says which.
Call write_add(std::string_view service, const AddPortMapping& mapping);
Call write_delete(std::string_view service, std::uint16_t external_port);
Call write_get_external_address(std::string_view service);
Call write_get_status(std::string_view service);

constexpr int kInvalidArgs = 402, kConflict = 718, kOnlyPermanentLeases = 725;

/// What a call gave: values by name, or the UPnP error code of a fault.
struct Answer {
    std::map<std::string, std::string, std::less<>> values;
    std::optional<int> fault; ///< 0: a fault without a code

    std::string_view value(std::string_view name) const;
};
Result<Answer> parse_answer(std::string_view xml);

} // namespace tailrace::igd
