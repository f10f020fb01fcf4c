// Grammars in llama.cpp's notation, over the functions behind its grammar sampler.
//
// The sampler itself is not used for three reasons: it aborts where an error is due (a token that does not fit), it searches
// all of the reply for its triggers after every token with a recursive regular-expression engine, which runs out of stack on
// long replies, and it knows nothing of reasoning, in which a trigger's text is only text.

#include "shim.h"

#include "json.h"
#include "llama.h"
#include "llama-grammar.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <regex>
#include <stdexcept>
#include <vector>

namespace {

// How far back the beginning of a trigger is looked for, in bytes.
constexpr size_t WINDOW_BYTES = 1024;
// Regular expressions are compiled and matched recursively; ours are short.
constexpr size_t TRIGGER_BYTES_MAX = 1024;
// Rules are parsed, and checked for left recursion, recursively.
constexpr size_t RULES_MAX   = 10000;
constexpr size_t NESTING_MAX = 200;

struct free_grammar {
    void operator()(llama_grammar * grammar) const { llama_grammar_free_impl(grammar); }
};

struct trigger {
    std::regex regex;
    // It speaks of all that was written.
    bool       anchored;
};

struct written {
    llama_token token;
    size_t      begin;
    size_t      end;
};

} // namespace

struct mz_grammar {
    const llama_vocab *                         vocab = nullptr;
    std::unique_ptr<llama_grammar, free_grammar> grammar;
    std::shared_ptr<const std::vector<trigger>>  triggers;
    std::vector<llama_token>                     trigger_tokens;
    // Where reasoning begins and ends; the first is empty where there is none.
    std::string                                  thinking_start;
    std::vector<std::string>                     thinking_ends;
    // Nothing is bound yet.
    bool                                         waiting  = false;
    bool                                         thinking = false;
    // A token was accepted that does not fit; nothing fits any more.
    bool                                         broken   = false;
    // The end of what was written while waiting, and its tokens; `dropped` bytes came before it.
    std::string                                  tail;
    std::vector<written>                         tokens;
    size_t                                       dropped = 0;
};

namespace {

std::string piece(const llama_vocab * vocab, llama_token token) {
    std::string out(64, '\0');
    int32_t     count = llama_token_to_piece(vocab, token, &out[0], (int32_t) out.size(), 0, true);
    if (count < 0) {
        out.resize((size_t) -count);
        count = llama_token_to_piece(vocab, token, &out[0], (int32_t) out.size(), 0, true);
    }
    out.resize((size_t) std::max(count, 0));
    return out;
}

void check_rules(const std::string & rules) {
    size_t depth = 0, count = 0;
    char   quote = 0;
    bool   comment = false;
    for (size_t i = 0; i < rules.size(); i++) {
        const char c = rules[i];
        if (c == '\0') {
            throw std::invalid_argument("the rules contain a zero byte");
        }
        if (comment) {
            comment = c != '\n';
        } else if (quote != 0) {
            if (c == '\\') {
                i++;
            } else if (c == quote) {
                quote = 0;
            }
        } else if (c == '"') {
            quote = '"';
        } else if (c == '[') {
            quote = ']';
        } else if (c == '#') {
            comment = true;
        } else if (c == '(') {
            depth++;
        } else if (c == ')' && depth > 0) {
            depth--;
        } else if (rules.compare(i, 3, "::=") == 0) {
            count++;
        }
        if (depth > NESTING_MAX) {
            throw std::invalid_argument("the rules are nested too deeply");
        }
    }
    if (count > RULES_MAX) {
        throw std::invalid_argument("there are more than " + std::to_string(RULES_MAX) + " rules");
    }
}

std::unique_ptr<llama_grammar, free_grammar> parse(const llama_vocab * vocab, const std::string & rules) {
    check_rules(rules);
    std::unique_ptr<llama_grammar, free_grammar> grammar(
        llama_grammar_init_impl(vocab, rules.c_str(), "root", false, nullptr, 0, nullptr, 0));
    if (!grammar) {
        throw std::invalid_argument("the rules cannot be read, contain a left recursion, or have no rule \"root\"");
    }
    return grammar;
}

trigger compile(const std::string & pattern) {
    if (pattern.empty() || pattern.size() > TRIGGER_BYTES_MAX) {
        throw std::invalid_argument("a trigger is empty or too long");
    }
    try {
        return { std::regex(pattern), pattern.front() == '^' && pattern.back() == '$' };
    } catch (const std::regex_error & error) {
        throw std::invalid_argument("the trigger " + pattern + " is no regular expression: " + error.what());
    }
}

// Whether a text ends within reasoning.
bool ends_thinking_open(const mz_grammar & g, const std::string & text) {
    if (g.thinking_start.empty()) {
        return false;
    }
    const size_t start = text.rfind(g.thinking_start);
    if (start == std::string::npos) {
        return false;
    }
    return std::none_of(g.thinking_ends.begin(), g.thinking_ends.end(), [&](const std::string & end) {
        const size_t at = text.rfind(end);
        return at != std::string::npos && at > start;
    });
}

void check_token(const mz_grammar & g, llama_token token) {
    if (token < 0 || token >= llama_vocab_n_tokens(g.vocab)) {
        throw std::invalid_argument("token " + std::to_string(token) + " is not in the vocabulary");
    }
}

void accept_bound(mz_grammar & g, llama_token token, const std::string & text) {
    auto & stacks = g.grammar->stacks;
    if (llama_vocab_is_eog(g.vocab, token)) {
        const bool complete = std::any_of(stacks.begin(), stacks.end(), [](const auto & stack) { return stack.empty(); });
        if (!complete) {
            g.broken = true;
            throw std::runtime_error("the reply ends before the grammar allows it");
        }
        return;
    }
    try {
        llama_grammar_accept_token(*g.grammar, token, text);
    } catch (const std::exception &) {
        g.broken = true;
        throw;
    }
}

// Where the bound part begins in the tail, if a trigger has struck.
size_t find_trigger(const mz_grammar & g) {
    for (const auto & trigger : *g.triggers) {
        std::smatch match;
        if (trigger.anchored && g.dropped > 0) {
            continue;
        }
        const auto flags = g.dropped > 0 ? std::regex_constants::match_not_bol : std::regex_constants::match_default;
        if (!std::regex_search(g.tail, match, trigger.regex, flags)) {
            continue;
        }
        for (size_t i = 1; i < match.size(); i++) {
            if (match.length(i) > 0) {
                return (size_t) match.position(i);
            }
        }
        return (size_t) match.position(0);
    }
    return std::string::npos;
}

// Forgets the first bytes of the tail.
void cut(mz_grammar & g, size_t bytes) {
    g.tail.erase(0, bytes);
    g.dropped += bytes;
    std::vector<written> left;
    for (const auto & one : g.tokens) {
        if (one.end > bytes) {
            left.push_back({ one.token, std::max(one.begin, bytes) - bytes, one.end - bytes });
        }
    }
    g.tokens = std::move(left);
}

// Keeps of the tail what the beginning of a trigger may be in.
void shorten(mz_grammar & g) {
    if (g.tail.size() >= 2 * WINDOW_BYTES) {
        cut(g, g.tail.size() - WINDOW_BYTES);
    }
}

// Whether reasoning begins or ends; what comes before that is forgotten.
void look_for_thinking(mz_grammar & g) {
    const auto pass = [&](const std::string & tag) {
        const size_t at = g.tail.find(tag);
        if (at == std::string::npos) {
            return false;
        }
        cut(g, at + tag.size());
        return true;
    };
    if (g.thinking) {
        g.thinking = std::none_of(g.thinking_ends.begin(), g.thinking_ends.end(), pass);
    } else if (!g.thinking_start.empty()) {
        g.thinking = pass(g.thinking_start);
    }
}

void accept_waiting(mz_grammar & g, llama_token token) {
    const std::string text = piece(g.vocab, token);
    const bool strikes = std::find(g.trigger_tokens.begin(), g.trigger_tokens.end(), token) != g.trigger_tokens.end();
    if (strikes && !g.thinking) {
        g.waiting = false;
        accept_bound(g, token, text);
        return;
    }
    g.tokens.push_back({ token, g.tail.size(), g.tail.size() + text.size() });
    g.tail += text;
    look_for_thinking(g);
    const size_t start = g.thinking ? std::string::npos : find_trigger(g);
    if (start == std::string::npos) {
        shorten(g);
        return;
    }
    g.waiting = false;
    const std::string          tail   = std::move(g.tail);
    const std::vector<written> tokens = std::move(g.tokens);
    for (const auto & one : tokens) {
        if (one.end > start) {
            const size_t begin = std::max(one.begin, start);
            accept_bound(g, one.token, tail.substr(begin, one.end - begin));
        }
    }
}

void accept(mz_grammar & g, llama_token token) {
    check_token(g, token);
    if (g.broken) {
        throw std::runtime_error("the grammar was left before");
    }
    if (g.waiting) {
        accept_waiting(g, token);
    } else {
        accept_bound(g, token, piece(g.vocab, token));
    }
}

// Lets the grammar read what the prompt has already of the reply.
void read_prefix(mz_grammar & g, const std::string & prefix) {
    std::vector<llama_token> tokens(prefix.size() + 8);
    const int32_t count = llama_tokenize(g.vocab, prefix.data(), (int32_t) prefix.size(), tokens.data(),
                                         (int32_t) tokens.size(), false, true);
    tokens.resize((size_t) std::max(count, 0));
    std::string left = prefix;
    for (const auto token : tokens) {
        // Some tokenizers put a space in front, which the prefix does not have.
        std::string text = piece(g.vocab, token);
        if (left.compare(0, text.size(), text) != 0 && !text.empty() && text.front() == ' ') {
            text.erase(0, 1);
        }
        if (text.empty()) {
            continue;
        }
        left.erase(0, std::min(text.size(), left.size()));
        accept_bound(g, token, text);
    }
}

// What is left of the logits: those of tokens that may follow.
void mask(mz_grammar & g, float * logits, size_t count) {
    if (g.waiting) {
        return;
    }
    std::vector<llama_token_data> data;
    if (!g.broken && !g.grammar->stacks.empty()) {
        for (size_t i = 0; i < count; i++) {
            if (logits[i] != -INFINITY) {
                data.push_back({ (llama_token) i, logits[i], 0.0f });
            }
        }
        llama_token_data_array array = { data.data(), data.size(), -1, false };
        llama_grammar_apply_impl(*g.grammar, &array);
    }
    std::fill(logits, logits + count, -INFINITY);
    for (const auto & one : data) {
        logits[one.id] = one.logit;
    }
}

mz_grammar * make(const llama_vocab * vocab, const common_json & spec) {
    auto g    = std::make_unique<mz_grammar>();
    g->vocab   = vocab;
    g->grammar = parse(vocab, spec.at("rules").get<std::string>());

    std::vector<trigger> triggers;
    for (const auto & pattern : spec.at("triggers")) {
        triggers.push_back(compile(pattern.get<std::string>()));
    }
    for (const auto & token : spec.at("trigger_tokens")) {
        g->trigger_tokens.push_back(token.get<int>());
        check_token(*g, g->trigger_tokens.back());
    }
    for (const auto & end : spec.at("thinking_ends")) {
        g->thinking_ends.push_back(end.get<std::string>());
    }
    g->waiting        = !triggers.empty() || !g->trigger_tokens.empty();
    g->triggers       = std::make_shared<const std::vector<trigger>>(std::move(triggers));
    g->thinking_start = g->thinking_ends.empty() ? "" : spec.at("thinking_start").get<std::string>();

    const auto prefix = spec.at("prefix").get<std::string>();
    if (g->waiting) {
        g->thinking = ends_thinking_open(*g, prefix);
    } else {
        read_prefix(*g, prefix);
    }
    return g.release();
}

mz_grammar * copy(const mz_grammar & from) {
    auto g           = std::make_unique<mz_grammar>();
    g->vocab          = from.vocab;
    g->grammar.reset(llama_grammar_clone_impl(*from.grammar));
    g->triggers       = from.triggers;
    g->trigger_tokens = from.trigger_tokens;
    g->thinking_start = from.thinking_start;
    g->thinking_ends  = from.thinking_ends;
    g->waiting        = from.waiting;
    g->thinking       = from.thinking;
    g->broken         = from.broken;
    g->tail           = from.tail;
    g->tokens         = from.tokens;
    g->dropped        = from.dropped;
    return g.release();
}

} // namespace

extern "C" void mz_text_free(mz_text * text) {
    std::free(text->bytes);
}

// A grammar from {rules, triggers, trigger_tokens, prefix, thinking_start, thinking_ends}; null and a reason otherwise.
extern "C" mz_grammar * mz_grammar_new(const llama_vocab * vocab, mz_in spec, mz_text * why) {
    mz_grammar * out = nullptr;
    mz::guarded(why, [&] { out = make(vocab, common_json::parse(mz::text(spec))); });
    return out;
}

extern "C" void mz_grammar_free(mz_grammar * grammar) {
    delete grammar;
}

extern "C" mz_grammar * mz_grammar_copy(const mz_grammar * grammar, mz_text * why) {
    mz_grammar * out = nullptr;
    mz::guarded(why, [&] { out = copy(*grammar); });
    return out;
}

// Whether nothing is bound yet.
extern "C" bool mz_grammar_waits(const mz_grammar * grammar) {
    return grammar->waiting;
}

extern "C" bool mz_grammar_mask(mz_grammar * grammar, float * logits, size_t count, mz_text * why) {
    return mz::guarded(why, [&] { mask(*grammar, logits, count); });
}

extern "C" bool mz_grammar_allows(mz_grammar * grammar, llama_token token, bool * allows, mz_text * why) {
    return mz::guarded(why, [&] {
        check_token(*grammar, token);
        *allows = grammar->waiting;
        if (grammar->waiting || grammar->broken || grammar->grammar->stacks.empty()) {
            return;
        }
        llama_token_data       data  = { token, 1.0f, 0.0f };
        llama_token_data_array array = { &data, 1, -1, false };
        llama_grammar_apply_impl(*grammar->grammar, &array);
        *allows = data.logit != -INFINITY;
    });
}

extern "C" bool mz_grammar_accept(mz_grammar * grammar, llama_token token, mz_text * why) {
    return mz::guarded(why, [&] { accept(*grammar, token); });
}
