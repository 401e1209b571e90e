// skein extract: a full fine-tune as a LoRA expert.
#include <CLI/CLI.hpp>

#include "skein/base/concat.h"
#include "skein/base/log.h"
#include "skein/cli/model_flags.h"
#include "skein/cli/result_output.h"
#include "skein/cli/text_table.h"
#include "skein/cli/verbs.h"
#include "skein/experts/extract.h"
#include "skein/io/output_folder.h"

namespace skein {
namespace {

struct ExtractFlags {
  ModelFlags model;
  CommonOptions common;
  std::string tuned, out;
  bool overwrite = false;
  ExtractOptions extract;
};

Json extraction_json(const ExtractFlags& flags, const Extraction& extraction) {
  Json modules = Json::array(), left_out = Json::object();
  for (const ExtractedModule& module : extraction.modules) {
    modules.push_back({{"module", module.module},
                       {"relative_error", module.relative_error},
                       {"relative_change", module.relative_change}});
  }
  for (const auto& [name, change] : extraction.left_out) left_out[name] = change;
  return {{"tuned", flags.tuned}, {"rank", flags.extract.rank}, {"modules", modules}, {"left_out", left_out}};
}

void print_extraction(const Extraction& extraction) {
  TextTable table({{"module", TextTable::Align::kLeft}, {"change"}, {"error"}});
  for (const ExtractedModule& module : extraction.modules) {
    table.add_row({module.module, fixed(module.relative_change, 4), fixed(module.relative_error, 3)});
  }
  print_text(table.render(is_styled(stdout)));
  print_text(
      "change: ||tuned - base|| / ||base||; error: what the rank leaves out, ||tuned - base - B A|| / ||tuned - "
      "base||\n");
}

int extract(ExtractFlags& flags) {
  const ModelOptions options = model_options(flags.model, flags.common);
  flags.extract.seed = flags.common.seed;
  Env& env = real_env();
  auto folder = or_throw(OutputFolder::begin(env, flags.out, flags.overwrite));
  const BaseModel base = or_throw(open_base_model(env, flags.model.base));
  const BaseModel tuned = or_throw(open_base_model(env, flags.tuned));
  Extraction extraction = extract_lora(base, tuned, flags.extract, options.compute);
  extraction.adapter.config.base_model_name_or_path = flags.model.base;
  or_throw(write_lora_adapter(env, folder->path(), extraction.adapter, slot_names(base.config)));
  or_throw(write_card(env, folder->path(),
                      {{"base_fingerprint", or_throw(base_fingerprint(env, base))},
                       {"extracted", extraction_json(flags, extraction)}}));
  or_throw(folder->commit());
  flags.common.json ? print_json(extraction_json(flags, extraction)) : print_extraction(extraction);
  if (!extraction.left_out.empty()) {
    log_warning(concat(extraction.left_out.size(), " tensors outside the linears changed too (",
                       extraction.left_out.front().first, ", ...); an adapter leaves them at the base's values"));
  }
  log_info(concat("wrote ", flags.out, "; next: skein train gate --base ", flags.model.base, " --expert ", flags.out,
                  " --data ..."));
  return 0;
}

}  // namespace

void add_extract_verb(CLI::App& program, Job& job) {
  auto flags = std::make_shared<ExtractFlags>();
  CLI::App& verb =
      add_command(program, "extract", "A full fine-tune as a LoRA expert, so that it can join a pool",
                  "skein extract --base models/smollm2.gguf --tuned my-finetune --rank 32 --out experts/mine");
  verb.add_option("--tuned", flags->tuned, "The fine-tuned model, of the base's shape")->type_name("BASE")->required();
  verb.add_option("--rank", flags->extract.rank, "Rank of the LoRA")
      ->type_name("R")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--out", flags->out, "Folder to write the expert to")->type_name("DIR")->required();
  verb.add_option("--oversampling", flags->extract.oversampling, "Extra random directions of the SVD")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb.add_option("--power-iterations", flags->extract.power_iterations, "Each sharpens the spectrum")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_overwrite_option(verb, flags->overwrite);
  add_base_flags(verb, flags->model);
  add_common_options(verb, flags->common);
  verb.callback([&job, flags] { job.run = [flags] { return extract(*flags); }; });
}

}  // namespace skein
