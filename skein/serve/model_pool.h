// What requests may ask to stand in the slots: the base, each expert, every router over the library, mixtures.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/serve/engine.h"

namespace skein {

// One resolved choice. Shared by the requests that made it, which keep it beyond a reload.
struct ServedModel {
  LoadedModel model;                // filler, hints, names of experts
  bool reads_whole_prompt = false;  // the prompt's mean decides: it is read in one piece, and none of it is reused
  std::uint64_t identity = 0;       // differs between any two, so that no cache mixes them up
};

// More settings of routers are asked for at once than there is memory for; later there may be room.
class TooManyRouters : public Failure {
 public:
  using Failure::Failure;
};

// Thread-safety: all functions may be called from any thread.
class ModelPool {
 public:
  // Reads base, library and mixtures. Throws Failure.
  ModelPool(Env& env, const EngineOptions& options);

  // Throws Failure: no such name, a router without its gates, options out of range; TooManyRouters.
  std::shared_ptr<const ServedModel> resolve(const ModelChoice& choice);
  void reload();
  std::vector<ModelName> list_models() const;
  const LoadedModel& base() const { return base_->model; }

 private:
  struct Library;
  std::shared_ptr<const ServedModel> make(LoadedModel model);
  std::shared_ptr<const Library> read_library() const;
  void make_room_for_router();  // under mutex_

  Env& env_;
  EngineOptions options_;
  std::shared_ptr<const ServedModel> base_;
  std::map<std::string, std::shared_ptr<const ServedModel>> mixtures_;
  std::mutex reload_mutex_;                 // one reload at a time
  mutable std::mutex mutex_;                // of all below
  std::shared_ptr<const Library> library_;  // null: none
  std::uint64_t next_identity_ = 0;
  // Routers and experts that were asked for, most recent first; bounded, as their options come from requests.
  std::list<std::pair<std::string, std::shared_ptr<const ServedModel>>> recent_;
  std::vector<std::weak_ptr<const ServedModel>> routers_;  // recent, or still used by requests
};

}  // namespace skein
