#include "skein/text/jinja/template.h"

#include "skein/text/jinja/parser.h"
#include "skein/text/jinja/renderer.h"

namespace skein::jinja {

struct Template::Program {
  Block block;
};

Result<Template> Template::parse(const std::string& source) {
  SKEIN_ASSIGN(Block block, jinja::parse(source));
  Template parsed;
  parsed.program_ = std::make_shared<const Program>(Program{std::move(block)});
  return parsed;
}

Result<std::string> Template::render(const Value::Dict& variables) const {
  return Renderer(variables).run(program_->block);
}

}  // namespace skein::jinja
