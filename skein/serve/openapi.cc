#include "skein/serve/openapi.h"

#include "skein/base/check.h"

namespace skein {

// openapi.json, compiled in (page/page.cmake).
extern const unsigned char kOpenapi[];
extern const std::size_t kOpenapiSize;

Json openapi_document(const RequestLimits& limits, const OpenapiFacts& facts) {
  Result<Json> parsed = parse_json(std::string(reinterpret_cast<const char*>(kOpenapi), kOpenapiSize), "openapi.json");
  SKEIN_CHECK(parsed.ok());  // a file of this repository; service_test reads it
  Json document = std::move(parsed).value();
  document["info"]["version"] = facts.version;
  Json& schemas = document["components"]["schemas"];
  if (!facts.models.empty()) schemas["Model"]["enum"] = facts.models;
  schemas["MaxTokens"]["maximum"] = limits.max_tokens;
  schemas["MaxTokensOrNone"]["maximum"] = limits.max_tokens;
  schemas["Choices"]["maximum"] = limits.max_choices;
  schemas["NumLogprobs"]["maximum"] = limits.max_logprobs;
  schemas["Stop"]["anyOf"][0]["maxLength"] = limits.max_stop_characters;
  schemas["Stop"]["anyOf"][1]["maxItems"] = limits.max_stops;
  schemas["Stop"]["anyOf"][1]["items"]["maxLength"] = limits.max_stop_characters;
  schemas["CacheSalt"]["maxLength"] = limits.max_salt_characters;
  schemas["LogitBias"]["maxProperties"] = limits.max_biases;
  schemas["TokenIds"]["items"]["maximum"] = facts.vocabulary_size - 1;
  schemas["Prompt"]["anyOf"][2]["maxItems"] = limits.max_choices;
  schemas["Prompt"]["anyOf"][3]["maxItems"] = limits.max_choices;
  schemas["Messages"]["maxItems"] = limits.max_messages;
  if (!facts.needs_key) {
    document.erase("security");
    document["components"].erase("securitySchemes");
  }
  return document;
}

}  // namespace skein
