#include "skein/train/train_data.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/io/digest.h"

namespace skein {

Result<TrainData> encode_train_data(const std::vector<Example>& examples, const LoadedModel& model,
                                    const PromptOptions& options) {
  const BackboneConfig& config = model.backbone->config();
  TrainData data;
  for (const Example& example : examples) {
    EncodedExample encoded = encode_example(example, *model.tokenizer, config, options);
    encoded.choices.clear();  // training reads none
    const auto where = [&] { return concat("example ", printable(example.id)); };
    if (encoded.input.empty() || encoded.target.empty()) {
      return Error{concat(where(), " has no ", encoded.input.empty() ? "input" : "target",
                          " token; the first target token must follow something")};
    }
    const auto length = static_cast<std::int64_t>(encoded.input.size() + encoded.target.size()) - 1;
    if (!config.is_encoder_decoder() && length > config.max_positions) {
      return Error{concat(where(), " has ", length, " tokens, input and target together; the base reads at most ",
                          config.max_positions, ": lower --max-input")};
    }
    data.inputs_cut += encoded.input_was_cut ? 1 : 0;
    data.examples.push_back(std::move(encoded));
    data.ids.push_back(example.id);
    const auto task = std::find(data.tasks.begin(), data.tasks.end(), example.task);
    data.task_of.push_back(static_cast<int>(task - data.tasks.begin()));
    if (task == data.tasks.end()) data.tasks.push_back(example.task);
  }
  return data;
}

Result<Json> data_digests(Env& env, const std::vector<std::string>& paths) {
  Json digests = Json::object();
  for (const std::string& path : paths) {
    SKEIN_ASSIGN(digests[path], digest_of_file(env, path));
  }
  return digests;
}

std::vector<std::string> tasks_of(const std::vector<Example>& examples) {
  std::vector<std::string> tasks;
  for (const Example& example : examples) {
    if (std::find(tasks.begin(), tasks.end(), example.task) == tasks.end()) tasks.push_back(example.task);
  }
  return tasks;
}

}  // namespace skein
