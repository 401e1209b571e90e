// For tests: tiny bases of every family with a byte-level tokenizer, in a memory env.
#pragma once

#include <memory>
#include <string>

#include "skein/infer/loaded_model.h"
#include "skein/spec/tiny_base.h"

namespace skein::testing {

// Ids: 0 "<pad>", 1 "<bos>", 2 "<eos>", 3 + b for the byte b; 259 "ab", 260 "\nA". A chat turn is "[role]content<eos>".
inline Json tiny_tokenizer_json() {
  // GPT-2's alphabet: bytes that print stand for themselves, the others follow from U+0100 on.
  const auto utf8 = [](int c) {
    return c < 0x80 ? std::string(1, static_cast<char>(c))
                    : std::string{static_cast<char>(0xc0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3f))};
  };
  Json vocabulary = {{"<pad>", 0}, {"<bos>", 1}, {"<eos>", 2}};
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    vocabulary[utf8(prints ? byte : next++)] = 3 + byte;
  }
  const std::string newline = utf8(0x10a);
  vocabulary["ab"] = 259;
  vocabulary[newline + "A"] = 260;
  Json added = Json::array();
  for (int id = 0; id < 3; ++id) {
    added.push_back({{"id", id},
                     {"content", id == 0   ? "<pad>"
                                 : id == 1 ? "<bos>"
                                           : "<eos>"},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocabulary},
            {"merges", {"a b", newline + " A"}}}}};
}

inline void put_tiny_model(Env& env, const std::string& folder, Family family) {
  BackboneConfig config = tiny_config(family);
  config.vocabulary_size = 261;
  config.max_positions = 100;
  put_base_folder(env, folder, config);
  put_file(env, folder + "/tokenizer.json", tiny_tokenizer_json().dump());
  put_file(env, folder + "/tokenizer_config.json",
           Json{{"bos_token", "<bos>"},
                {"eos_token", "<eos>"},
                {"tokenizer_class", "PreTrainedTokenizerFast"},
                {"chat_template",
                 "{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] + '<eos>' }}"
                 "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"}}
               .dump());
}

// The base alone, computing in f32 on the CPU; its matrices in few bits if told.
inline LoadedModel tiny_model(Family family = Family::kLlama, int base_bits = 0) {
  const auto env = make_memory_env();
  put_tiny_model(*env, "base", family);
  ModelOptions options;
  options.base = "base";
  options.compute.base_bits = base_bits;
  return load_model(*env, options);
}

inline std::string failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "no failure";
}

}  // namespace skein::testing
