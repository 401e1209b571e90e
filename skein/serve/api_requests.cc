#include "skein/serve/api_requests.h"

#include <algorithm>
#include <charconv>

#include "skein/base/concat.h"
#include "skein/serve/request_fields.h"

namespace skein {
namespace {

constexpr std::int64_t kMaxInt = std::numeric_limits<std::int64_t>::max();

// What clients send for bookkeeping of OpenAI's own: of the right kind, and without effect here.
void read_bookkeeping(RequestFields& fields) {
  for (const char* key : {"user", "service_tier", "safety_identifier", "prompt_cache_key"}) fields.text(key);
  fields.boolean("store");
  const Json* metadata = fields.find("metadata");
  if (metadata == nullptr) return;
  if (!metadata->is_object()) fields.fail("metadata", concat("is ", json_kind(*metadata), "; expected an object"));
  for (const auto& [key, value] : metadata->items()) {
    if (!value.is_string()) fields.fail("metadata", concat("holds ", json_kind(value), "; expected strings"));
  }
}

std::string read_model(RequestFields& fields) {
  const auto model = fields.text("model");
  if (model && model->empty()) fields.fail("model", "is empty; leave it out for the base");
  return model.value_or("");
}

// In characters, as a JSON schema counts.
void check_length(const RequestFields& fields, const std::string& key, const std::string& text, std::size_t most) {
  const auto is_start = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  const auto size = static_cast<std::size_t>(std::count_if(text.begin(), text.end(), is_start));
  if (size > most) fields.fail(key, concat("holds a string of ", size, " characters; at most ", most, " are allowed"));
}

std::vector<std::string> read_stops(RequestFields& fields, const RequestLimits& limits) {
  const Json* value = fields.find("stop");
  if (value == nullptr) return {};
  std::vector<std::string> stops;
  if (value->is_string()) {
    stops.push_back(value->get<std::string>());
  } else {
    stops = fields.texts("stop", limits.max_stops);
  }
  for (const std::string& stop : stops) {
    if (stop.empty()) fields.fail("stop", "holds an empty string, which every answer begins with");
    check_length(fields, "stop", stop, limits.max_stop_characters);
  }
  return stops;
}

std::vector<std::pair<TokenId, float>> read_biases(RequestFields& fields, const RequestLimits& limits) {
  const Json* value = fields.find("logit_bias");
  if (value == nullptr) return {};
  if (!value->is_object()) fields.fail("logit_bias", "is no object of token ids and numbers");
  if (value->size() > limits.max_biases) {
    fields.fail("logit_bias", concat("has ", value->size(), " entries; at most ", limits.max_biases, " are allowed"));
  }
  std::vector<std::pair<TokenId, float>> biases;
  for (const auto& [key, bias] : value->items()) {
    TokenId id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      fields.fail("logit_bias", concat("names the token '", printable(key, 40), "'; expected ids such as \"504\""));
    }
    if (!bias.is_number() || !(bias.get<double>() >= -100 && bias.get<double>() <= 100)) {
      fields.fail("logit_bias", concat("of token ", id, " is no number from -100 to 100"));
    }
    biases.emplace_back(id, static_cast<float>(bias.get<double>()));
  }
  return biases;
}

std::vector<TokenId> read_ids(RequestFields& fields, const std::string& key, const Json& list) {
  std::vector<TokenId> ids;
  ids.reserve(list.size());
  for (const Json& item : list) {
    const bool is_id = item.is_number_unsigned() && item.get<std::uint64_t>() <= 0x7fffffffU;
    if (!is_id) fields.fail(key, "mixes token ids with something else; expected whole numbers from 0");
    ids.push_back(item.get<TokenId>());
  }
  return ids;
}

// A string, strings, token ids, or lists of token ids.
std::vector<Prompt> read_prompts(RequestFields& fields, const std::string& key, const RequestLimits& limits) {
  const Json* value = fields.find(key);
  if (value == nullptr) fields.fail(key, "is missing; expected a text");
  std::vector<Prompt> prompts;
  if (value->is_string()) {
    prompts.emplace_back(value->get<std::string>());
  } else if (!value->is_array() || value->empty()) {
    fields.fail(key, concat("is ", value->is_array() ? "an empty array" : json_kind(*value),
                            "; expected a string, an array of strings or an array of token ids"));
  } else if (value->front().is_number()) {
    prompts.emplace_back(read_ids(fields, key, *value));
  } else {
    if (value->size() > static_cast<std::size_t>(limits.max_choices)) {
      fields.fail(key, concat("has ", value->size(), " entries; at most ", limits.max_choices, " are allowed"));
    }
    for (const Json& item : *value) {
      if (item.is_string()) {
        prompts.emplace_back(item.get<std::string>());
      } else if (item.is_array()) {
        prompts.emplace_back(read_ids(fields, key, item));
      } else {
        fields.fail(key, concat("holds ", json_kind(item), "; expected strings or arrays of token ids"));
      }
    }
  }
  std::size_t num_bytes = 0;
  for (const Prompt& prompt : prompts) {
    const auto* text = std::get_if<std::string>(&prompt);
    const std::size_t size = text != nullptr ? text->size() : std::get<std::vector<TokenId>>(prompt).size();
    if (size == 0) fields.fail(key, "is empty; expected at least one character");
    num_bytes += size;
  }
  if (num_bytes > limits.max_prompt_bytes) {
    fields.fail(key, concat("has ", num_bytes, " bytes; at most ", limits.max_prompt_bytes, " are allowed"));
  }
  return prompts;
}

// A string, or parts of which each must be a text: nothing is ever fetched.
std::string read_content(RequestFields& fields) {
  const Json* value = fields.find("content");
  if (value == nullptr) fields.fail("content", "is missing; expected a text");
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) fields.fail("content", concat("is ", json_kind(*value), "; expected a string"));
  std::string text;
  for (const Json& part : *value) {
    RequestFields part_fields(part, "messages.content.");
    if (part_fields.text("type").value_or("") != "text") {
      fields.fail("content", "holds a part that is no text; this server reads texts only and fetches nothing");
    }
    text += part_fields.text("text").value_or("");
    part_fields.finish();
  }
  return text;
}

std::vector<ChatMessage> read_messages(RequestFields& fields, const RequestLimits& limits) {
  const Json* value = fields.find("messages");
  if (value == nullptr) fields.fail("messages", "is missing; expected an array of messages");
  if (!value->is_array() || value->empty()) fields.fail("messages", "is no array with at least one message");
  if (value->size() > limits.max_messages) {
    fields.fail("messages", concat("has ", value->size(), " entries; at most ", limits.max_messages, " are allowed"));
  }
  std::vector<ChatMessage> messages;
  std::size_t num_bytes = 0;
  for (const Json& item : *value) {
    RequestFields message(item, "messages.");
    std::string role = message.text("role").value_or("");
    if (role == "developer") role = "system";  // OpenAI's newer word for it
    if (role != "system" && role != "user" && role != "assistant") {
      message.fail("role", concat("is '", printable(role, 40), "'; expected system, user or assistant"));
    }
    message.refuse({"tool_calls", "tool_call_id", "function_call", "audio", "refusal"});
    message.text("name");
    messages.push_back({.role = role, .content = read_content(message)});
    message.finish();
    num_bytes += messages.back().content.size();
  }
  if (num_bytes > limits.max_prompt_bytes) {
    fields.fail("messages", concat("have ", num_bytes, " bytes; at most ", limits.max_prompt_bytes, " are allowed"));
  }
  return messages;
}

template <typename Value>
std::optional<Value> read_word(RequestFields& fields, const std::string& key,
                               const std::vector<std::pair<std::string, Value>>& words) {
  const auto word = fields.text(key);
  if (!word) return std::nullopt;
  std::string expected;
  for (const auto& [name, value] : words) {
    if (name == *word) return value;
    expected += (expected.empty() ? "" : ", ") + name;
  }
  fields.fail(key, concat("is '", printable(*word, 40), "'; expected one of ", expected));
}

RouterChanges read_router(RequestFields& fields, const RequestLimits& limits) {
  const Json* value = fields.find("router");
  if (value == nullptr) return {};
  RequestFields router(*value, "router.");
  RouterChanges changes;
  if (const auto k = router.integer("top_k", 1, limits.max_experts_named)) changes.top_k = static_cast<int>(*k);
  changes.top_p = router.number("top_p", 0, 1);
  changes.temperature = router.number("temperature", 0.001, 1000);
  const auto most = static_cast<std::size_t>(limits.max_experts_named);
  changes.only = router.texts("only", most);
  changes.without = router.texts("without", most);
  using Scope = RouterUse::Scope;
  using Sharing = RouterUse::Sharing;
  changes.scope = read_word<Scope>(router, "choice_by", {{"token", Scope::kToken}, {"sequence", Scope::kSequence}});
  changes.sharing = read_word<Sharing>(router, "choice_for",
                                       {{"module", Sharing::kModule},
                                        {"input", Sharing::kInput},
                                        {"layer", Sharing::kLayer},
                                        {"model", Sharing::kModel}});
  router.finish();
  return changes;
}

// What chat and completions have in common.
void read_common(RequestFields& fields, const RequestLimits& limits, GenerationRequest& request) {
  request.model = read_model(fields);
  request.n = static_cast<int>(fields.integer("n", 1, limits.max_choices).value_or(1));
  Sampling& sampling = request.sampling;
  sampling.temperature = fields.number("temperature", 0, 2).value_or(1);  // OpenAI's default
  sampling.top_p = fields.number("top_p", 0, 1).value_or(1);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  sampling.repetition_penalty = fields.number("repetition_penalty", 0.01, 100).value_or(1);
  sampling.logit_bias = read_biases(fields, limits);
  if (const auto seed = fields.integer("seed", -kMaxInt - 1, kMaxInt)) {
    request.seed = static_cast<std::uint64_t>(*seed);
  }
  request.stop = read_stops(fields, limits);
  request.cache_salt = fields.text("cache_salt").value_or("");
  check_length(fields, "cache_salt", request.cache_salt, limits.max_salt_characters);
  request.ignore_end = fields.boolean("ignore_eos").value_or(false);
  request.stream = fields.boolean("stream").value_or(false);
  if (const Json* options = fields.find("stream_options")) {
    if (!request.stream) fields.fail("stream_options", "is set, but stream is not");
    RequestFields stream(*options, "stream_options.");
    request.include_usage = stream.boolean("include_usage").value_or(false);
    stream.boolean("include_obfuscation");
    stream.finish();
  }
  request.trace = fields.boolean("trace").value_or(false);
  request.router = read_router(fields, limits);
  read_bookkeeping(fields);
}

void check_choices(const GenerationRequest& request, const RequestLimits& limits) {
  const std::size_t count = std::max<std::size_t>(1, request.prompts.size()) * static_cast<std::size_t>(request.n);
  if (count <= static_cast<std::size_t>(limits.max_choices)) return;
  throw ApiFailure({.message = concat("the prompts times n are ", count, " answers; at most ", limits.max_choices,
                                      " are allowed in one request"),
                    .param = "n"});
}

}  // namespace

bool RouterChanges::is_any() const {
  return top_k || top_p || temperature || !only.empty() || !without.empty() || scope || sharing;
}

void RouterChanges::apply_to(RouterOptions& options) const {
  if (top_k) options.top_k = *top_k;
  if (top_p) options.top_p = *top_p;
  if (temperature) options.temperature = *temperature;
  if (!only.empty()) options.only = only;
  if (!without.empty()) options.without = without;
  if (scope) options.use.scope = *scope;
  if (sharing) options.use.sharing = *sharing;
}

GenerationRequest parse_chat_request(const Json& body, const RequestLimits& limits) {
  RequestFields fields(body);
  GenerationRequest request{.kind = GenerationRequest::Kind::kChat};
  request.messages = read_messages(fields, limits);
  read_common(fields, limits, request);
  const auto older = fields.integer("max_tokens", 1, limits.max_tokens);
  const auto newer = fields.integer("max_completion_tokens", 1, limits.max_tokens);
  request.max_tokens = newer ? newer : older;
  const bool wants = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, limits.max_logprobs);
  if (top.value_or(0) > 0 && !wants) fields.fail("top_logprobs", "is set, but logprobs is not true");
  if (wants) request.num_logprobs = static_cast<int>(top.value_or(0));
  if (const Json* format = fields.find("response_format")) {
    RequestFields format_fields(*format, "response_format.");
    if (format_fields.text("type").value_or("") != "text")
      format_fields.fail("type", "is not 'text', all that is offered");
  }
  fields.refuse({"tools", "functions", "audio", "prediction", "web_search_options", "reasoning_effort", "chat_template",
                 "chat_template_kwargs"});
  fields.ignore({"tool_choice", "parallel_tool_calls", "modalities", "function_call"});  // nothing without tools
  fields.finish();
  check_choices(request, limits);
  return request;
}

GenerationRequest parse_completion_request(const Json& body, const RequestLimits& limits) {
  RequestFields fields(body);
  GenerationRequest request{.kind = GenerationRequest::Kind::kCompletion};
  request.prompts = read_prompts(fields, "prompt", limits);
  read_common(fields, limits, request);
  request.max_tokens = fields.integer("max_tokens", 0, limits.max_tokens).value_or(16);  // OpenAI's default
  request.num_logprobs = static_cast<int>(fields.integer("logprobs", 0, limits.max_logprobs).value_or(-1));
  request.echo = fields.boolean("echo").value_or(false);
  const auto best_of = fields.integer("best_of", 1, limits.max_choices);
  if (best_of && *best_of != request.n) fields.fail("best_of", "differs from n; answers are not ranked here");
  if (!fields.text("suffix").value_or("").empty()) fields.fail("suffix", "is not offered; leave it out");
  fields.finish();
  check_choices(request, limits);
  return request;
}

GenerationRequest parse_trace_request(const Json& body, const RequestLimits& limits) {
  RequestFields fields(body);
  GenerationRequest request{.kind = GenerationRequest::Kind::kTrace, .trace = true};
  const bool has_messages = fields.find("messages") != nullptr, has_prompt = fields.find("prompt") != nullptr;
  if (has_messages == has_prompt) fields.fail("prompt", "or messages is expected, one of the two");
  if (has_messages) {
    request.messages = read_messages(fields, limits);
  } else {
    request.prompts = read_prompts(fields, "prompt", limits);
    if (request.prompts.size() != 1) fields.fail("prompt", "is several prompts; a trace is of one");
  }
  request.model = read_model(fields);
  request.max_tokens = fields.integer("max_tokens", 0, limits.max_tokens).value_or(0);
  request.stop = read_stops(fields, limits);
  request.router = read_router(fields, limits);
  fields.finish();
  return request;
}

EmbeddingRequest parse_embedding_request(const Json& body, const RequestLimits& limits) {
  RequestFields fields(body);
  EmbeddingRequest request;
  request.inputs = read_prompts(fields, "input", limits);
  request.model = read_model(fields);
  const std::vector<std::pair<std::string, bool>> formats = {{"float", false}, {"base64", true}};
  request.is_base64 = read_word<bool>(fields, "encoding_format", formats).value_or(false);
  request.dimensions = fields.integer("dimensions", 1, 1 << 24);
  fields.text("user");
  fields.finish();
  return request;
}

AdapterRequest parse_adapter_request(const Json& body, bool is_load) {
  RequestFields fields(body);
  const auto needed = [&](const std::string& key) {
    const auto text = fields.text(key);
    if (!text || text->empty()) fields.fail(key, "is missing; expected a text");
    return *text;
  };
  AdapterRequest request{.name = needed("lora_name")};
  if (is_load) request.path = needed("lora_path");
  fields.refuse({"load_inplace"});
  fields.ignore({"lora_int_id", "base_model_name"});  // vLLM's own bookkeeping
  fields.finish();
  return request;
}

}  // namespace skein
