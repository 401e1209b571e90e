#include "skein/cli/model_flags.h"

#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/cli/text_table.h"
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

void add_base_bits(CLI::App& command, ModelFlags& flags) {
  command
      .add_option(
          "--base-bits", flags.base_bits,
          "Keep the base's matrices in 8 or 4 bits (8: as GGUF's Q8_0; 4: NF4 in blocks of 64, embedding and head "
          "in 8), and round what enters a product to 8, but not in f32 nor in training: less memory, faster answers, "
          "nearly the same numbers; on the CPU")
      ->type_name("BITS")
      ->check(CLI::IsMember(std::vector<int>{8, 4}))
      ->group("Model");
}

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  add_base_flags(command, flags);
  add_base_bits(command, flags);
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
  std::string kinds;
  std::vector<std::string> names;
  for (const RouterKind& kind : router_kinds()) {
    kinds += concat(kinds.empty() ? "" : ", ", kind.name, " (", kind.help, ")");
    names.emplace_back(kind.name);
  }
  routed(command.add_option("--router", flags.router, kinds)
             ->type_name("ROUTER")
             ->check(CLI::IsMember(names))
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
  const auto one_of = [&](const std::string& name, std::string& value, const std::string& help, const std::string& type,
                          const std::vector<std::string>& words) {
    routed(command.add_option(name, value, help)->type_name(type)->check(CLI::IsMember(words))->capture_default_str());
  };
  routed(command
             .add_option("--router-top-p", flags.router_top_p,
                         "Of the top K only the fewest experts that hold this share of the probability")
             ->type_name("P")
             ->check(CLI::Range(0.0, 1.0))
             ->capture_default_str());
  one_of("--router-softmax", flags.router_softmax,
         "Softmax over all experts, then shared out among the chosen (all: phatgoose's code), or over the chosen "
         "(chosen: its paper; PEFT's Arrow); own: as the router's authors have it",
         "SET", {"own", "all", "chosen"});
  one_of(
      "--choice-by", flags.choice_by,
      "Who decides: each token, or the mean input of each prompt (sequence); own: smear by sequence, others by token",
      "WHO", {"own", "token", "sequence"});
  one_of("--choice-for", flags.choice_for,
         "For which modules: each its own choice (module), or one for those that read one input, for a layer, for the "
         "model",
         "WHAT", {"module", "input", "layer", "model"});
  one_of("--mix", flags.mix,
         "Mix the experts' outputs, or A and B apart before they are multiplied (factors); own: smear and "
         "merged-factors by factors",
         "WHAT", {"own", "outputs", "factors"});
  one_of("--gates", flags.gates,
         "Controls: exchange the experts' gates in each module, or draw them at random (--seed)", "GATES",
         {"own", "shuffled", "random"});
  routed(command
             .add_option("--sentence-encoder", flags.sentence_encoder,
                         "retrieval, task-description: a sentence encoder's folder (all-MiniLM-L6-v2)")
             ->type_name("DIR")
             ->capture_default_str());
  routed(command
             .add_option("--description-weight", flags.description_weight,
                         "task-description: of the likeness to each expert's description, beside the gates' scores")
             ->type_name("WEIGHT")
             ->capture_default_str());
  routed(command
             .add_option("--general", flags.general,
                         "Subtract the mean of these experts from the others and route among those (GenKnowSub)")
             ->type_name("NAME")
             ->delimiter(','));
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
  routed(command
             .add_option("--expert-memory", flags.expert_memory,
                         "Bytes of LoRAs to keep in memory, those used last; the rest waits on the disk (a file in "
                         "TMPDIR, else /var/tmp), at no change of the result. K, M, G are powers of 1000; without it "
                         "all are kept")
             ->type_name("SIZE")
             ->transform(CLI::AsSizeValue(true)));
}

ComputeOptions compute_options(const ModelFlags& flags) {
  ComputeOptions compute = or_throw(compute_options(flags.device, flags.dtype));
  if (flags.base_bits != 0 && !compute.device.is_cpu()) {
    throw Failure({"--base-bits works on the CPU; give --device cpu with it", ErrorKind::kUsage});
  }
  compute.base_bits = flags.base_bits;
  compute.eight_bit_inputs = compute.dtype == c10::ScalarType::BFloat16 && !flags.needs_gradients;
  return compute;
}

ModelOptions model_options(const ModelFlags& flags, const CommonOptions& common) {
  apply_common_options(common);
  set_compute_threads(common.num_threads);
  ModelOptions options;
  options.base = flags.base;
  options.adapter = flags.adapter;
  options.library = flags.library;
  options.mixture = flags.mixture;
  options.sentence_encoder = flags.sentence_encoder;
  options.allow_other_base = flags.allow_other_base;
  options.expert_memory = flags.expert_memory;
  options.compute = compute_options(flags);
  options.router = router_options(flags, common.seed);
  return options;
}

Json report_expert_pages(const LoadedModel& model) {
  if (model.bank == nullptr || model.bank->pages() == nullptr) return nullptr;
  const ExpertPages::Counts counts = model.bank->pages()->counts();
  const auto megabytes = [](std::uint64_t bytes) { return fixed(static_cast<double>(bytes) / 1e6, 1); };
  log_info(concat("experts: ", counts.hits, " times in memory, ", counts.misses, " times not (",
                  megabytes(counts.bytes_read), " MB read); ", megabytes(counts.bytes_kept), " MB kept of ",
                  megabytes(counts.bytes_stored)));
  return {{"hits", counts.hits},
          {"misses", counts.misses},
          {"bytes_read", counts.bytes_read},
          {"bytes_kept", counts.bytes_kept},
          {"bytes_stored", counts.bytes_stored}};
}

RouterOptions router_options(const ModelFlags& flags, std::uint64_t seed) {
  RouterOptions router = default_router(flags.router);
  router.top_k = flags.top_k;
  router.top_p = flags.router_top_p;
  router.temperature = flags.router_temperature;
  if (flags.router_softmax != "own") router.softmax_over_chosen = flags.router_softmax == "chosen";
  using Scope = RouterUse::Scope;
  using Sharing = RouterUse::Sharing;
  using Mixing = RouterUse::Mixing;
  using Gates = RouterOptions::Gates;
  if (flags.choice_by != "own") router.use.scope = flags.choice_by == "token" ? Scope::kToken : Scope::kSequence;
  router.use.sharing = flags.choice_for == "module"  ? Sharing::kModule
                       : flags.choice_for == "input" ? Sharing::kInput
                       : flags.choice_for == "layer" ? Sharing::kLayer
                                                     : Sharing::kModel;
  if (flags.mix != "own") router.use.mixing = flags.mix == "outputs" ? Mixing::kOutputs : Mixing::kFactors;
  router.gates = flags.gates == "own" ? Gates::kOwn : flags.gates == "shuffled" ? Gates::kShuffled : Gates::kRandom;
  router.general = flags.general;
  router.description_weight = flags.description_weight;
  using enum RouterOptions::GateNorm;
  router.gate_norm = flags.gate_norm == "layer" ? kLayerNorm : flags.gate_norm == "l2" ? kL2 : kNone;
  router.bf16_scores = flags.bf16_scores;
  router.seed = seed;
  router.expert = flags.expert;
  router.only = flags.only;
  router.without = flags.without;
  if (router.kind == "single" && router.expert.empty()) {
    throw Failure({"--router single needs --expert NAME", ErrorKind::kUsage});
  }
  return router;
}

std::string expert_words(const ModelOptions& options) {
  return options.mixture.empty() ? router_words(options.router) : "mixture " + base_name(options.mixture);
}

std::string router_words(const RouterOptions& router) {
  if (router.kind == "single") return concat("single expert ", router.expert);
  std::string words = router.kind;
  const bool takes_all = router.kind == "smear" || router.kind == "merged" || router.kind == "merged-factors";
  if (!takes_all) words += concat(", top ", router.top_k);
  if (router.top_p < 1) words += concat(", top-p ", router.top_p);
  if (router.temperature != 1) words += concat(", temperature ", router.temperature);
  const RouterUse own = default_router(router.kind).use;
  if (router.use.scope != own.scope) {
    words += router.use.scope == RouterUse::Scope::kSequence ? ", by sequence" : ", by token";
  }
  if (router.use.sharing == RouterUse::Sharing::kInput) words += ", one choice per input";
  if (router.use.sharing == RouterUse::Sharing::kLayer) words += ", one choice per layer";
  if (router.use.sharing == RouterUse::Sharing::kModel) words += ", one choice for the model";
  if (router.use.mixing != own.mixing) {
    words += router.use.mixing == RouterUse::Mixing::kFactors ? ", factors mixed" : ", outputs mixed";
  }
  if (router.gates == RouterOptions::Gates::kShuffled) words += ", gates shuffled";
  if (router.gates == RouterOptions::Gates::kRandom) words += ", gates random";
  if (!router.general.empty()) words += concat(", less ", router.general.size(), " general");
  return words;
}

}  // namespace skein
