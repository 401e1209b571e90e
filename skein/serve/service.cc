#include "skein/serve/service.h"

#include <algorithm>
#include <random>

#include "skein/base/concat.h"
#include "skein/base/nearest_word.h"
#include "skein/serve/generation.h"
#include "skein/serve/openapi.h"
#include "skein/serve/page_files.h"
#include "skein/serve/service_call.h"

namespace skein {
namespace {

using Clock = std::chrono::steady_clock;

std::string random_id() {
  thread_local std::random_device device;
  constexpr char kDigits[] = "0123456789abcdef";
  std::string id;
  for (int word = 0; word < 3; ++word) {
    for (unsigned bits = device(), i = 0; i < 8; ++i, bits >>= 4) id += kDigits[bits & 15];
  }
  return id;
}

// "skein%2Fphatgoose" -> "skein/phatgoose". Once: a percent sign that was escaped stays one.
std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = static_cast<char>(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      decoded += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

std::string_view kind_word(ModelChoice::Kind kind) {
  switch (kind) {
    case ModelChoice::Kind::kBase:
      return "base";
    case ModelChoice::Kind::kExpert:
      return "expert";
    case ModelChoice::Kind::kRouter:
      return "router";
    case ModelChoice::Kind::kMixture:
      break;
  }
  return "mixture";
}

constexpr const char* kModelPrefix = "/v1/models/";

}  // namespace

struct Service::Route {
  enum class Access { kOpen, kKey };
  const char* method;
  const char* path;
  Access access;
  void (Service::*handler)(const std::shared_ptr<Call>&);
};

const std::vector<Service::Route>& Service::routes() {
  using Access = Route::Access;
  // Who may call is said here and nowhere else: access is decided on the row that was found.
  static const std::vector<Route> kRoutes = {
      {"GET", "/", Access::kOpen, &Service::page},
      {"GET", "/page/*", Access::kOpen, &Service::page},
      {"GET", "/health", Access::kOpen, &Service::health},
      {"GET", "/ready", Access::kOpen, &Service::ready},
      {"GET", "/openapi.json", Access::kOpen, &Service::openapi},
      {"GET", "/metrics", Access::kKey, &Service::metrics_text},
      {"GET", "/v1/models", Access::kKey, &Service::models},
      {"GET", "/v1/models/*", Access::kKey, &Service::one_model},
      {"POST", "/v1/chat/completions", Access::kKey, &Service::chat},
      {"POST", "/v1/completions", Access::kKey, &Service::completions},
      {"POST", "/v1/embeddings", Access::kKey, &Service::embeddings},
      {"POST", "/v1/trace", Access::kKey, &Service::trace},
      {"POST", "/v1/load_lora_adapter", Access::kKey, &Service::load_adapter},
      {"POST", "/v1/unload_lora_adapter", Access::kKey, &Service::unload_adapter},
  };
  return kRoutes;
}

Service::Service(Engine& engine, ServedPool& pool, ServiceOptions options)
    : engine_(engine),
      pool_(pool),
      options_(std::move(options)),
      started_(std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
                   .count()) {}
Service::~Service() = default;

// --- the door ---

void Service::handle(const std::shared_ptr<HttpExchange>& exchange) {
  const auto call = std::make_shared<Call>();
  call->exchange = exchange;
  call->id = random_id();
  call->logged = {.id = call->id, .remote = exchange->request().remote, .route = "unknown"};
  // A method is a word of the client's: only known ones are logged.
  const std::string& method = exchange->request().method;
  const bool is_known = method == "GET" || method == "POST" || method == "HEAD" || method == "PUT" ||
                        method == "DELETE" || method == "OPTIONS" || method == "PATCH";
  call->logged.method = is_known ? method : "other";
  try {
    answer(call);
  } catch (const ApiFailure& failure) {
    respond(call, error_response(failure.error()));
  } catch (const Failure& failure) {
    // Of a request's own making (a text that no template or tokenizer takes).
    respond(call, error_response({.message = failure.what()}));
  } catch (const std::bad_alloc&) {
    respond(call, error_response({.status = 503, .message = "the server is out of memory", .type = "server_error"}));
  }
}

void Service::answer(const std::shared_ptr<Call>& call) {
  const HttpRequest& request = call->request();
  if (!is_expected_host(request.header("host").value_or("localhost"), options_.host, options_.allowed_hosts)) {
    throw ApiFailure({.status = 403,
                      .message = "this server answers to names of its own machine only; see --allowed-host",
                      .code = "unexpected_host"});
  }
  std::string allowed;
  for (const Route& route : routes()) {
    const std::string_view pattern = route.path;
    const bool is_prefix = pattern.back() == '*';
    const std::string_view start = pattern.substr(0, pattern.size() - 1);
    const bool fits = is_prefix
                          ? request.path.size() > start.size() && request.path.compare(0, start.size(), start) == 0
                          : request.path == pattern;
    if (!fits) continue;
    const bool is_method =
        request.method == route.method || (request.method == "HEAD" && std::string_view(route.method) == "GET");
    if (!is_method) {
      allowed = route.method;
      continue;
    }
    call->logged.route = route.path;
    check_access(*call, route);
    call->client = options_.keys.is_open()
                       ? request.remote
                       : concat("key ", options_.keys.key_of(request.header("authorization")).value_or(0));
    return (this->*route.handler)(call);
  }
  if (allowed.empty()) {
    throw ApiFailure({.status = 404,
                      .message = "there is nothing at this path; /openapi.json lists what there is",
                      .code = "not_found"});
  }
  HttpResponse response = error_response(
      {.status = 405, .message = concat("this path takes ", allowed, " only"), .code = "method_not_allowed"});
  response.headers.emplace_back("Allow", allowed == "GET" ? "GET, HEAD" : allowed);
  respond(call, std::move(response));
}

void Service::check_access(const Call& call, const Route& route) {
  if (route.access == Route::Access::kOpen) return;
  if (options_.keys.key_of(call.request().header("authorization"))) return;
  throw ApiFailure({.status = 401,
                    .message = "a valid API key is needed, as Authorization: Bearer KEY",
                    .type = "authentication_error",
                    .code = "invalid_api_key"});
}

void Service::respond(const std::shared_ptr<Call>& call, HttpResponse response) {
  response.headers.emplace_back("X-Request-Id", call->id);
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  const int status = response.status;
  call->exchange->respond(std::move(response));
  end(call, status);
}

void Service::end(const std::shared_ptr<Call>& call, int status) {
  LoggedRequest& logged = call->logged;
  logged.status = status;
  logged.seconds = std::chrono::duration<double>(Clock::now() - call->arrived).count();
  metrics_.request_ended(logged.route, status, logged.seconds);
  write_log_line(log_line(options_.log, logged));
}

Json Service::body_of(const Call& call) const {
  const HttpRequest& request = call.request();
  // A page of another site can send forms and plain text without asking; JSON it cannot.
  std::string type(request.header("content-type").value_or(""));
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) { return std::tolower(c); });
  if (type != "application/json") {
    throw ApiFailure({.status = 415,
                      .message = "the body must be JSON, with Content-Type: application/json",
                      .code = "unsupported_media_type"});
  }
  Result<Json> body = parse_json(request.body, "the body");
  if (!body.ok()) throw ApiFailure({.message = body.error().message, .code = "invalid_json"});
  return std::move(body).value();
}

// --- small answers ---

void Service::page(const std::shared_ptr<Call>& call) {
  const std::string& path = call->request().path;
  const PageFile* file = find_page_file(path == "/" ? "index.html" : path.substr(6));
  if (file == nullptr) throw ApiFailure({.status = 404, .message = "the page has no such file", .code = "not_found"});
  respond(call, {.content_type = file->content_type,
                 .body = std::string(file->content),
                 .headers = {{"Content-Security-Policy", kPagePolicy},
                             {"Referrer-Policy", "no-referrer"},
                             {"Cross-Origin-Opener-Policy", "same-origin"},
                             {"Cache-Control", "no-cache"}}});
}

void Service::health(const std::shared_ptr<Call>& call) { respond(call, {.body = "{\"status\":\"ok\"}\n"}); }

void Service::ready(const std::shared_ptr<Call>& call) {
  if (is_stopping_) {
    throw ApiFailure({.status = 503, .message = "the server is stopping", .type = "server_error", .code = "stopping"});
  }
  const EngineStats stats = engine_.stats();
  respond(call,
          {.body = json_text({{"status", "ready"}, {"running", stats.running}, {"waiting", stats.waiting}}) + "\n"});
}

void Service::metrics_text(const std::shared_ptr<Call>& call) {
  respond(call, {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics_.text(engine_.stats())});
}

void Service::openapi(const std::shared_ptr<Call>& call) {
  OpenapiFacts facts{.version = options_.version,
                     .needs_key = !options_.keys.is_open(),
                     .vocabulary_size = engine_.tokenizer().vocabulary_size()};
  // Names of models are for those who may list them.
  if (options_.keys.key_of(call->request().header("authorization"))) {
    for (const ModelName& model : engine_.models()) facts.models.push_back(api_name(model.choice, options_.base_name));
  }
  respond(call, {.body = json_text(openapi_document(options_.limits, facts)) + "\n"});
}

// --- models ---

Json Service::model_json(const ModelName& model) const {
  const bool is_base = model.choice.kind == ModelChoice::Kind::kBase;
  return {{"id", api_name(model.choice, options_.base_name)},
          {"object", "model"},
          {"created", started_},
          {"owned_by", "skein"},
          {"parent", is_base ? Json() : Json(options_.base_name)},
          {"kind", kind_word(model.choice.kind)},
          {"description", model.description},
          {"experts", model.experts},
          {"max_model_len", engine_.config().max_positions},
          {"chat", engine_.tokenizer().chat_template().has_value()}};
}

void Service::models(const std::shared_ptr<Call>& call) {
  Json data = Json::array();
  for (const ModelName& model : engine_.models()) data.push_back(model_json(model));
  respond(call, {.body = json_text({{"object", "list"}, {"data", std::move(data)}}) + "\n"});
}

void Service::one_model(const std::shared_ptr<Call>& call) {
  const std::string name =
      percent_decoded(std::string_view(call->request().path).substr(std::char_traits<char>::length(kModelPrefix)));
  respond(call, {.body = json_text(model_json(find_model(name))) + "\n"});
}

ModelName Service::find_model(const std::string& name) const {
  std::vector<ModelName> models = engine_.models();
  if (name.empty()) return models.front();
  std::vector<std::string> names;
  for (ModelName& model : models) {
    names.push_back(api_name(model.choice, options_.base_name));
    if (names.back() == name) return std::move(model);
  }
  const auto nearest = name.size() < 100 ? nearest_word(name, names) : std::nullopt;
  throw ApiFailure(
      {.status = 404,
       .message = concat("the model '", printable(name, 100), "' does not exist",
                         nearest ? concat(" (did you mean ", *nearest, "?)") : "", "; /v1/models lists those that do"),
       .code = "model_not_found",
       .param = "model"});
}

// --- adapters ---

void Service::load_adapter(const std::shared_ptr<Call>& call) {
  if (!pool_.loads_adapters()) {
    throw ApiFailure({.status = 403,
                      .message = "adapters are not loaded at run time; start the server with --adapter-folder DIR",
                      .code = "adapter_loading_disabled"});
  }
  const AdapterRequest request = parse_adapter_request(body_of(*call), /*is_load=*/true);
  pool_.load(engine_, request);
  log_event(options_.log, concat("adapter ", request.name, " loaded"));
  respond(call, {.content_type = "text/plain; charset=utf-8",
                 .body = concat("Success: LoRA adapter '", request.name, "' added successfully.")});
}

void Service::unload_adapter(const std::shared_ptr<Call>& call) {
  if (!pool_.loads_adapters()) {
    throw ApiFailure({.status = 403,
                      .message = "adapters are not unloaded at run time; start the server with --adapter-folder DIR",
                      .code = "adapter_loading_disabled"});
  }
  const AdapterRequest request = parse_adapter_request(body_of(*call), /*is_load=*/false);
  pool_.unload(engine_, request);
  log_event(options_.log, concat("adapter ", request.name, " unloaded"));
  respond(call, {.content_type = "text/plain; charset=utf-8",
                 .body = concat("Success: LoRA adapter '", request.name, "' removed successfully.")});
}

// --- housekeeping ---

void Service::look_after() {
  std::vector<std::shared_ptr<Generation>> running;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& weak : running_) {
      if (auto generation = weak.lock()) running.push_back(std::move(generation));
    }
  }
  const auto now = Clock::now();
  for (const auto& generation : running) {
    if (now - generation->arrived() > options_.answer_timeout) generation->cancel("timeout");
  }
  if (is_stopping_) return;
  const std::string sentence = pool_.follow(engine_);
  if (!sentence.empty()) log_event(options_.log, sentence);
}

void Service::announce_stop() { is_stopping_ = true; }

}  // namespace skein
