// agent/coordination/hostinfo.hpp - what this machine says about itself to control.
#pragma once
#include "agent/store/prefs.hpp"
#include "proto/control/hostinfo.hpp"

namespace tailrace {

/// What does not change while we run: kernel, distribution, processor, host name.
wire::Hostinfo read_hostinfo();
/// `machine` with what the user asked for.
wire::Hostinfo hostinfo_for(const wire::Hostinfo& machine, const Prefs& prefs);

} // namespace tailrace
