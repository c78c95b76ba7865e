// How the agent leaves the machine: traffic as it is, or nothing of ours.
#include "agent/backend.hpp"

namespace tailrace {

Task<Result<void>> Backend::take_down() {
    stop();
    prefs_.want_running = false; // not saved: the next start goes on as before
    wake_engine();
    co_return co_await wait_until_down();
}

Task<Result<void>> Backend::wait_until_down() {
    constexpr auto kPatience = std::chrono::seconds{10}; // a reconciliation under way ends before
    auto alive = alive_;
    TimePoint end = reactor_.now() + kPatience;
    while (!engine_down_ && !prefs_.want_running && reactor_.now() < end) {
        (void)co_await engine_went_down_.wait_for(end - reactor_.now());
        if (!*alive) co_return Error::make("the agent ended");
    }
    if (engine_down_ || prefs_.want_running) co_return Result<void>{};
    co_return Error::make("{}", engine_trouble_.empty() ? "the kernel did not take everything back in 10 s"
                                                        : engine_trouble_);
}

} // namespace tailrace
