// What is wrong with a request, in the shape of OpenAI's API.
#pragma once

#include <stdexcept>
#include <string>

#include "skein/io/json.h"
#include "skein/serve/http_exchange.h"

namespace skein {

struct ApiError {
  int status = 400;
  std::string message;                         // one sentence
  std::string type = "invalid_request_error";  // or authentication_error, rate_limit_error, server_error
  std::string code = {};                       // for programs: "model_not_found"; empty: null
  std::string param = {};                      // the field at fault; empty: null
  int retry_after_s = 0;                       // > 0: in a Retry-After header
};

// {"error": {"message", "type", "param", "code"}}
Json error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

// Thrown by what reads requests, caught by the handler's door.
class ApiFailure : public std::runtime_error {
 public:
  explicit ApiFailure(ApiError error) : std::runtime_error(error.message), error_(std::move(error)) {}
  const ApiError& error() const { return error_; }

 private:
  ApiError error_;
};

// Text of a document whose strings may hold bytes that are no UTF-8 (token texts): those become U+FFFD.
std::string json_text(const Json& document);

}  // namespace skein
