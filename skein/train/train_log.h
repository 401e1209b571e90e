// log.jsonl: one JSON object per step, {step, loss, lr, grad_norm, tokens, target_tokens, seconds}, and per validation,
// {step, valid_loss, seconds}.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/json.h"

namespace skein {

class TrainLog {
 public:
  // resumed_step: keeps the lines of the log up to it (a killed run may have written more than it saved, and half a
  // line) and goes on after them. Nothing: begins an empty log.
  static Result<std::unique_ptr<TrainLog>> open(Env& env, const std::string& path,
                                                std::optional<std::int64_t> resumed_step);
  Status append(const Json& line);
  Status sync() { return file_->sync(); }

 private:
  explicit TrainLog(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  std::unique_ptr<WritableFile> file_;
};

}  // namespace skein
