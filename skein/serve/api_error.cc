#include "skein/serve/api_error.h"

namespace skein {
namespace {

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

Json error_json(const ApiError& error) {
  // A server's own fault is told apart from the client's by its type even where nobody set one.
  const bool is_own = error.status >= 500 && error.type == "invalid_request_error";
  return {{"error",
           {{"message", error.message},
            {"type", is_own ? "server_error" : error.type},
            {"param", text_or_null(error.param)},
            {"code", text_or_null(error.code)}}}};
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = json_text(error_json(error)) + "\n"};
  if (error.retry_after_s > 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  return response;
}

std::string json_text(const Json& document) { return document.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace skein
