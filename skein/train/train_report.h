// What a run of training came to: in memory, in its saved state and in the card of what it wrote.
#pragma once

#include <cstdint>
#include <string>

#include "skein/base/result.h"
#include "skein/io/json.h"

namespace skein {

struct TrainReport {
  std::int64_t steps = 0;
  double first_loss = 0, last_loss = 0;
  std::int64_t best_step = -1;  // -1: no validation
  double best_valid_loss = 0;   // experts: of best_step; gates: of the last step
  std::int64_t target_tokens = 0, tokens = 0, inputs_cut = 0;
  double seconds = 0;
  // Not in JSON.
  bool interrupted = false;  // stopped by Ctrl-C with a state to resume from
  std::string state_folder;  // where that state is
};

// {steps, first_loss, last_loss, tokens, target_tokens, inputs_cut, seconds} and, after a validation, {valid_step,
// valid_loss}.
Json report_to_json(const TrainReport& report);
// where: for messages, the file.
Result<TrainReport> report_from_json(const Json& json, const std::string& where);

}  // namespace skein
