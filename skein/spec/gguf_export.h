// A base model as the GGUF file that llama.cpp's own converter would make of it.
#pragma once

#include <functional>
#include <string>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/gguf_writer.h"
#include "skein/spec/base_model.h"

namespace skein {

// Writes `path`: matrices as `type` (F32, F16, BF16 or Q8_0), vectors as F32, one tensor in memory at a time; q and k
// of llama models permuted, Gemma's norms around one. metadata: what else the file says, the vocabulary above all; the
// architecture's entries are added to it. on_progress: bytes written so far and the next tensor's name; false stops.
// Error: T5 (not written), a matrix whose rows are no whole blocks of Q8_0, values that Q8_0 cannot hold.
Status write_gguf(Env& env, const std::string& path, const BaseModel& base, GgmlType type, GgufMetadata metadata,
                  const std::function<bool(std::int64_t, const std::string&)>& on_progress);

// transformers' llama3 rule: what the rotary frequency of pair `pair_idx` is divided by.
double llama3_divisor(const BackboneConfig::Llama3Rope& rope, double theta, std::int64_t d_head, std::int64_t pair_idx);

}  // namespace skein
