#include "skein/train/train_report.h"

namespace skein {

Json report_to_json(const TrainReport& report) {
  Json json;
  json["steps"] = report.steps;
  json["first_loss"] = report.first_loss;
  json["last_loss"] = report.last_loss;
  if (report.best_step >= 0) {
    json["valid_step"] = report.best_step;
    json["valid_loss"] = report.best_valid_loss;
  }
  json["tokens"] = report.tokens;
  json["target_tokens"] = report.target_tokens;
  json["inputs_cut"] = report.inputs_cut;
  json["seconds"] = report.seconds;
  return json;
}

Result<TrainReport> report_from_json(const Json& json, const std::string& where) {
  TrainReport report;
  SKEIN_ASSIGN(report.steps, json_integer(json, "steps", std::nullopt, where));
  SKEIN_ASSIGN(report.first_loss, json_number(json, "first_loss", std::nullopt, where));
  SKEIN_ASSIGN(report.last_loss, json_number(json, "last_loss", std::nullopt, where));
  SKEIN_ASSIGN(report.best_step, json_integer(json, "valid_step", report.best_step, where));
  SKEIN_ASSIGN(report.best_valid_loss, json_number(json, "valid_loss", report.best_valid_loss, where));
  SKEIN_ASSIGN(report.tokens, json_integer(json, "tokens", std::nullopt, where));
  SKEIN_ASSIGN(report.target_tokens, json_integer(json, "target_tokens", std::nullopt, where));
  SKEIN_ASSIGN(report.inputs_cut, json_integer(json, "inputs_cut", std::nullopt, where));
  SKEIN_ASSIGN(report.seconds, json_number(json, "seconds", std::nullopt, where));
  return report;
}

}  // namespace skein
