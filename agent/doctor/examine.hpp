// agent/doctor/examine.hpp - what is wrong with a machine, why that matters, and how it is cured. Pure.
#pragma once
#include "agent/doctor/facts.hpp"

#include <string>
#include <vector>

namespace tailrace {

enum class Severity { Ok, Warning, Error };

struct Finding {
    Severity severity = Severity::Ok;
    std::string subject; ///< "kernel", "firewall", ...
    std::string what;    ///< a sentence without the full stop
    std::string why;     ///< empty when all is well
    std::string cure;
};

std::vector<Finding> examine(const DoctorFacts& facts);
/// 0: all is well; 1: warnings; 2: errors.
int exit_status(const std::vector<Finding>& findings);

std::string findings_text(const std::vector<Finding>& findings);
std::string findings_json(const std::vector<Finding>& findings);

} // namespace tailrace
