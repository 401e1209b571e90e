// A chat template from strangers, as a GGUF or a tokenizer_config.json carries it: parsed and rendered.
#include <cstdint>
#include <string>

#include "skein/text/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace skein::jinja;
  const auto parsed = Template::parse(std::string(reinterpret_cast<const char*>(data), size));
  if (!parsed.ok()) return 0;
  const auto turn = [](const char* role, const char* content) {
    return Value(Value::Dict{{"role", std::string(role)}, {"content", std::string(content)}});
  };
  (void)parsed->render({{"messages", Value(Value::List{turn("system", "Be kind."), turn("user", " hi\n"),
                                                       turn("assistant", "<b>hello</b>")})},
                        {"add_generation_prompt", Value(true)},
                        {"tools", Value(Value::None{})},
                        {"bos_token", Value(std::string("<s>"))}});
  return 0;
}
