// What a routed step of a batch must read from memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "skein/io/json.h"
#include "skein/spec/base_model.h"

namespace skein {

struct StepBytes {
  double base = 0;     // weights of every linear and the head
  double gates = 0;    // one vector per expert and linear
  double experts = 0;  // LoRA matrices of the distinct experts that the step's tokens chose, linear by linear
  // Tokens per second that are left of the base's where the experts cost no more than the reading of their bytes.
  double bound() const { return base / (base + gates + experts); }
};

// The mean over the steps of answers that were written side by side. traces: of each answer the pieces of its trace
// (docs/serving.md); library: where the experts lie; element_bytes: of a weight as it is computed with. Throws Failure.
StepBytes step_bytes(Env& env, const BaseModel& base, const std::string& library,
                     const std::vector<std::vector<Json>>& traces, double element_bytes);

}  // namespace skein
