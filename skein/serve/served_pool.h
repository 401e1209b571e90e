// The library that a server serves: followed on disk, and changed by its own load and unload endpoints.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "skein/io/env.h"
#include "skein/io/temporary_folder.h"
#include "skein/serve/adapter_staging.h"
#include "skein/serve/api_requests.h"
#include "skein/serve/engine.h"

namespace skein {

struct ServedPoolOptions {
  std::string base;
  std::string library;                // empty: a temporary one, if there are adapters or an allowed folder
  std::vector<std::string> adapters;  // PEFT folders that join the temporary library
  std::string adapter_folder;         // what may be loaded at run time; empty: nothing
  int max_loaded = 64;                // adapters loaded at run time
  StagingLimits adapter_limits;       // of each
  bool allow_other_base = false;
};

// Thread-safe. One change at a time: a second one is refused with 429.
class ServedPool {
 public:
  // Makes the temporary library, which goes with this object. Throws Failure.
  ServedPool(Env& env, ServedPoolOptions options);

  const std::string& library() const { return library_; }  // empty: the base alone
  bool loads_adapters() const { return !options_.adapter_folder.empty(); }

  // What load_lora_adapter and unload_lora_adapter do: an expert in the library's folder, for good, as `library add`
  // would put it there; the engine takes it over without dropping requests. Only what was loaded this way since the
  // start is unloaded. Throw ApiFailure.
  void load(Engine& engine, const AdapterRequest& request);
  void unload(Engine& engine, const AdapterRequest& request);

  // Reloads the engine if the library's file has changed since the last look; call it now and then. Returns a sentence
  // for the log, or nothing. What cannot be read is reported once and left for the next change.
  std::string follow(Engine& engine);

 private:
  std::string stamp() const;  // changes when library.json does

  Env& env_;
  const ServedPoolOptions options_;
  std::optional<TemporaryFolder> temporary_;
  std::string library_;
  std::mutex mutex_;
  std::set<std::string> loaded_;
  std::string stamp_;
};

}  // namespace skein
