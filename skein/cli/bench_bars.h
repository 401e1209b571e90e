// What a benchmark holds its figures against.
#pragma once

#include <string>
#include <vector>

#include "skein/io/json.h"

namespace skein {

class BenchBars {
 public:
  void at_least(const std::string& what, double value, double bar) { bars_.push_back({what, value, bar, true}); }
  void at_most(const std::string& what, double value, double bar) { bars_.push_back({what, value, bar, false}); }
  bool empty() const { return bars_.empty(); }
  std::string render(bool styled) const;  // a table
  Json to_json() const;                   // [{"what", "value", "bar", "met"}, ...]

 private:
  struct Bar {
    std::string what;
    double value = 0, bar = 0;
    bool is_least = true;
    bool is_met() const { return is_least ? value >= bar : value <= bar; }
    std::string text() const;  // ">= 3"
  };
  std::vector<Bar> bars_;
};

}  // namespace skein
