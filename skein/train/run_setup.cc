#include "skein/train/run_setup.h"

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/spec/base_model.h"
#include "skein/spec/example.h"
#include "skein/spec/expert_folder.h"
#include "skein/train/training_state.h"

namespace skein {

RunData read_run_data(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
                      const TrainOptions& options) {
  RunData data;
  const std::vector<Example> examples = or_throw(read_examples(env, paths));
  data.tasks = tasks_of(examples);
  data.train = or_throw(encode_train_data(examples, model, options.prompt));
  if (options.valid.empty()) return data;
  std::vector<Example> valid = or_throw(read_examples(env, options.valid));
  const auto limit = static_cast<std::size_t>(options.valid_limit);
  if (limit > 0 && valid.size() > limit) valid.resize(limit);
  data.valid = or_throw(encode_train_data(valid, model, options.prompt));
  return data;
}

Json run_identity(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
                  const TrainOptions& options, bool with_lora) {
  Json identity;
  identity["options"] = train_options_to_json(options, with_lora);
  identity["dtype"] = model.backbone->compute().dtype == at::kBFloat16 ? "bf16" : "f32";
  identity["data"] = or_throw(data_digests(env, paths));
  identity["valid"] = or_throw(data_digests(env, options.valid));
  identity["base_fingerprint"] = or_throw(base_fingerprint(env, model.base));
  return identity;
}

Json report_to_card(const TrainReport& report) {
  Json json;
  json["steps"] = report.steps;
  json["first_loss"] = report.first_loss;
  json["last_loss"] = report.last_loss;
  if (report.best_step >= 0) {
    json["valid_step"] = report.best_step;
    json["valid_loss"] = report.best_valid_loss;
  }
  json["tokens"] = report.tokens;
  json["target_tokens"] = report.target_tokens;
  json["inputs_cut"] = report.inputs_cut;
  json["seconds"] = report.seconds;
  return json;
}

std::optional<TrainReport> finished_before(const Json& entry, const Json& identity) {
  if (!entry.is_object() || !entry.contains("training") || !entry.contains("report")) return std::nullopt;
  if (!check_identity(entry["training"], identity, "").ok()) return std::nullopt;
  const Json& json = entry["report"];
  TrainReport report;
  report.steps = json.value("steps", report.steps);
  report.first_loss = json.value("first_loss", report.first_loss);
  report.last_loss = json.value("last_loss", report.last_loss);
  report.best_step = json.value("valid_step", report.best_step);
  report.best_valid_loss = json.value("valid_loss", report.best_valid_loss);
  report.tokens = json.value("tokens", report.tokens);
  report.target_tokens = json.value("target_tokens", report.target_tokens);
  report.inputs_cut = json.value("inputs_cut", report.inputs_cut);
  report.seconds = json.value("seconds", report.seconds);
  return report;
}

void copy_file(Env& env, const std::string& from, const std::string& to) {
  or_throw(write_text_atomically(env, to, or_throw(read_text_file(env, from))));
}

void check_start(Env& env, const LoadedModel& model, const TrainOptions& options, const std::string& state_folder,
                 bool overwrite) {
  or_throw(check_train_options(options));
  if (model.filler != nullptr) {
    throw Failure(
        {"training starts from the plain base; load the model without an adapter or a library", ErrorKind::kUsage});
  }
  if (overwrite && !options.resume) or_throw(env.remove_tree(state_folder));
}

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

std::optional<TrainReport> check_target(Env& env, const std::string& out, const std::string& state_folder,
                                        const Json& identity, const TrainOptions& options, bool overwrite) {
  if (!env.exists(out) || overwrite) return std::nullopt;
  const Json card = options.resume ? or_throw(read_card(env, out)) : Json();
  if (const auto report = finished_before(card, identity)) {
    log_info(concat(out, " is complete already"));
    or_throw(env.remove_tree(state_folder));
    return report;
  }
  throw Failure({concat(out, " exists already; --overwrite replaces it")});
}

Json card_of(const std::string& kind, const LoadedModel& model, const RunData& data, const Json& identity,
             const TrainReport& report, const TrainOptions& options) {
  Json card;
  card["kind"] = kind;
  if (!options.program_version.empty()) card["skein_version"] = options.program_version;
  card["tasks"] = data.tasks;
  card["base"] = model.base.path;
  card["base_fingerprint"] = identity["base_fingerprint"];
  card["training"] = identity;
  card["report"] = report_to_card(report);
  return card;
}

}  // namespace skein
