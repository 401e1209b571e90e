#include "skein/infer/loaded_model.h"

#include <algorithm>
#include <future>

#include <ATen/ATen.h>

#include "skein/base/concat.h"
#include "skein/base/progress.h"
#include "skein/experts/combine.h"
#include "skein/experts/mixture_slots.h"
#include "skein/infer/text_hints.h"
#include "skein/route/spectral_gates.h"
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

bool is_general(const std::vector<std::string>& general, const std::string& name) {
  return std::find(general.begin(), general.end(), name) != general.end();
}

void check_general(const Library& library, const std::vector<std::string>& general) {
  std::string known;
  for (const LibraryEntry& entry : library.experts) known += (known.empty() ? "" : ", ") + entry.name;
  for (const std::string& name : general) {
    const bool is_there = std::any_of(library.experts.begin(), library.experts.end(),
                                      [&](const LibraryEntry& entry) { return entry.name == name; });
    if (!is_there) {
      throw Failure({concat("no expert ", printable(name), " in ", library.path, " to subtract; it holds ", known),
                     ErrorKind::kUsage});
    }
  }
  if (general.size() >= library.experts.size()) {
    throw Failure({"every expert is general; there must be one left to route to", ErrorKind::kUsage});
  }
}

PoolMembers read_members(Env& env, const Library& library, const std::vector<std::string>& general,
                         const std::vector<SlotName>& slots) {
  PoolMembers members;
  std::vector<LoraAdapter> subtracted;
  Progress progress("reading experts", static_cast<std::int64_t>(library.experts.size()), "experts");
  for (const LibraryEntry& entry : library.experts) {
    LoraAdapter adapter = or_throw(read_adapter(env, library.folder_of(entry.name), slots));
    if (is_general(general, entry.name)) {
      subtracted.push_back(std::move(adapter));
    } else {
      members.names.push_back(entry.name);
      members.adapters.push_back(std::move(adapter));
    }
    progress.update(static_cast<std::int64_t>(members.adapters.size() + subtracted.size()));
  }
  if (subtracted.empty()) return members;
  std::vector<const LoraAdapter*> pointers;
  for (const LoraAdapter& adapter : subtracted) pointers.push_back(&adapter);
  for (LoraAdapter& adapter : members.adapters) adapter = without_general(adapter, pointers, slots);
  return members;
}

// The gates a router reads, of the members: from their files, else from their weights where that can be. Weights that
// something was subtracted from have no file that fits them.
std::vector<GateFile> gates_for(Env& env, const Library& library, const ModelOptions& options,
                                const std::vector<SlotName>& slots, PoolMembers& members) {
  const RouterKind& kind = router_kind(options.router.kind);
  const std::vector<std::string>& general = options.router.general;
  std::vector<GateFile> gates;
  if (kind.gates == nullptr) return gates;
  std::size_t e = 0;
  for (const LibraryEntry& entry : library.experts) {
    if (is_general(general, entry.name)) continue;
    const std::string folder = library.folder_of(entry.name);
    const std::vector<std::string> kinds = gate_kinds(env, folder);
    const bool has = std::find(kinds.begin(), kinds.end(), kind.gates) != kinds.end();
    if (has && !(kind.from_weights && !general.empty())) {
      gates.push_back(or_throw(read_gate(env, folder, kind.gates, slots)));
    } else if (kind.from_weights && members.adapters.empty() && general.empty()) {
      // One at a time: the experts may be more than memory holds.
      gates.push_back(gate_from_weights(kind.gates, or_throw(read_adapter(env, folder, slots)), slots));
    } else if (kind.from_weights) {
      if (members.adapters.empty()) members = read_members(env, library, general, slots);
      gates.push_back(gate_from_weights(kind.gates, members.adapters[e], slots));
    } else {
      // The router says which expert lacks a gate, and whether it matters: it may be switched off.
      gates.push_back(GateFile{kind.gates, 0, "", {}});
    }
    ++e;
  }
  return gates;
}

// Which files a bank was made of, as library.json tells: the same, and the bank can stay.
std::string identity_of(const Library& library, const std::vector<std::string>& general) {
  std::string text = library.path;
  for (const LibraryEntry& entry : library.experts) {
    text += "\n" + entry.name + (is_general(general, entry.name) ? " subtracted" : "");
    for (const auto& [file, digest] : entry.digests) {
      if (file.starts_with("adapter_")) text += " " + digest;
    }
  }
  return text;
}

std::shared_ptr<const HintSource> hints_for(Env& env, const Library& library, const ModelOptions& options,
                                            const ExpertBank& bank) {
  if (!router_kind(options.router.kind).needs_hints) return nullptr;
  const std::vector<bool> is_allowed = allowed_experts(options.router, bank);
  auto encoder = SentenceEncoder::load(env, options.sentence_encoder);
  std::vector<ExpertTexts> experts;
  for (int e = 0; e < bank.num_experts(); ++e) {
    const std::string folder = library.folder_of(bank.names()[e]);
    // One that is switched off needs no texts.
    experts.push_back(is_allowed[e] ? read_expert_texts(env, folder)
                                    : ExpertTexts{at::zeros({0, encoder->width()}), at::zeros({encoder->width()})});
    if (experts.back().description.size(0) != encoder->width()) {
      throw Failure({concat(folder, ": its texts have ", experts.back().description.size(0), " numbers each, those of ",
                            options.sentence_encoder, " ", encoder->width(), "; made with another sentence encoder")});
    }
  }
  if (options.router.kind == "retrieval") return retrieval_hints(std::move(encoder), std::move(experts), is_allowed);
  return description_hints(std::move(encoder), experts, options.router.description_weight);
}

std::shared_ptr<const ExpertBank> paged_bank(Env& env, const Library& library, const ModelOptions& options,
                                             const std::vector<SlotName>& slots) {
  if (!options.router.general.empty()) {
    throw Failure({"--expert-memory and --general exclude each other: subtracting needs all experts in memory",
                   ErrorKind::kUsage});
  }
  if (!options.compute.device.is_cpu())
    throw Failure({"--expert-memory pages experts to the CPU; another device holds them all", ErrorKind::kUsage});
  std::vector<std::string> names;
  for (const LibraryEntry& entry : library.experts) names.push_back(entry.name);
  Progress progress("packing experts", static_cast<std::int64_t>(names.size()), "experts");
  const auto read = [&](int e) {
    progress.update(e);
    return or_throw(read_adapter(env, library.folder_of(library.experts[static_cast<std::size_t>(e)].name), slots));
  };
  return std::make_shared<ExpertBank>(names, slots, options.compute, read, options.expert_memory);
}

void use_library(Env& env, LoadedModel& model, const ModelOptions& options) {
  const Library library = or_throw(open_library(env, options.library));
  if (library.experts.empty())
    throw Failure({concat(options.library, ": no experts in it; skein library add puts some there")});
  check_base(env, model.base, options.library, library.base_fingerprint, options.allow_other_base);
  check_general(library, options.router.general);
  const std::vector<SlotName>& slots = model.backbone->slots();
  const std::string identity = concat(identity_of(library, options.router.general), "\nmemory ", options.expert_memory);
  PoolMembers members;
  if (model.bank == nullptr || model.bank_identity != identity) {
    if (options.expert_memory > 0) {
      model.bank = paged_bank(env, library, options, slots);
    } else {
      members = read_members(env, library, options.router.general, slots);
      model.bank = std::make_shared<ExpertBank>(members.adapters, members.names, slots, options.compute);
    }
    model.bank_identity = identity;
  }
  model.expert_names = model.bank->names();
  const std::vector<GateFile> gates = gates_for(env, library, options, slots, members);
  const auto router = make_router(options.router, *model.bank, gates, options.compute);
  model.filler = std::make_shared<RoutedSlots>(model.bank, router);
  model.hints = hints_for(env, library, options, *model.bank);
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

PoolMembers read_pool(Env& env, const std::string& library, const std::vector<std::string>& general,
                      const std::vector<SlotName>& slots) {
  const Library opened = or_throw(open_library(env, library));
  check_general(opened, general);
  return read_members(env, opened, general, slots);
}

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
  model.hints = nullptr;
  if (!options.library.empty()) return use_library(env, model, options);
  if (!options.adapter.empty()) return use_adapter(env, model, options);
  model.bank = nullptr;
  model.bank_identity.clear();
  model.filler = nullptr;
  model.expert_names.clear();
  if (!options.mixture.empty()) use_mixture(env, model, options);
}

}  // namespace skein
