// The few functions of llama.cpp's common.cpp and log.cpp that the chosen files of `common` call. Those two would bring all
// the rest along; and log.cpp starts a thread, and writes where nobody reads.

#include "common.h"
#include "log.h"

#include <stdexcept>

int common_log_get_verbosity_thold() {
    return -1;
}

struct common_log * common_log_main() {
    return nullptr;
}

void common_log_add(struct common_log *, enum ggml_log_level, const char *, ...) {}

void string_replace_all(std::string & text, const std::string & from, const std::string & to) {
    if (from.empty()) {
        return;
    }
    std::string out;
    size_t      at = 0;
    for (size_t hit; (hit = text.find(from, at)) != std::string::npos; at = hit + from.size()) {
        out.append(text, at, hit - at).append(to);
    }
    text = out.append(text, at, std::string::npos);
}

std::string string_join(const std::vector<std::string> & parts, const std::string & between) {
    std::string out;
    for (size_t i = 0; i < parts.size(); i++) {
        out.append(i == 0 ? "" : between).append(parts[i]);
    }
    return out;
}

std::vector<std::string> string_split(const std::string & text, const std::string & at) {
    std::vector<std::string> parts;
    size_t                   begin = 0;
    for (size_t hit; (hit = text.find(at, begin)) != std::string::npos; begin = hit + at.size()) {
        parts.push_back(text.substr(begin, hit - begin));
    }
    parts.push_back(text.substr(begin));
    return parts;
}

std::string string_repeat(const std::string & text, size_t times) {
    std::string out;
    out.reserve(text.size() * times);
    for (size_t i = 0; i < times; i++) {
        out.append(text);
    }
    return out;
}

std::string common_token_to_piece(const struct llama_vocab * vocab, llama_token token, bool special) {
    std::string   out(64, '\0');
    const int32_t count = llama_token_to_piece(vocab, token, &out[0], (int32_t) out.size(), 0, special);
    if (count >= 0) {
        out.resize((size_t) count);
        return out;
    }
    out.resize((size_t) -count);
    llama_token_to_piece(vocab, token, &out[0], (int32_t) out.size(), 0, special);
    return out;
}

std::vector<llama_token> common_tokenize(const struct llama_vocab * vocab, const std::string & text, bool add_special,
                                         bool parse_special) {
    // A token takes at least one byte of text, but for the special ones at the ends.
    std::vector<llama_token> tokens(text.size() + 8);
    const int32_t count = llama_tokenize(vocab, text.data(), (int32_t) text.size(), tokens.data(), (int32_t) tokens.size(),
                                         add_special, parse_special);
    if (count < 0) {
        throw std::runtime_error("the text is too long for the tokenizer");
    }
    tokens.resize((size_t) count);
    return tokens;
}
