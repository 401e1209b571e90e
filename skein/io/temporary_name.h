// Names of things not yet finished: ".NAME.skein-tmp-PID-N" beside NAME.
//
// The process id keeps two processes that write the same name apart, and tells the leftovers of a dead one from the
// work of a living one.
#pragma once

#include <string>

#include "skein/io/env.h"

namespace skein {

// A temporary name in use by this process for as long as the object lives.
class TemporaryName {
 public:
  explicit TemporaryName(const std::string& final_path);
  ~TemporaryName();
  TemporaryName(const TemporaryName&) = delete;
  TemporaryName& operator=(const TemporaryName&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Where OutputFolder keeps the old folder while it cannot exchange the two: ".NAME.skein-old".
std::string aside_path(const std::string& final_path);

// Removes what killed processes left behind of `final_path`. What cannot be removed is left: the next run tries again.
void remove_leftovers(Env& env, const std::string& final_path);

}  // namespace skein
