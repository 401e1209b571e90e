#include "skein/merge/method.h"

#include <algorithm>
#include <cmath>

#include "skein/base/check.h"
#include "skein/base/concat.h"

namespace skein::merge {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += concat(text.empty() ? "" : ", ", word);
  return text;
}

Result<ParameterValue> fitting(const MethodInfo& method, const ParameterSpec& spec, ParameterValue value) {
  const std::string where = concat("parameter ", spec.name, " of ", method.name, ": ");
  switch (spec.kind) {
    case ParameterSpec::Kind::kNumber: {
      const double* number = std::get_if<double>(&value);
      if (number == nullptr) return Error{concat(where, "a number is expected"), ErrorKind::kUsage};
      if (!std::isfinite(*number)) return Error{concat(where, "the number is not finite"), ErrorKind::kUsage};
      return value;
    }
    case ParameterSpec::Kind::kBool: {
      const double* number = std::get_if<double>(&value);
      if (number != nullptr && (*number == 0 || *number == 1)) return ParameterValue(*number == 1);
      if (!std::holds_alternative<bool>(value))
        return Error{concat(where, "true or false is expected"), ErrorKind::kUsage};
      return value;
    }
    case ParameterSpec::Kind::kChoice: {
      const std::string* word = std::get_if<std::string>(&value);
      if (word == nullptr || std::find(spec.choices.begin(), spec.choices.end(), *word) == spec.choices.end()) {
        return Error{concat(where, word == nullptr ? "a word" : concat("'", printable(*word), "'"),
                            " is not understood; one of: ", joined(spec.choices)),
                     ErrorKind::kUsage};
      }
      return value;
    }
  }
  return Error{concat(where, "unknown kind")};
}

}  // namespace

MethodParameters::MethodParameters(const MethodInfo& method, int num_models)
    : method_(&method), num_models_(num_models) {
  for (const ParameterSpec& spec : method.parameters) {
    values_.emplace_back(spec.scope == ParameterSpec::Scope::kGlobal ? 1 : static_cast<std::size_t>(num_models),
                         spec.fallback);
  }
}

std::size_t MethodParameters::find(std::string_view name) const {
  SKEIN_CHECK(method_ != nullptr);
  const auto& specs = method_->parameters;
  return static_cast<std::size_t>(
      std::find_if(specs.begin(), specs.end(), [&](const ParameterSpec& spec) { return spec.name == name; }) -
      specs.begin());
}

Status MethodParameters::set(std::string_view name, ParameterValue value) {
  const std::size_t at = find(name);
  if (at == values_.size() || method_->parameters[at].scope != ParameterSpec::Scope::kGlobal) {
    return Error{concat(method_->name, " has no global parameter '", printable(name), "'"), ErrorKind::kUsage};
  }
  SKEIN_ASSIGN(values_[at][0], fitting(*method_, method_->parameters[at], std::move(value)));
  return {};
}

Status MethodParameters::set(std::string_view name, int model_idx, ParameterValue value) {
  const std::size_t at = find(name);
  if (at == values_.size() || method_->parameters[at].scope != ParameterSpec::Scope::kPerModel) {
    return Error{concat(method_->name, " has no parameter '", printable(name), "' of single models"),
                 ErrorKind::kUsage};
  }
  SKEIN_CHECK(model_idx >= 0 && model_idx < num_models_);
  SKEIN_ASSIGN(values_[at][static_cast<std::size_t>(model_idx)],
               fitting(*method_, method_->parameters[at], std::move(value)));
  return {};
}

Status MethodParameters::check_complete() const {
  for (std::size_t p = 0; p < values_.size(); ++p) {
    const ParameterSpec& spec = method_->parameters[p];
    for (std::size_t m = 0; spec.required && m < values_[p].size(); ++m) {
      if (values_[p][m].has_value()) continue;
      const bool global = spec.scope == ParameterSpec::Scope::kGlobal;
      return Error{concat(method_->name, " needs the parameter '", spec.name, "'",
                          global ? std::string() : concat(" of model ", m + 1), " (", spec.meaning, ")"),
                   ErrorKind::kUsage};
    }
  }
  return {};
}

const ParameterValue& MethodParameters::value(std::string_view name, int model_idx) const {
  const std::size_t at = find(name);
  SKEIN_CHECK(at < values_.size() && model_idx >= 0 && static_cast<std::size_t>(model_idx) < values_[at].size());
  const auto& value = values_[at][static_cast<std::size_t>(model_idx)];
  SKEIN_CHECK(value.has_value());
  return *value;
}

double MethodParameters::number(std::string_view name) const { return std::get<double>(value(name, 0)); }
double MethodParameters::number(std::string_view name, int model_idx) const {
  return std::get<double>(value(name, model_idx));
}
bool MethodParameters::flag(std::string_view name) const { return std::get<bool>(value(name, 0)); }
std::string_view MethodParameters::choice(std::string_view name) const { return std::get<std::string>(value(name, 0)); }
bool MethodParameters::has(std::string_view name) const { return has(name, 0); }
bool MethodParameters::has(std::string_view name, int model_idx) const {
  const std::size_t at = find(name);
  return at < values_.size() && static_cast<std::size_t>(model_idx) < values_[at].size() &&
         values_[at][static_cast<std::size_t>(model_idx)].has_value();
}

BlockLayout layout(Pieces pieces, const Shape& shape) {
  const auto numel = checked_numel(shape);
  SKEIN_CHECK(numel.has_value());
  BlockLayout blocks{.num_elements = *numel, .block_elements = kBlockElements};
  if (*numel == 0) return blocks;
  if (pieces == Pieces::kTensor) blocks.block_elements = *numel;
  if (pieces == Pieces::kRows) {
    const std::int64_t row = shape.empty() ? 1 : shape.back();
    blocks.block_elements = row * std::max<std::int64_t>(1, kBlockElements / row);
  }
  blocks.num_blocks = (*numel - 1) / blocks.block_elements + 1;
  return blocks;
}

}  // namespace skein::merge
