#include "skein/train/trainer.h"

#include <algorithm>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/experts/trainable_lora.h"
#include "skein/io/digest.h"
#include "skein/io/output_folder.h"
#include "skein/spec/base_model.h"
#include "skein/spec/example.h"
#include "skein/spec/expert_folder.h"
#include "skein/train/train_data.h"
#include "skein/train/train_loop.h"
#include "skein/train/training_state.h"

namespace skein {
namespace {

constexpr const char* kGateKind = "phatgoose";

struct RunData {
  TrainData train, valid;
  std::vector<std::string> tasks;
};

RunData read_data(Env& env, const LoadedModel& model, const std::vector<std::string>& paths,
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

// What must be the same when a run is resumed, and is recorded in the card.
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

// The report of a run that is complete already, from its card entry, if it is the same run.
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

// Common to both commands, before any work: the plain base, sane options, an old state where it may not be.
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

}  // namespace

TrainReport train_expert(Env& env, const LoadedModel& model, const std::vector<std::string>& data_paths,
                         const std::string& out_path, const TrainOptions& options, bool overwrite) {
  const std::string out = without_trailing_slash(out_path);
  const std::string state_folder = out + ".training";
  check_start(env, model, options, state_folder, overwrite);
  const Json identity = run_identity(env, model, data_paths, options, /*with_lora=*/true);
  if (env.exists(out) && !overwrite) {
    const Json card = options.resume ? or_throw(read_card(env, out)) : Json();
    if (const auto report = finished_before(card, identity)) {
      log_info(concat(out, " is complete already"));
      or_throw(env.remove_tree(state_folder));
      return *report;
    }
    throw Failure({concat(out, " exists already; --overwrite replaces it")});
  }

  const RunData data = read_data(env, model, data_paths, options);
  TrainableLora lora(model.backbone->slots(), options.lora, model.backbone->compute().device);
  const Trainee trainee{&lora, lora.parameters(), lora.parameter_names()};
  TrainRun run;
  run.what = concat("expert ", base_name(out));
  run.state_folder = state_folder;
  run.identity = identity;
  run.keep_best = true;
  const TrainReport report = run_training(env, *model.backbone, trainee, data.train, data.valid, run, options);
  if (report.interrupted) return report;

  Json card;
  card["kind"] = "lora";
  if (!options.program_version.empty()) card["skein_version"] = options.program_version;
  card["tasks"] = data.tasks;
  card["base"] = model.base.path;
  card["base_fingerprint"] = identity["base_fingerprint"];
  card["training"] = identity;
  card["report"] = report_to_card(report);
  const auto& slots = model.backbone->slots();
  const auto folder = or_throw(OutputFolder::begin(env, out, overwrite));
  or_throw(write_lora_adapter(env, folder->path(),
                              lora.to_adapter(model.base.path, model.base.config.is_encoder_decoder()), slots));
  or_throw(write_card(env, folder->path(), card));
  copy_file(env, log_file(state_folder), join_path(folder->path(), "log.jsonl"));
  or_throw(folder->commit());
  or_throw(env.remove_tree(state_folder));
  return report;
}

TrainReport train_gate(Env& env, const LoadedModel& model, const std::string& expert_path,
                       const std::vector<std::string>& data_paths, const TrainOptions& options, bool overwrite) {
  const std::string expert = without_trailing_slash(expert_path);
  const std::string state_folder = expert + ".gate-training";
  const auto& slots = model.backbone->slots();
  check_start(env, model, options, state_folder, overwrite);
  const LoraAdapter adapter = or_throw(read_adapter(env, expert, slots));
  Json card = or_throw(read_card(env, expert));
  Json identity = run_identity(env, model, data_paths, options, /*with_lora=*/false);
  identity["expert"] = or_throw(digest_of_file(env, join_path(expert, "adapter_model.safetensors")));
  const auto fingerprint = identity["base_fingerprint"].get<std::string>();
  const std::string trained_on = or_throw(json_string(card, "base_fingerprint", "", join_path(expert, "card.json")));
  if (!trained_on.empty() && trained_on != fingerprint && !options.allow_other_base) {
    throw Failure({concat(expert, ": the expert was trained on base ", printable(trained_on), ", this base is ",
                          fingerprint, "; --allow-other-base insists")});
  }
  const std::vector<std::string> kinds = gate_kinds(env, expert);
  if (std::find(kinds.begin(), kinds.end(), kGateKind) != kinds.end() && !overwrite) {
    const Json entry = options.resume && card.contains("gates") ? card["gates"].value(kGateKind, Json()) : Json();
    if (const auto report = finished_before(entry, identity)) {
      log_info(concat(expert, " has this gate already"));
      or_throw(env.remove_tree(state_folder));
      return *report;
    }
    throw Failure({concat(expert, " has a ", kGateKind, " gate already; --overwrite replaces it")});
  }

  const RunData data = read_data(env, model, data_paths, options);
  GatedLora gated(adapter, slots, model.backbone->compute());
  const Trainee trainee{&gated, gated.parameters(), gated.parameter_names()};
  TrainRun run;
  run.what = concat("gate ", base_name(expert));
  run.state_folder = state_folder;
  run.identity = identity;
  const TrainReport report = run_training(env, *model.backbone, trainee, data.train, data.valid, run, options);
  if (report.interrupted) return report;

  // The gate comes last: where it is, the run is complete.
  card["gates"][kGateKind] = Json{{"training", identity}, {"report", report_to_card(report)}};
  or_throw(write_card(env, expert, card));
  copy_file(env, log_file(state_folder), join_path(expert, "gate_log.jsonl"));
  or_throw(write_gate(env, expert, gated.to_gate(report.steps, fingerprint), slots));
  or_throw(env.remove_tree(state_folder));
  return report;
}

}  // namespace skein
