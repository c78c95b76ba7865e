// How the agent leaves the machine: traffic as it is, or nothing of ours.
#include "agent/backend.hpp"

namespace tailrace {

Task<Result<void>> Backend::take_down() {
    constexpr auto kPatience = std::chrono::seconds{10}; // a reconciliation under way ends before
    auto alive = alive_;
    stop();
    prefs_.want_running = false; // not saved: the next start goes on as before
    TimePoint end = reactor_.now() + kPatience;
    wake_engine();
    while (!engine_down_ && reactor_.now() < end) {
        (void)co_await engine_went_down_.wait_for(end - reactor_.now());
        if (!*alive) co_return Error::make("the agent ended");
    }
    if (engine_down_) co_return Result<void>{};
    co_return Error::make("{}", engine_trouble_.empty() ? "the kernel did not take everything back in 10 s"
                                                        : engine_trouble_);
}

} // namespace tailrace
