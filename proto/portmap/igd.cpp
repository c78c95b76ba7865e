#include "proto/portmap/igd.hpp"

#include "base/text.hpp"

#include <pugixml.hpp>

#include <algorithm>
#include <array>

namespace tailrace::igd {
namespace {

constexpr std::array kKinds{kIp2, kIp1, kPpp1, kOldPpp1, kOldIp1}; // the best first
constexpr std::size_t kMaxValues = 32;

/// Without its prefix: which ones gateways use for which namespace is anybody's guess.
std::string_view local_name(const pugi::xml_node& node) {
    std::string_view name = node.name();
    auto colon = name.rfind(':');
    return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

pugi::xml_node child(const pugi::xml_node& parent, std::string_view name) {
    for (const pugi::xml_node& one : parent.children())
        if (local_name(one) == name) return one;
    return {};
}

/// Empty when there is none, or one longer than anything that we have a use for.
std::string text_of(const pugi::xml_node& node) {
    std::string_view text = trim(node.text().get());
    return std::string{text.size() > kMaxValue ? std::string_view{} : text};
}

/// Calls visit(element, depth) for all elements in the order of the document; false when they are nested too deep.
template <typename Visit>
bool visit_all(const pugi::xml_node& root, Visit visit) {
    std::size_t depth = 1;
    pugi::xml_node at = root;
    for (;;) {
        if (at.type() == pugi::node_element) visit(at);
        if (auto below = at.first_child()) {
            if (++depth > kMaxDepth) return false;
            at = below;
            continue;
        }
        while (at != root && !at.next_sibling()) {
            at = at.parent();
            --depth;
        }
        if (at == root) return true;
        at = at.next_sibling();
    }
}

Result<pugi::xml_node> parse(pugi::xml_document& document, std::string_view xml, const char* what) {
    if (xml.size() > kMaxXmlBytes) return Error::make("{}: longer than {} bytes", what, kMaxXmlBytes);
    // A DOCTYPE is skipped, so it declares nothing; references to what it would declare stay as they are written.
    constexpr unsigned kOptions = pugi::parse_minimal | pugi::parse_cdata | pugi::parse_escapes;
    auto parsed = document.load_buffer(xml.data(), xml.size(), kOptions, pugi::encoding_utf8);
    if (!parsed) return Error::make("{}: not XML: {} at byte {}", what, parsed.description(), parsed.offset);
    pugi::xml_node root = document.document_element();
    if (!root) return Error::make("{}: an empty document", what);
    return root;
}

Call call(std::string_view service, std::string_view action, const std::string& arguments) {
    Call out;
    out.action = fmt::format("\"{}#{}\"", service, action);
    out.body = fmt::format("<?xml version=\"1.0\"?>\r\n"
                           "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "
                           "s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>"
                           "<u:{0} xmlns:u=\"{1}\">{2}</u:{0}></s:Body></s:Envelope>\r\n",
                           action, service, arguments);
    return out;
}

} // namespace

Result<Description> parse_description(std::string_view xml) {
    pugi::xml_document document;
    auto root = parse(document, xml, "device description");
    if (!root) return root.error();
    Description out;
    out.url_base = text_of(child(*root, "URLBase"));
    std::array<std::vector<Service>, kKinds.size()> found;
    std::size_t count = 0;
    bool shallow = visit_all(*root, [&](const pugi::xml_node& node) {
        if (local_name(node) != "service" || count == kMaxServices) return;
        std::string type = text_of(child(node, "serviceType"));
        std::string url = text_of(child(node, "controlURL"));
        const auto* kind = std::ranges::find(kKinds, type);
        if (kind == kKinds.end() || url.empty()) return;
        found[static_cast<std::size_t>(kind - kKinds.begin())].push_back({*kind, std::move(url)});
        ++count;
    });
    if (!shallow) return Error::make("device description: nested deeper than {}", kMaxDepth);
    for (auto& services : found)
        for (Service& service : services) out.services.push_back(std::move(service));
    return out;
}

Call write_add(std::string_view service, const AddPortMapping& mapping) {
    std::string arguments = fmt::format(
        "<NewRemoteHost></NewRemoteHost><NewExternalPort>{}</NewExternalPort><NewProtocol>UDP</NewProtocol>"
        "<NewInternalPort>{}</NewInternalPort><NewInternalClient>{}</NewInternalClient><NewEnabled>1</NewEnabled>"
        "<NewPortMappingDescription>tailrace</NewPortMappingDescription><NewLeaseDuration>{}</NewLeaseDuration>",
        mapping.external_port, mapping.internal_port, mapping.internal_client.text(), mapping.lease.count());
    return call(service, service == kIp2 ? "AddAnyPortMapping" : "AddPortMapping", arguments);
}

Call write_delete(std::string_view service, std::uint16_t external_port) {
    return call(service, "DeletePortMapping",
                fmt::format("<NewRemoteHost></NewRemoteHost><NewExternalPort>{}</NewExternalPort>"
                            "<NewProtocol>UDP</NewProtocol>",
                            external_port));
}

Call write_get_external_address(std::string_view service) {
    return call(service, "GetExternalIPAddress", "");
}

Call write_get_status(std::string_view service) {
    return call(service, "GetStatusInfo", "");
}

std::string_view Answer::value(std::string_view name) const {
    auto found = values.find(name);
    return found == values.end() ? std::string_view{} : std::string_view{found->second};
}

Result<Answer> parse_answer(std::string_view xml) {
    pugi::xml_document document;
    auto root = parse(document, xml, "SOAP answer");
    if (!root) return root.error();
    pugi::xml_node inside = child(*root, "Body").first_child();
    while (inside && inside.type() != pugi::node_element) inside = inside.next_sibling();
    if (local_name(*root) != "Envelope" || !inside) return Error::make("SOAP answer: no envelope with something in it");
    Answer answer;
    if (local_name(inside) == "Fault") {
        auto error = child(child(inside, "detail"), "UPnPError");
        auto code = parse_number<int>(text_of(child(error, "errorCode")));
        answer.fault = code ? *code : 0;
        return answer;
    }
    for (const pugi::xml_node& one : inside.children()) {
        if (one.type() != pugi::node_element) continue;
        if (answer.values.size() == kMaxValues) return Error::make("SOAP answer: more than {} values", kMaxValues);
        answer.values.emplace(local_name(one), text_of(one));
    }
    return answer;
}

} // namespace tailrace::igd
