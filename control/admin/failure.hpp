// control/admin/failure.hpp - how the socket's API says no.
#pragma once
#include "base/io/http.hpp"
#include "base/json/json.hpp"
#include "control/admin/messages.hpp"

namespace tailrace::admin {

/// An answer with that status and one sentence for a person.
inline HttpResponse failed(int status, const std::string& sentence) {
    return HttpResponse::json(status, json::write(Failure{sentence}));
}
/// What was asked for is not right.
inline HttpResponse failed(const Error& error) {
    return failed(400, error.message());
}

} // namespace tailrace::admin
