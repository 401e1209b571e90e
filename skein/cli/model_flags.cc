#include "skein/cli/model_flags.h"

#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/nn/compute.h"

namespace skein {

void add_base_flags(CLI::App& command, ModelFlags& flags) {
  const std::string group = "Model";
  command.add_option("--base", flags.base, "The base model: a Hugging Face folder or one .gguf file")
      ->type_name("BASE")
      ->required()
      ->group(group);
  command.add_option("--device", flags.device, "cpu, cuda or cuda:K; without it cuda if there is one")
      ->type_name("DEVICE")
      ->group(group);
  command
      .add_option("--dtype", flags.dtype,
                  "f32 or bf16; without it bf16 where the device computes in it natively, else f32")
      ->type_name("TYPE")
      ->group(group);
  command.add_flag("--allow-other-base", flags.allow_other_base, "Use experts although they name another base")
      ->group(group);
}

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  add_base_flags(command, flags);
  const std::string group = "Experts";
  CLI::Option* adapter = command.add_option("--adapter", flags.adapter, "One PEFT adapter on top of the base")
                             ->type_name("ADAPTER")
                             ->group(group);
  CLI::Option* library = command.add_option("--library", flags.library, "A pool of experts to route among")
                             ->type_name("LIB")
                             ->group(group)
                             ->excludes(adapter);
  command
      .add_option("--mixture", flags.mixture, "Experts and routers trained together: a folder of train mov or molora")
      ->type_name("DIR")
      ->group(group)
      ->excludes(adapter)
      ->excludes(library);
  const auto routed = [&](CLI::Option* option) { option->group(group)->needs(library); };
  routed(command
             .add_option("--router", flags.router,
                         "phatgoose (trained gates), uniform (K experts at random), single "
                         "(--expert) or merged (mean of all experts' products)")
             ->type_name("ROUTER")
             ->check(CLI::IsMember({"phatgoose", "uniform", "single", "merged"}))
             ->capture_default_str());
  routed(command.add_option("--top-k", flags.top_k, "Experts per token and module")
             ->type_name("K")
             ->check(CLI::PositiveNumber)
             ->capture_default_str());
  routed(command
             .add_option("--router-temperature", flags.router_temperature,
                         "Scores are divided by it: above 1 flatter, below 1 sharper")
             ->type_name("T")
             ->check(CLI::PositiveNumber)
             ->capture_default_str());
  routed(command
             .add_option("--router-softmax", flags.router_softmax,
                         "Softmax over all experts, then shared out among the chosen "
                         "(all: the released code), or over the chosen (chosen: the paper)")
             ->type_name("SET")
             ->check(CLI::IsMember({"all", "chosen"}))
             ->capture_default_str());
  routed(command.add_option("--gate-norm", flags.gate_norm, "How gates are normalised: layer, l2 or none")
             ->type_name("NORM")
             ->check(CLI::IsMember({"layer", "l2", "none"}))
             ->capture_default_str());
  routed(command.add_flag("--bf16-scores", flags.bf16_scores,
                          "Multiply scores in bf16, as the released code does under autocast; ties get likely"));
  routed(command.add_option("--expert", flags.expert, "With --router single: the expert that takes every token")
             ->type_name("NAME"));
  routed(
      command.add_option("--only", flags.only, "Route among these experts alone")->type_name("NAME")->delimiter(','));
  routed(command.add_option("--without", flags.without, "Switch these experts off")->type_name("NAME")->delimiter(','));
}

ModelOptions model_options(const ModelFlags& flags, const CommonOptions& common) {
  apply_common_options(common);
  set_compute_threads(common.num_threads);
  ModelOptions options;
  options.base = flags.base;
  options.adapter = flags.adapter;
  options.library = flags.library;
  options.mixture = flags.mixture;
  options.allow_other_base = flags.allow_other_base;
  options.compute = or_throw(compute_options(flags.device, flags.dtype));
  RouterOptions& router = options.router;
  router.kind = flags.router;
  router.top_k = flags.top_k;
  router.temperature = flags.router_temperature;
  router.softmax_over_chosen = flags.router_softmax == "chosen";
  using enum RouterOptions::GateNorm;
  router.gate_norm = flags.gate_norm == "layer" ? kLayerNorm : flags.gate_norm == "l2" ? kL2 : kNone;
  router.bf16_scores = flags.bf16_scores;
  router.seed = common.seed;
  router.expert = flags.expert;
  router.only = flags.only;
  router.without = flags.without;
  if (router.kind == "single" && router.expert.empty()) {
    throw Failure({"--router single needs --expert NAME", ErrorKind::kUsage});
  }
  return options;
}

std::string expert_words(const ModelOptions& options) {
  return options.mixture.empty() ? router_words(options.router) : "mixture " + base_name(options.mixture);
}

std::string router_words(const RouterOptions& router) {
  if (router.kind == "single") return concat("single expert ", router.expert);
  if (router.kind == "merged" || router.kind == "uniform") return router.kind;
  return concat(router.kind, ", top ", router.top_k);
}

}  // namespace skein
