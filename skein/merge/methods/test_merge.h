// For tests: one tensor merged in memory by a method, with every freedom the executor has (order of blocks, workers,
// types), and inputs to merge.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "skein/base/half.h"
#include "skein/merge/method.h"

namespace skein::merge {

inline std::vector<std::byte> encoded(const std::vector<float>& values, DType type) {
  std::vector<std::byte> bytes(values.size() * static_cast<std::size_t>(dtype_size(type)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t half = type == DType::kBF16 ? f32_to_bf16(values[i]) : f32_to_f16(values[i]);
    if (type == DType::kF32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
    } else {
      std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }
  return bytes;
}

inline std::vector<float> decoded(const std::vector<std::byte>& bytes, DType type) {
  std::vector<float> values(bytes.size() / static_cast<std::size_t>(dtype_size(type)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t half = 0;
    if (type == DType::kF32) {
      std::memcpy(&values[i], bytes.data() + 4 * i, 4);
    } else {
      std::memcpy(&half, bytes.data() + 2 * i, 2);
      values[i] = type == DType::kBF16 ? bf16_to_f32(half) : f16_to_f32(half);
    }
  }
  return values;
}

struct TestTensor {
  Shape shape;
  std::vector<std::vector<float>> models;
  std::vector<float> base;    // empty: none
  DType dtype = DType::kF32;  // of the inputs; values are rounded to it
  DType output = DType::kF32;
};

using Values = std::map<std::string, ParameterValue>;            // global
using ModelValues = std::map<std::string, std::vector<double>>;  // per model

struct TestMerge {
  std::string method;
  Values global;
  ModelValues per_model;
  std::uint64_t seed = 7;
  int num_workers = 1;
  // Numbers of blocks in the order they are handed over; empty: as they are.
  std::function<void(std::vector<std::int64_t>&)> reorder;

  MethodParameters parameters(int num_models) const {
    MethodParameters parameters(*find_method(method), num_models);
    for (const auto& [name, value] : global) or_throw(parameters.set(name, value));
    for (const auto& [name, values] : per_model) {
      for (int m = 0; m < num_models; ++m) or_throw(parameters.set(name, m, values[static_cast<std::size_t>(m)]));
    }
    or_throw(parameters.check_complete());
    return parameters;
  }

  // All tensors of a model. Fails as the method does.
  Result<std::vector<std::vector<float>>> run_model(const std::vector<TestTensor>& tensors) const {
    const MethodInfo* info = find_method(method);
    SKEIN_CHECK(info != nullptr);
    std::vector<MethodParameters> all_parameters;
    std::vector<TensorJob> jobs;
    all_parameters.reserve(tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const int num_models = static_cast<int>(tensors[i].models.size());
      all_parameters.push_back(parameters(num_models));
      jobs.push_back({.name = "tensor." + std::to_string(i),
                      .shape = tensors[i].shape,
                      .num_models = num_models,
                      .has_base = !tensors[i].base.empty(),
                      .parameters = &all_parameters.back(),
                      .seed = seed,
                      .working_dtype = tensors[i].dtype,
                      .index = static_cast<std::int64_t>(i)});
    }
    SKEIN_ASSIGN(const auto model, info->make(*info, jobs, num_workers));
    for (int sweep = 0; sweep < model->num_sweeps(); ++sweep) {
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        over_blocks(tensors[i], layout(Pieces::kBlocks, tensors[i].shape),
                    [&](const Block& block, int worker) { model->reduce(sweep, jobs[i], block, worker); });
      }
      SKEIN_TRY(model->finish(sweep));
    }
    std::vector<std::vector<float>> outputs;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      SKEIN_ASSIGN(const auto merge, model->tensor(jobs[i]));
      const BlockLayout blocks = layout(merge->pieces(), tensors[i].shape);
      for (int pass = 0; pass < merge->num_passes(); ++pass) {
        over_blocks(tensors[i], blocks, [&](const Block& block, int worker) { merge->reduce(pass, block, worker); });
        SKEIN_TRY(merge->finish(pass));
      }
      const auto size = static_cast<std::size_t>(dtype_size(tensors[i].output));
      std::vector<std::byte> bytes(static_cast<std::size_t>(blocks.num_elements) * size);
      over_blocks(tensors[i], blocks, [&](const Block& block, int worker) {
        merge->apply(block,
                     {.data = bytes.data() + static_cast<std::size_t>(block.first) * size, .dtype = tensors[i].output},
                     worker);
      });
      outputs.push_back(decoded(bytes, tensors[i].output));
    }
    return outputs;
  }

  std::vector<float> run(const TestTensor& tensor) const { return or_throw(run_model({tensor}))[0]; }

  // One tensor by several ranks that each see every num_ranks-th block and add up what they have gathered.
  std::vector<float> run_on_ranks(const TestTensor& tensor, int num_ranks) const {
    const MethodInfo* info = find_method(method);
    const int num_models = static_cast<int>(tensor.models.size());
    const MethodParameters all_parameters = parameters(num_models);
    const std::vector<TensorJob> jobs = {{.name = "tensor.0",
                                          .shape = tensor.shape,
                                          .num_models = num_models,
                                          .has_base = !tensor.base.empty(),
                                          .parameters = &all_parameters,
                                          .seed = seed,
                                          .working_dtype = tensor.dtype}};
    std::vector<std::unique_ptr<ModelMerge>> models;
    std::vector<std::unique_ptr<TensorMerge>> ranks;
    const auto split = [&](const BlockLayout& blocks, const auto& body) {
      over_blocks(tensor, blocks,
                  [&](const Block& block, int) { body(static_cast<std::size_t>(block.index % num_ranks), block); });
    };
    const auto add_up = [](std::vector<Partials> partials) {
      for (std::size_t r = 1; r < partials.size(); ++r) {
        for (std::size_t i = 0; i < partials[0].counts.size(); ++i) partials[0].counts[i] += partials[r].counts[i];
        for (std::size_t i = 0; i < partials[0].sums.size(); ++i) partials[0].sums[i] += partials[r].sums[i];
      }
      for (std::size_t r = 1; r < partials.size(); ++r) {
        std::copy(partials[0].counts.begin(), partials[0].counts.end(), partials[r].counts.begin());
        std::copy(partials[0].sums.begin(), partials[0].sums.end(), partials[r].sums.begin());
      }
    };
    for (int r = 0; r < num_ranks; ++r) models.push_back(or_throw(info->make(*info, jobs, 1)));
    for (int sweep = 0; sweep < models[0]->num_sweeps(); ++sweep) {
      split(layout(Pieces::kBlocks, tensor.shape),
            [&](std::size_t r, const Block& block) { models[r]->reduce(sweep, jobs[0], block, 0); });
      std::vector<Partials> partials;
      for (auto& model : models) partials.push_back(model->partials(sweep));
      add_up(partials);
      for (auto& model : models) or_throw(model->finish(sweep));
    }
    for (auto& model : models) ranks.push_back(or_throw(model->tensor(jobs[0])));
    const BlockLayout blocks = layout(ranks[0]->pieces(), tensor.shape);
    for (int pass = 0; pass < ranks[0]->num_passes(); ++pass) {
      split(blocks, [&](std::size_t r, const Block& block) { ranks[r]->reduce(pass, block, 0); });
      std::vector<Partials> partials;
      for (auto& rank : ranks) partials.push_back(rank->partials(pass));
      add_up(partials);
      for (auto& rank : ranks) or_throw(rank->finish(pass));
    }
    std::vector<float> output(static_cast<std::size_t>(blocks.num_elements));
    split(blocks, [&](std::size_t r, const Block& block) {
      ranks[r]->apply(block, {.data = reinterpret_cast<std::byte*>(output.data() + block.first)}, 0);
    });
    return output;
  }

 private:
  template <class Body>
  void over_blocks(const TestTensor& tensor, const BlockLayout& blocks, const Body& body) const {
    std::vector<std::vector<std::byte>> bytes;
    for (const auto& model : tensor.models) bytes.push_back(encoded(model, tensor.dtype));
    const std::vector<std::byte> base = encoded(tensor.base, tensor.dtype);
    std::vector<std::int64_t> order(static_cast<std::size_t>(blocks.num_blocks));
    std::iota(order.begin(), order.end(), 0);
    if (reorder) reorder(order);
    const auto work = [&](int worker) {
      for (std::size_t at = static_cast<std::size_t>(worker); at < order.size();
           at += static_cast<std::size_t>(num_workers)) {
        const std::int64_t first = order[at] * blocks.block_elements;
        const auto offset = static_cast<std::size_t>(first * dtype_size(tensor.dtype));
        std::vector<Piece> pieces;
        for (const auto& model : bytes) pieces.push_back({model.data() + offset, tensor.dtype});
        Block block{.index = order[at],
                    .first = first,
                    .count = std::min(blocks.block_elements, blocks.num_elements - first),
                    .models = pieces};
        if (!base.empty()) block.base = {base.data() + offset, tensor.dtype};
        body(block, worker);
      }
    };
    std::vector<std::thread> others;
    for (int worker = 1; worker < num_workers; ++worker) others.emplace_back(work, worker);
    work(0);
    for (std::thread& other : others) other.join();
  }
};

// A base of spread 0.05 and fine-tunes of it whose deltas have spread `spread`, on the grid of the type.
inline TestTensor random_tensor(Shape shape, int num_models, DType type, float spread = 2e-3F, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  TestTensor tensor{.shape = shape, .dtype = type};
  const auto n = static_cast<std::size_t>(*checked_numel(shape));
  const auto rounded = [&](std::vector<float> values) { return decoded(encoded(values, type), type); };
  for (std::size_t i = 0; i < n; ++i) tensor.base.push_back(0.05F * normal(generator));
  tensor.base = rounded(tensor.base);
  for (int m = 0; m < num_models; ++m) {
    std::vector<float> values = tensor.base;
    for (float& value : values) value += spread * (1 + static_cast<float>(m)) * normal(generator);
    tensor.models.push_back(rounded(values));
  }
  return tensor;
}

}  // namespace skein::merge
