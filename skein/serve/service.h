// The API's routes: who may call them, what they do with the engine.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "skein/serve/access.h"
#include "skein/serve/api_requests.h"
#include "skein/serve/engine.h"
#include "skein/serve/http_exchange.h"
#include "skein/serve/metrics.h"
#include "skein/serve/request_log.h"
#include "skein/serve/served_pool.h"

namespace skein {

struct ServiceOptions {
  std::string base_name;  // the base's name in the API
  std::string host;       // what the server listens on
  std::vector<std::string> allowed_hosts;
  ApiKeys keys;
  RequestLimits limits;
  std::size_t max_body_bytes = 4 << 20;  // for the API's description; the HTTP server holds it
  std::chrono::milliseconds answer_timeout{600'000};
  LogKind log = LogKind::kText;
  std::string version;
};

class Generation;
struct GenerationSetting;

// Thread-safe. Borrows engine and pool for its life.
class Service {
 public:
  Service(Engine& engine, ServedPool& pool, ServiceOptions options);
  ~Service();

  // Answers one request, now or when the engine is done with it.
  void handle(const std::shared_ptr<HttpExchange>& exchange);

  // Ends answers that take too long, follows the library on disk. Call a few times a second.
  void look_after();
  // From now on /ready says no.
  void announce_stop();

 private:
  struct Call;
  struct Route;
  static const std::vector<Route>& routes();

  void answer(const std::shared_ptr<Call>& call);
  void check_access(const Call& call, const Route& route);
  void end(const std::shared_ptr<Call>& call, int status);

  void page(const std::shared_ptr<Call>& call);
  void health(const std::shared_ptr<Call>& call);
  void ready(const std::shared_ptr<Call>& call);
  void metrics_text(const std::shared_ptr<Call>& call);
  void openapi(const std::shared_ptr<Call>& call);
  void models(const std::shared_ptr<Call>& call);
  void one_model(const std::shared_ptr<Call>& call);
  void chat(const std::shared_ptr<Call>& call);
  void completions(const std::shared_ptr<Call>& call);
  void trace(const std::shared_ptr<Call>& call);
  void embeddings(const std::shared_ptr<Call>& call);
  void load_adapter(const std::shared_ptr<Call>& call);
  void unload_adapter(const std::shared_ptr<Call>& call);

  void respond(const std::shared_ptr<Call>& call, HttpResponse response);
  Json body_of(const Call& call) const;
  ModelName find_model(const std::string& name) const;  // throws ApiFailure (404)
  Json model_json(const ModelName& model) const;
  std::vector<TokenId> encode(const Prompt& prompt, const std::string& field) const;
  void generate(const std::shared_ptr<Call>& call, GenerationRequest request);
  GenerationSetting setting_of(const std::shared_ptr<Call>& call, const ModelName& model);

  Engine& engine_;
  ServedPool& pool_;
  const ServiceOptions options_;
  const std::int64_t started_;
  ServerMetrics metrics_;
  std::atomic<bool> is_stopping_{false};
  std::mutex mutex_;
  std::vector<std::weak_ptr<Generation>> running_;
};

}  // namespace skein
