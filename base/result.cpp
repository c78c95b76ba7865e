#include "base/result.hpp"

#include <algorithm>
#include <cstring>

namespace tailrace {

std::string Error::errno_text(int code) {
    char buffer[256];
    return strerror_r(code, buffer, sizeof buffer);
}

} // namespace tailrace

fmt::format_context::iterator fmt::formatter<tailrace::Error>::format(const tailrace::Error& error,
                                                                      format_context& context) const {
    return std::copy(error.message().begin(), error.message().end(), context.out());
}
