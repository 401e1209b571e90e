#include "skein/infer/loaded_model.h"

#include <algorithm>
#include <future>

#include "skein/base/concat.h"
#include "skein/base/progress.h"
#include "skein/experts/mixture_slots.h"
#include "skein/spec/expert_folder.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

void check_base(Env& env, const BaseModel& base, const std::string& what, const std::string& expected,
                bool allow_other_base) {
  if (expected.empty() || allow_other_base) return;
  const std::string found = or_throw(base_fingerprint(env, base));
  if (found == expected) return;
  throw Failure({concat(what, ": made for the base with fingerprint ", printable(expected), "; ", base.path, " has ",
                        found, "; another base (--allow-other-base to insist)")});
}

// Experts of a library in its order, and their gates where the router reads some.
struct Experts {
  std::vector<std::string> names;
  std::vector<LoraAdapter> adapters;
  std::vector<GateFile> gates;
};

std::vector<GateFile> read_gates(Env& env, const Library& library, const std::string& kind,
                                 const std::vector<SlotName>& slots) {
  std::vector<GateFile> gates;
  for (const LibraryEntry& entry : library.experts) {
    const std::string folder = library.folder_of(entry.name);
    const std::vector<std::string> kinds = gate_kinds(env, folder);
    const bool has = std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
    // The router says which expert lacks a gate, and whether it matters: it may be switched off.
    gates.push_back(has ? or_throw(read_gate(env, folder, kind, slots)) : GateFile{kind, 0, "", {}});
  }
  return gates;
}

std::vector<LoraAdapter> read_adapters(Env& env, const Library& library, const std::vector<SlotName>& slots) {
  std::vector<LoraAdapter> adapters;
  Progress progress("reading experts", static_cast<std::int64_t>(library.experts.size()), "experts");
  for (const LibraryEntry& entry : library.experts) {
    adapters.push_back(or_throw(read_adapter(env, library.folder_of(entry.name), slots)));
    progress.update(static_cast<std::int64_t>(adapters.size()));
  }
  return adapters;
}

// Which files a bank was made of, as library.json tells: the same, and the bank can stay.
std::string identity_of(const Library& library) {
  std::string text = library.path;
  for (const LibraryEntry& entry : library.experts) {
    text += "\n" + entry.name;
    for (const auto& [file, digest] : entry.digests) {
      if (file.starts_with("adapter_")) text += " " + digest;
    }
  }
  return text;
}

void use_library(Env& env, LoadedModel& model, const ModelOptions& options) {
  const Library library = or_throw(open_library(env, options.library));
  if (library.experts.empty())
    throw Failure({concat(options.library, ": no experts in it; skein library add puts some there")});
  check_base(env, model.base, options.library, library.base_fingerprint, options.allow_other_base);
  const std::vector<SlotName>& slots = model.backbone->slots();
  const std::string identity = identity_of(library);
  if (model.bank == nullptr || model.bank_identity != identity) {
    std::vector<std::string> names;
    for (const LibraryEntry& entry : library.experts) names.push_back(entry.name);
    model.bank =
        std::make_shared<ExpertBank>(read_adapters(env, library, slots), std::move(names), slots, options.compute);
    model.bank_identity = identity;
  }
  model.expert_names = model.bank->names();
  std::vector<GateFile> gates;
  if (options.router.kind == "phatgoose") gates = read_gates(env, library, options.router.kind, slots);
  const auto router = make_router(options.router, *model.bank, gates, options.compute);
  model.filler = std::make_shared<RoutedSlots>(model.bank, router);
}

void use_adapter(Env& env, LoadedModel& model, const ModelOptions& options) {
  const std::vector<SlotName>& slots = model.backbone->slots();
  LoraAdapter adapter = or_throw(read_adapter(env, options.adapter, slots));
  const Json card = or_throw(read_card(env, options.adapter));
  const std::string of_card =
      or_throw(json_string(card, "base_fingerprint", "", join_path(options.adapter, "card.json")));
  check_base(env, model.base, options.adapter, of_card, options.allow_other_base);
  std::vector<LoraAdapter> adapters;
  adapters.push_back(std::move(adapter));
  const std::string name = base_name(options.adapter);
  model.bank = std::make_shared<ExpertBank>(adapters, std::vector<std::string>{name}, slots, options.compute);
  model.bank_identity.clear();
  model.expert_names = {name};
  RouterOptions single;
  single.kind = "single";
  single.expert = name;
  model.filler = std::make_shared<RoutedSlots>(model.bank, make_router(single, *model.bank, {}, options.compute));
}

void use_mixture(Env& env, LoadedModel& model, const ModelOptions& options) {
  const MixtureFile mixture = or_throw(read_mixture(env, options.mixture, model.base.config));
  check_base(env, model.base, options.mixture, mixture.base_fingerprint, options.allow_other_base);
  model.filler =
      std::make_shared<MixtureSlots>(mixture, model.base.config, options.compute, MixtureSlots::Trains::kNothing);
  model.expert_names = mixture.config.experts;
  for (int e = static_cast<int>(model.expert_names.size()); e < mixture.config.num_experts; ++e) {
    model.expert_names.push_back(concat("expert ", e + 1));
  }
}

}  // namespace

LoadedModel load_model(Env& env, const ModelOptions& options) {
  LoadedModel model;
  model.base = or_throw(open_base_model(env, options.base));
  // Tokenizer and weights come from the same file and do not wait for each other.
  auto tokenizer = std::async(std::launch::async, [&] { return load_tokenizer(env, options.base); });
  auto backbone = load_backbone(model.base, options.compute);
  backbone->set_checkpoint_blocks(options.recompute_blocks);
  model.backbone = std::move(backbone);
  model.tokenizer = or_throw(tokenizer.get());
  const std::int64_t tokens = model.tokenizer->vocabulary_size(), rows = model.base.config.vocabulary_size;
  if (tokens > rows) {
    throw Failure({concat(options.base, ": the tokenizer has ", tokens, " tokens and the embedding ", rows,
                          " rows; the tokenizer is another model's")});
  }
  change_experts(env, model, options);
  return model;
}

void change_experts(Env& env, LoadedModel& model, const ModelOptions& options) {
  if (!options.adapter.empty() && !options.library.empty()) {
    throw Failure(
        {"--adapter and --library exclude each other: add the adapter to the library instead", ErrorKind::kUsage});
  }
  if (!options.mixture.empty() && !(options.adapter.empty() && options.library.empty())) {
    throw Failure({"--mixture excludes --adapter and --library", ErrorKind::kUsage});
  }
  if (!options.library.empty()) return use_library(env, model, options);
  if (!options.adapter.empty()) return use_adapter(env, model, options);
  model.bank = nullptr;
  model.bank_identity.clear();
  model.filler = nullptr;
  model.expert_names.clear();
  if (!options.mixture.empty()) use_mixture(env, model, options);
}

}  // namespace skein
