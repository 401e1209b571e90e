// A Jinja template, as chat templates use the language: rendered like transformers does (an immutable sandbox,
// trim_blocks and lstrip_blocks). What is missing is refused by name, never rendered approximately.
//
// Limits (templates come with models, and models from strangers): source 1 MiB, 100 levels of nesting, 2 million steps
// and 64 MiB of text per rendering.
//
// Thread-safety: const after parse(), may be shared.
#pragma once

#include <memory>
#include <string>

#include "skein/text/jinja/value.h"

namespace skein::jinja {

class Template {
 public:
  static Result<Template> parse(const std::string& source);
  // variables: the names the template sees.
  Result<std::string> render(const Value::Dict& variables) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace skein::jinja
