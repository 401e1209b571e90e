// From DATA to token ids ready to train on.
#pragma once

#include <string>
#include <vector>

#include "skein/infer/loaded_model.h"
#include "skein/io/env.h"
#include "skein/io/json.h"
#include "skein/spec/example.h"
#include "skein/train/target_batch.h"

namespace skein {

// Tokenises; counts cut inputs. An example that is longer than the base's context, or has no input token, is an error
// that names it.
Result<TrainData> encode_train_data(const std::vector<Example>& examples, const LoadedModel& model,
                                    const PromptOptions& options);
// {"PATH": "DIGEST", ...}, in the order given.
Result<Json> data_digests(Env& env, const std::vector<std::string>& paths);
// Distinct task names in order of appearance.
std::vector<std::string> tasks_of(const std::vector<Example>& examples);

}  // namespace skein
