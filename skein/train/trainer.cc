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
#include "skein/train/run_setup.h"
#include "skein/train/train_loop.h"
#include "skein/train/training_state.h"

namespace skein {
namespace {

constexpr const char* kGateKind = "phatgoose";

}  // namespace

TrainReport train_expert(Env& env, const LoadedModel& model, const std::vector<std::string>& data_paths,
                         const std::string& out_path, const TrainOptions& options, bool overwrite) {
  const std::string out = without_trailing_slash(out_path);
  const std::string state_folder = out + ".training";
  check_start(env, model, options, state_folder, overwrite);
  const Json identity = run_identity(env, model, data_paths, options, /*with_lora=*/true);
  if (const auto done = check_target(env, out, state_folder, identity, options, overwrite)) return *done;

  const RunData data = read_run_data(env, model, data_paths, options);
  TrainableLora lora(model.backbone->slots(), options.lora, model.backbone->compute().device);
  const Trainee trainee{&lora, lora.parameters(), lora.parameter_names()};
  TrainRun run;
  run.what = concat("expert ", base_name(out));
  run.state_folder = state_folder;
  run.identity = identity;
  run.keep_best = true;
  const TrainReport report = run_training(env, *model.backbone, trainee, data.train, data.valid, run, options);
  if (report.interrupted) return report;

  const Json card = card_of("lora", model, data, identity, report, options);
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

  const RunData data = read_run_data(env, model, data_paths, options);
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
