#include "skein/train/mixture_trainer.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <ATen/ATen.h>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/library.h"
#include "skein/train/ranks.h"
#include "skein/train/run_setup.h"
#include "skein/train/train_loop.h"

namespace skein {
namespace {

constexpr std::int64_t kSpecialisationExamples = 32;  // of each task

std::string layer_name(const SlotName& slot, bool encoder_decoder) {
  return encoder_decoder ? concat(slot.in_encoder ? "encoder " : "decoder ", slot.layer) : std::to_string(slot.layer);
}

// Mean over routers of the mutual information of expert and task: sum_t p(t) sum_e p(e|t) log(p(e|t) / p(e)).
double mutual_information(const std::vector<RouterRecord>& by_task) {
  double sum = 0;
  int counted = 0;
  for (std::size_t r = 0; r < by_task.front().routers.size(); ++r) {
    std::vector<at::Tensor> shares;
    for (const RouterRecord& record : by_task) {
      const RouterRecord::Router& router = record.routers[r];
      if (router.num_rows > 0) shares.push_back(router.load / static_cast<double>(router.num_rows));
    }
    if (shares.empty()) continue;
    const at::Tensor given = at::stack(shares);               // (tasks, E)
    const at::Tensor mean = given.mean(0, /*keepdim=*/true);  // (1, E)
    const at::Tensor ratio = (given / mean.clamp_min(1e-300)).clamp_min(1e-300);
    sum += (given * ratio.log()).sum().item<double>() / static_cast<double>(shares.size());
    ++counted;
  }
  return counted == 0 ? 0 : sum / counted;
}

std::vector<double> mean_load(const RouterRecord& record, int num_experts) {
  at::Tensor sum = at::zeros({num_experts}, at::kDouble);
  for (const RouterRecord::Router& router : record.routers) {
    if (router.num_rows > 0) sum += router.load / static_cast<double>(router.num_rows);
  }
  const double total = sum.sum().item<double>();
  const double* values = sum.data_ptr<double>();
  std::vector<double> load(values, values + num_experts);
  for (double& value : load) value /= total > 0 ? total : 1;
  return load;
}

MixtureFile first_mixture(Env& env, const LoadedModel& model, const MixtureRequest& request,
                          const std::string& fingerprint, const TrainOptions& options) {
  if (request.frozen_library.empty()) return new_mixture(request.config, model.base.config, request.init);
  const Library library = or_throw(open_library(env, request.frozen_library));
  if (library.experts.empty()) throw Failure({concat(request.frozen_library, ": no experts in it")});
  if (library.base_fingerprint != fingerprint && !options.allow_other_base) {
    throw Failure(
        {concat(request.frozen_library, ": made for the base with fingerprint ", printable(library.base_fingerprint),
                "; ", model.base.path, " has ", fingerprint, "; another base (--allow-other-base to insist)")});
  }
  std::vector<LoraAdapter> adapters;
  std::vector<std::string> names;
  for (const LibraryEntry& entry : library.experts) {
    adapters.push_back(or_throw(read_lora_adapter(env, library.folder_of(entry.name), model.backbone->slots())));
    names.push_back(entry.name);
  }
  return mixture_of(adapters, names, request.config, model.base.config, request.init);
}

Json digests_of_library(Env& env, const std::string& path) {
  Json digests = Json::object();
  for (const LibraryEntry& entry : or_throw(open_library(env, path)).experts) {
    for (const auto& [file, digest] : entry.digests) {
      if (file == "adapter_model.safetensors") digests[entry.name] = digest;
    }
  }
  return digests;
}

}  // namespace

Specialisation measure_specialisation(const Backbone& backbone, const MixtureSlots& mixture, const TrainData& data,
                                      std::int64_t limit) {
  const at::NoGradGuard no_grad;
  Specialisation result;
  result.tasks = data.tasks;
  const int experts = mixture.config().num_experts;
  std::vector<RouterRecord> by_task;
  for (std::size_t task = 0; task < data.tasks.size(); ++task) {
    std::vector<std::int64_t> idxs;
    for (std::size_t i = 0; i < data.examples.size() && static_cast<std::int64_t>(idxs.size()) < limit; ++i) {
      if (data.task_of[i] == static_cast<int>(task)) idxs.push_back(static_cast<std::int64_t>(i));
    }
    auto record = std::make_shared<RouterRecord>(mixture.num_routers());
    for (std::size_t begin = 0; begin < idxs.size(); begin += 8) {
      const std::span<const std::int64_t> some(idxs.data() + begin, std::min<std::size_t>(8, idxs.size() - begin));
      target_hidden(backbone, make_target_batch(data, some, backbone), &mixture, record);
    }
    result.load.push_back(mean_load(*record, experts));
    by_task.push_back(std::move(*record));
  }
  if (!by_task.empty() && experts > 1) result.mutual_information = mutual_information(by_task);
  const at::Tensor cosines = mixture.expert_cosines();
  if (experts > 1) {
    const double pairs = static_cast<double>(experts) * (experts - 1);
    result.mean_cosine = (cosines.sum() - cosines.diagonal().sum()).item<double>() / pairs;
  }
  return result;
}

Json specialisation_to_json(const Specialisation& measured) {
  Json json;
  json["mutual_information_nats"] = measured.mutual_information;
  json["mean_cosine_of_experts"] = measured.mean_cosine;
  for (std::size_t task = 0; task < measured.tasks.size(); ++task) {
    json["expert_load"][measured.tasks[task]] = measured.load[task];
  }
  return json;
}

Trainee mixture_trainee(MixtureSlots& mixture, const TrainOptions& options) {
  Trainee trainee{.filler = &mixture, .parameters = mixture.parameters(), .names = mixture.parameter_names()};
  if (mixture.config().num_experts == 1) return trainee;
  trainee.num_experts = mixture.config().num_experts;
  trainee.before_step = [&mixture, &options](const StepSize& size) {
    mixture.set_losses({.balance = options.balance_weight,
                        .z_loss = options.z_loss_weight,
                        .num_sequences = size.sequences,
                        .num_rows = size.rows,
                        .num_source_rows = std::max<std::int64_t>(size.source_rows, 1)});
  };
  const bool encoder_decoder = mixture.slot_of_router(0).module.starts_with("encoder.");
  for (int r = 0; r < mixture.num_routers(); ++r) {
    const std::string layer = layer_name(mixture.slot_of_router(r), encoder_decoder);
    if (trainee.layers.empty() || trainee.layers.back() != layer) trainee.layers.push_back(layer);
    trainee.layer_of_router.push_back(static_cast<int>(trainee.layers.size()) - 1);
  }
  return trainee;
}

MixtureReport train_mixture(Env& env, Comm& comm, const LoadedModel& model, const std::vector<std::string>& data,
                            const std::string& out, const MixtureRequest& wanted, const TrainOptions& options,
                            bool overwrite) {
  const bool frozen = !wanted.frozen_library.empty();
  FolderRunRequest request{std::string(mixture_kind_name(wanted.config.kind)), data, out, options, overwrite};
  together(comm, [&] {
    or_throw(check_mixture_config(wanted.config));
    if (options.balance_weight > 0 && wanted.config.top_k == 0) {
      throw Failure(
          {"load balancing is constant where every token uses all experts; give --top-k with it", ErrorKind::kUsage});
    }
    request.more_identity["mixture"] = mixture_config_to_json(wanted.config);
    request.more_identity["init"] = {
        {"a_std", wanted.init.a_std}, {"router_std", wanted.init.router_std}, {"seed", wanted.init.seed}};
    if (frozen) request.more_identity["frozen_experts"] = digests_of_library(env, wanted.frozen_library);
  });
  const FolderRun run = begin_folder_run(env, comm, model, request);
  MixtureReport report;
  if (run.done) {
    report.run = *run.done;
    return report;
  }

  const auto fingerprint = run.identity["base_fingerprint"].get<std::string>();
  std::optional<MixtureSlots> mixture;
  together(comm, [&] {
    mixture.emplace(first_mixture(env, model, wanted, fingerprint, options), model.base.config,
                    model.backbone->compute(), frozen ? MixtureSlots::Trains::kRouters : MixtureSlots::Trains::kAll);
  });
  report.parameters = count_parameters(mixture->config(), model.base.config);
  if (frozen) report.parameters.experts = 0;
  const Trainee trainee = mixture_trainee(*mixture, options);
  report.run = run_training(env, *model.backbone, trainee, run.data.train, run.data.valid, run.loop, options);
  if (report.run.interrupted) return report;

  Json facts;
  on_root(comm, [&] {
    report.specialisation = measure_specialisation(*model.backbone, *mixture, run.data.train, kSpecialisationExamples);
    facts["parameters_trained"] = report.parameters.trained();
    facts["share_of_base"] = report.parameters.share();
    facts["specialisation"] = specialisation_to_json(report.specialisation);
  });
  end_folder_run(env, comm, model, request, run, report.run, facts, [&](const std::string& folder) {
    MixtureFile file = mixture->to_file();
    file.base_fingerprint = fingerprint;
    file.base_hint = model.base.path;
    or_throw(write_mixture(env, folder, file, model.base.config));
  });
  return report;
}

LoraAdapter ia3_of(const MixtureFile& mixture, const BackboneConfig& base, const std::string& base_hint) {
  const std::vector<SlotName> slots = slot_names(base);
  LoraAdapter adapter;
  AdapterConfig& config = adapter.config;
  config.kind = AdapterKind::kIa3;
  config.base_model_name_or_path = base_hint;
  config.task_type = base.is_encoder_decoder() ? "SEQ_2_SEQ_LM" : "CAUSAL_LM";
  const auto add_once = [](std::vector<std::string>& names, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const MixtureModule& module : mixture.modules) {
    const SlotName& slot = slots[static_cast<std::size_t>(module.slot_idx)];
    add_once(config.target_modules, slot.kind);
    if (scales_input(slot)) add_once(config.feedforward_modules, slot.kind);
    adapter.vectors.push_back({module.slot_idx, scales_input(slot), module.scaling});
  }
  return adapter;
}

TrainReport train_ia3(Env& env, Comm& comm, const LoadedModel& model, const std::vector<std::string>& data,
                      const std::string& out, const TrainOptions& options, bool overwrite) {
  FolderRunRequest request{"ia3", data, out, options, overwrite};
  request.more_identity["kind"] = "ia3";
  const FolderRun run = begin_folder_run(env, comm, model, request);
  if (run.done) return *run.done;
  // A mixture of one: its router is never asked.
  const MixtureConfig one{.kind = MixtureKind::kMov, .num_experts = 1};
  MixtureSlots vectors(new_mixture(one, model.base.config, {}), model.base.config, model.backbone->compute(),
                       MixtureSlots::Trains::kExperts);
  const Trainee trainee = mixture_trainee(vectors, options);
  const TrainReport report =
      run_training(env, *model.backbone, trainee, run.data.train, run.data.valid, run.loop, options);
  if (report.interrupted) return report;
  end_folder_run(env, comm, model, request, run, report, Json::object(), [&](const std::string& folder) {
    const LoraAdapter adapter = ia3_of(vectors.to_file(), model.base.config, model.base.path);
    or_throw(write_ia3_adapter(env, folder, adapter, model.backbone->slots()));
  });
  return report;
}

}  // namespace skein
