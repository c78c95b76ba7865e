// agent/doctor/gather.hpp - asks the machine. Changes nothing; what cannot be asked stays unknown.
#pragma once
#include "agent/doctor/facts.hpp"

namespace tailrace {

/// Everything but what only the agent knows.
DoctorFacts gather_facts(const std::string& device, std::uint16_t port, const std::string& config_file);

} // namespace tailrace
