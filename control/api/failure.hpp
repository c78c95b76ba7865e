// control/api/failure.hpp - how the public API says no.
#pragma once
#include "base/io/http.hpp"
#include "base/json/json.hpp"
#include "control/api/messages.hpp"

namespace tailrace::api {

/// `error` is a word of RFC 6749 5.2, for the token endpoint.
inline HttpResponse refused(int status, std::string sentence, std::string error = "") {
    Failure failure{std::move(sentence), std::move(error), ""};
    if (!failure.error.empty()) failure.error_description = failure.message;
    HttpResponse response = HttpResponse::json(status, json::write(failure));
    if (status == 401) response.headers.add("WWW-Authenticate", "Basic realm=\"tailnet\"");
    return response;
}

} // namespace tailrace::api
