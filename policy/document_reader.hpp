// policy/document_reader.hpp - turns the HuJSON tree into a Document. Internal to policy/; see document.hpp.
#pragma once
#include "policy/document.hpp"
#include "policy/hujson.hpp"

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Reads one section after the other and stops at the first problem: every read_ function returns false once there is
/// one.
class DocumentReader {
public:
    DocumentReader(const hujson::Tree& tree, PolicyIs is) : tree_(tree), is_(is) {}

    bool read();
    Document take_document() { return std::move(document_); }
    const PolicyProblem& problem() const { return problem_; }

private:
    using Value = hujson::Value;

    /// Where a selector stands decides which kinds are allowed there and how a refusal is worded.
    enum class Position : std::uint8_t {
        Source,
        Destination,
        SshSource,
        SshDestination,
        AttributeTarget,
        Approver,
        TagOwner
    };

    /// A member that an object may have and what to do with its value. null counts as absent.
    struct Field {
        const char* name;
        std::function<bool(const Value&)> read;
    };

    // document_reader.cpp: the tools
    bool fail(const Value& at, std::string message) { return fail_at(at.begin, std::move(message)); }
    bool fail_at(std::uint32_t offset, std::string message);
    bool expect(const Value& value, hujson::Kind kind, std::string_view what);
    bool read_object(const Value& object, std::string_view what, std::initializer_list<Field> fields);
    /// Two names of one field.
    struct Alias {
        const char* name;
        const char* old_name;
    };
    bool refuse_both(const Value& object, std::string_view what, std::initializer_list<Alias> aliases);
    bool read_string(const Value& value, std::string_view what, std::string& out);
    bool read_bool(const Value& value, std::string_view what, bool& out);
    bool read_strings(const Value& value, std::string_view what, std::vector<std::string>& out);
    bool each_element(const Value& array, std::string_view what, const std::function<bool(const Value&)>& read);
    bool each_member(const Value& object, std::string_view what,
                     const std::function<bool(const std::string&, const Value& name, const Value& value)>& read);
    bool read_selectors(const Value& array, std::string_view what, Position position, std::vector<Selector>& out);
    bool read_selector(const Value& value, std::string_view text, Position position, Selector& out);
    Result<Selector> parse_selector(std::string_view text) const;
    Result<void> check_position(const Selector& selector, Position position) const;

    // document_names.cpp: what other sections refer to
    bool read_groups(const Value& section);
    bool read_hosts(const Value& section);
    bool read_tag_names(const Value& section);
    bool read_tag_owners(const Value& section);
    bool read_ipsets(const Value& section);
    bool read_postures(const Value& section);
    bool read_posture_names(const Value& array, std::string_view what, std::vector<std::string>& out);
    bool read_auto_approvers(const Value& section);

    // document_options.cpp: what holds for the whole network
    bool read_attribute_config(const Value& section);
    bool read_derp_map(const Value& section);
    bool read_derp_region(const std::string& key, const Value& at, const Value& region);
    bool read_cgnat_route(const Value& value);
    bool check_member_spelling();

    // document_rules.cpp: acls, grants, nodeAttrs
    bool read_acl(const Value& element);
    bool read_acl_destination(const Value& value, AclDestination& out);
    bool read_grant(const Value& element);
    bool read_grant_ports(const Value& value, GrantPorts& out);
    bool read_app(const Value& value, bool restricted, CapabilityValues& out);
    bool check_app_connector(const Value& entry);
    bool check_self(const std::vector<Selector>& sources, const Selector& self, bool everything_is_member,
                    const Value& at);
    bool read_node_attribute(const Value& element);

    // document_ssh.cpp: ssh, tests, sshTests
    bool read_ssh_rule(const Value& element);
    bool check_ssh_rule(const SshPolicyRule& rule, const Value& element);
    bool read_test(const Value& element);
    bool read_ssh_test(const Value& element);
    bool read_posture_attributes(const Value& value, std::map<std::string, std::string>& out);
    bool read_ssh_test_destination(const Value& value, SshTest& test);

    const hujson::Tree& tree_;
    PolicyIs is_;
    Document document_;
    PolicyProblem problem_;
    bool failed_ = false;
};

/// Parses one posture assertion: node:os == 'linux'.
Result<PostureAssertion> parse_posture_assertion(std::string_view text);
/// Whether its operator and operands fit the attribute, where the type of that is known.
Result<void> check_posture_types(const PostureAssertion& assertion,
                                 const std::map<std::string, AttributeConfig>& config);
/// An item of an ipset: an address, a prefix or first-last.
Result<IpRange> parse_ip_range(std::string_view text);

} // namespace tailrace
