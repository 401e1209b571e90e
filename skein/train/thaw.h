// Full fine-tuning: the one place where the base's own tensors get gradients.
//
// Masters are f32. Where the model computes in bf16 they are copies, gradients of each micro-batch are added to theirs
// in f32, and after each update the model's tensors are rounded from them; in f32 they are the model's tensors
// themselves.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "skein/dist/comm.h"
#include "skein/infer/loaded_model.h"
#include "skein/io/env.h"
#include "skein/nn/backbone.h"
#include "skein/train/options.h"
#include "skein/train/trainer.h"

namespace skein {

// Changes the backbone while it lives and afterwards; no other thread may compute with it meanwhile.
class ThawedBase {
 public:
  explicit ThawedBase(const Backbone& backbone);
  ~ThawedBase();  // frozen again, with the values it then has
  ThawedBase(const ThawedBase&) = delete;
  ThawedBase& operator=(const ThawedBase&) = delete;

  const std::vector<at::Tensor>& parameters() const { return masters_; }
  const std::vector<std::string>& names() const { return names_; }  // of the first tensor in each
  std::int64_t num_parameters() const;
  void add_gradients() const;  // after the backward pass of a micro-batch
  void write_back() const;     // after an update

 private:
  std::vector<at::Tensor> tensors_, masters_;
  std::vector<std::string> names_;
};

// Trains every weight and writes a Hugging Face model folder in the compute dtype, with card.json and log.jsonl.
TrainReport train_full(Env& env, Comm& comm, const LoadedModel& model, const std::vector<std::string>& data,
                       const std::string& out, const TrainOptions& options, bool overwrite);

}  // namespace skein
