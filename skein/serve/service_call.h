// One request while the service answers it. For service*.cc alone.
#pragma once

#include "skein/serve/service.h"

namespace skein {

struct Service::Call {
  std::shared_ptr<HttpExchange> exchange;
  std::chrono::steady_clock::time_point arrived = std::chrono::steady_clock::now();
  std::string id;  // drawn
  std::string client;
  LoggedRequest logged;
  const HttpRequest& request() const { return exchange->request(); }
};

}  // namespace skein
