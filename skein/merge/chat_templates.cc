#include "skein/merge/chat_templates.h"

namespace skein::merge {
namespace {

struct NamedTemplate {
  std::string_view name;
  std::string_view source;
};

// Written from the formats' own descriptions. mergekit's llama3 puts a newline between turns that Llama 3's own
// template does not have; its alpaca ends turns with one blank line more or less, by place. These follow the formats.
constexpr NamedTemplate kTemplates[] = {
    {"alpaca",
     R"({%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- message['content'] | trim + '\n\n' -}}
{%- elif message['role'] == 'user' -%}
{{- '### Instruction:\n' + message['content'] | trim + '\n\n' -}}
{%- elif message['role'] == 'assistant' -%}
{{- '### Response:\n' + message['content'] | trim + '\n\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '### Response:\n' -}}
{%- endif -%}
)"},
    {"chatml",
     R"({%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}
)"},
    {"exaone",
     R"({%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '[|system|][|endofturn|]\n' -}}
{%- endif -%}
{{- '[|' + message['role'] + '|]' + message['content'] -}}
{{- '\n' if message['role'] == 'user' else '[|endofturn|]\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '[|assistant|]' -}}
{%- endif -%}
)"},
    {"llama3",
     R"({{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
{%- endif -%}
)"},
    {"mistral",
     R"({{- bos_token -}}
{%- set turns = messages -%}
{%- set preamble = '' -%}
{%- if messages[0]['role'] == 'system' -%}
{%- set preamble = messages[0]['content'] + '\n\n' -%}
{%- set turns = messages[1:] -%}
{%- endif -%}
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) or message['role'] not in ['user', 'assistant'] -%}
{{- raise_exception('After an optional system message, turns of user and assistant must alternate') -}}
{%- elif message['role'] == 'user' -%}
{{- ' [INST] ' + (preamble if loop.first else '') + message['content'] + ' [/INST]' -}}
{%- else -%}
{{- ' ' + message['content'] + eos_token -}}
{%- endif -%}
{%- endfor -%}
)"},
};

}  // namespace

std::vector<std::string_view> chat_template_names() {
  std::vector<std::string_view> names;
  for (const NamedTemplate& entry : kTemplates) names.push_back(entry.name);
  return names;
}

std::optional<std::string> chat_template_of_name(std::string_view name) {
  for (const NamedTemplate& entry : kTemplates) {
    if (entry.name == name) return std::string(entry.source);
  }
  return std::nullopt;
}

}  // namespace skein::merge
