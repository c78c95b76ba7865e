// policy/preview.hpp - what may one person or device reach, and who may reach one address?
#pragma once
#include "policy/compile.hpp"
#include "policy/hujson.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// One destination (or, asked the other way round, one list of sources) of one rule.
struct PreviewRow {
    hujson::Position position;
    std::string kind;                 ///< "ip", "app" or "ssh"
    std::vector<std::string> sources; ///< as written
    std::string destination;          ///< as written
    std::string access;               ///< "tcp 22, 80-90"; a capability; login names
    std::vector<std::string> via;
    std::vector<std::string> postures; ///< any of these must be fulfilled
    bool fulfilled = true;             ///< whether a device of those asked about fulfils one
    std::vector<std::string> devices;  ///< what the destination stands for now
};

struct Preview {
    std::vector<PreviewRow> rows; ///< grants, acls, ssh; each in the order of the file

    std::string json() const;
};

/// What `who` (a login, a device, a tag, a group) may reach. Fails when nobody has this name.
Result<Preview> preview_source(std::shared_ptr<const CompiledPolicy> policy, std::string_view who);
/// The rules that let anybody reach this address and port: "100.64.0.7:443".
Result<Preview> preview_destination(std::shared_ptr<const CompiledPolicy> policy, std::string_view address_and_port);

} // namespace tailrace
