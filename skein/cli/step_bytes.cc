#include "skein/cli/step_bytes.h"

#include <algorithm>
#include <map>
#include <set>

#include "skein/spec/expert_folder.h"
#include "skein/spec/library.h"

namespace skein {
namespace {

// expert name -> module -> numbers of its two matrices
using LoraSizes = std::map<std::string, std::map<std::string, double>>;

LoraSizes lora_sizes(Env& env, const Library& library, const std::vector<SlotName>& slots) {
  LoraSizes sizes;
  for (const LibraryEntry& entry : library.experts) {
    const LoraAdapter adapter = or_throw(read_adapter(env, library.folder_of(entry.name), slots));
    for (const LoraTensors& module : adapter.modules) {
      sizes[entry.name][slots[static_cast<std::size_t>(module.slot_idx)].module] =
          static_cast<double>(module.a.size() + module.b.size());
    }
  }
  return sizes;
}

using Choices = std::map<std::string, std::set<std::string>>;  // module -> experts

// Adds what each token of an answer chose to the choices of its step.
void add_choices(const std::vector<Json>& pieces, std::vector<Choices>& steps) {
  std::vector<std::string> experts;
  Json slot_sets = Json::array();
  std::size_t step = 0;
  for (const Json& piece : pieces) {
    if (piece.contains("experts")) experts = piece["experts"].get<std::vector<std::string>>();
    for (const Json& slots : piece.value("slot_sets", Json::array())) slot_sets.push_back(slots);
    for (const Json& token : piece.value("tokens", Json::array())) {
      if (token.at("part") != "answer") continue;
      if (steps.size() <= step) steps.emplace_back();
      const Json& slots = slot_sets.at(token.at("slot_set").get<std::size_t>());
      const auto k = token.at("k").get<std::size_t>();
      const auto chosen = token.at("experts").get<std::vector<int>>();
      for (std::size_t i = 0; i < chosen.size(); ++i) {
        if (chosen[i] < 0) continue;
        steps[step][slots.at(i / k).at("module").get<std::string>()].insert(
            experts.at(static_cast<std::size_t>(chosen[i])));
      }
      ++step;
    }
  }
}

}  // namespace

StepBytes step_bytes(Env& env, const BaseModel& base, const std::string& library_path,
                     const std::vector<std::vector<Json>>& traces, double element_bytes) {
  const std::vector<SlotName> slots = slot_names(base.config);
  const Library library = or_throw(open_library(env, library_path));
  const LoraSizes sizes = lora_sizes(env, library, slots);
  StepBytes bytes;
  bytes.base = static_cast<double>(base.config.vocabulary_size * base.config.d_model);
  for (const SlotName& slot : slots) {
    if (slot.in_encoder) continue;  // read once per prompt
    bytes.base += static_cast<double>(slot.d_in * slot.d_out);
    bytes.gates += static_cast<double>(slot.d_in) * static_cast<double>(library.experts.size());
  }
  std::vector<Choices> steps;
  for (const auto& pieces : traces) add_choices(pieces, steps);
  for (const Choices& choices : steps) {
    for (const auto& [module, experts] : choices) {
      for (const std::string& expert : experts) {
        const auto& modules = sizes.at(expert);
        if (const auto found = modules.find(module); found != modules.end()) bytes.experts += found->second;
      }
    }
  }
  bytes.experts /= static_cast<double>(std::max<std::size_t>(1, steps.size()));
  for (double* part : {&bytes.base, &bytes.gates, &bytes.experts}) *part *= element_bytes;
  return bytes;
}

}  // namespace skein
