// Results of stages that are planned but not made: what a dry run knows of them, enough to plan the stages that use
// them.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "skein/io/json.h"
#include "skein/merge/plan.h"
#include "skein/merge/source.h"

namespace skein::merge {

struct PlannedStages {
  struct Model {
    const Plan* plan = nullptr;  // outlives this
    Json config;                 // of the output
  };
  std::map<std::string, Model> models;  // by the stage's name
  std::set<std::string> adapters;       // stages that give an adapter
};

// The stage's output as a model: names, shapes and types; its bytes cannot be read.
std::unique_ptr<Source> make_planned_source(const ModelRef& ref, const PlannedStages::Model& stage);

}  // namespace skein::merge
