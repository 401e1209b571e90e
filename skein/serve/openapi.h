// The API's own description (OpenAPI 3.1), with the limits that hold and the models that are served.
#pragma once

#include <string>
#include <vector>

#include "skein/serve/api_requests.h"

namespace skein {

struct OpenapiFacts {
  std::string version;
  bool needs_key = false;
  std::vector<std::string> models;
  std::int64_t vocabulary_size = 0;
};

Json openapi_document(const RequestLimits& limits, const OpenapiFacts& facts);

}  // namespace skein
