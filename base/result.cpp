#include "base/result.hpp"

#include <cstring>

namespace tailrace {

std::string Error::errno_text(int code) {
    char buffer[256];
    return strerror_r(code, buffer, sizeof buffer);
}

} // namespace tailrace
