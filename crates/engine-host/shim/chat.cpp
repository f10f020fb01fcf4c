// Chat templates: from a conversation to the model's prompt, and from the reply back to a message. JSON in, JSON out.

#include "shim.h"

#include "chat.h"
#include "json-schema-to-grammar.h"
#include "json.h"
#include "llama.h"

#include <memory>
#include <stdexcept>

struct mz_templates {
    common_chat_templates_ptr inner;
};

struct mz_parser {
    common_chat_parser_params params;
    // What a continued message has already; it is not said again.
    common_chat_msg           before;
};

namespace {

common_chat_templates_inputs inputs(const common_json & request) {
    common_chat_templates_inputs in;
    in.messages            = common_chat_msgs_parse_oaicompat(request.at("messages"));
    in.tools               = common_chat_tools_parse_oaicompat(request.at("tools"));
    in.tool_choice         = common_chat_tool_choice_parse_oaicompat(request.at("tool_choice").get<std::string>());
    in.parallel_tool_calls = request.at("parallel").get<bool>();
    in.enable_thinking     = request.at("thinking").get<bool>();
    in.force_pure_content  = request.at("pure").get<bool>();
    in.reasoning_format    = COMMON_REASONING_FORMAT_AUTO;
    if (!request.at("schema").is_null()) {
        in.json_schema = request.at("schema").dump();
    }
    if (request.at("continue_final").get<bool>()) {
        in.continue_final_message = COMMON_CHAT_CONTINUATION_AUTO;
        in.add_generation_prompt  = false;
    }
    for (const auto & [key, value] : request.at("kwargs").items()) {
        in.chat_template_kwargs[key] = value.dump();
    }
    return in;
}

const char * trigger_kind(common_grammar_trigger_type type) {
    switch (type) {
        case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:        return "token";
        case COMMON_GRAMMAR_TRIGGER_TYPE_WORD:         return "word";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:      return "pattern";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: return "whole";
    }
    throw std::invalid_argument("llama.cpp knows a kind of trigger that this build does not");
}

common_json outcome(const common_chat_params & params) {
    common_json triggers = common_json::array();
    for (const auto & trigger : params.grammar_triggers) {
        triggers.push_back({
            { "kind",  trigger_kind(trigger.type) },
            { "value", trigger.value              },
            { "token", (int) trigger.token        },
        });
    }
    common_json out = common_json::object();
    out["prompt"]            = params.prompt;
    out["grammar"]           = params.grammar;
    out["lazy"]              = params.grammar_lazy;
    out["triggers"]          = triggers;
    out["format"]            = (int) params.format;
    out["parser"]            = params.parser;
    out["generation_prompt"] = params.generation_prompt;
    out["thinks"]            = params.supports_thinking;
    out["thinking_start"]    = params.thinking_start_tag;
    out["thinking_ends"]     = params.thinking_end_tags;
    out["stops"]             = params.additional_stops;
    out["preserved"]         = params.preserved_tokens;
    return out;
}

std::unique_ptr<mz_parser> parser(const common_json & syntax) {
    const int format = syntax.at("format").get<int>();
    if (format < 0 || format >= COMMON_CHAT_FORMAT_COUNT) {
        throw std::invalid_argument("a reply of an unknown format");
    }
    auto out = std::make_unique<mz_parser>();
    out->params.format            = (common_chat_format) format;
    out->params.reasoning_format  = COMMON_REASONING_FORMAT_AUTO;
    out->params.generation_prompt = syntax.at("generation_prompt").get<std::string>();
    out->params.is_continuation   = syntax.at("continues").get<bool>();
    const auto arena = syntax.at("parser").get<std::string>();
    if (!arena.empty()) {
        out->params.parser.load(arena);
    }
    if (out->params.is_continuation) {
        out->before = common_chat_parse("", true, out->params);
    }
    return out;
}

void take_off(std::string & text, const std::string & before) {
    if (text.compare(0, before.size(), before) == 0) {
        text.erase(0, before.size());
    }
}

common_json message(common_chat_msg msg, const common_chat_msg & before) {
    std::string content = msg.render_content();
    take_off(content, before.content);
    take_off(msg.reasoning_content, before.reasoning_content);
    common_json calls = common_json::array();
    for (const auto & call : msg.tool_calls) {
        calls.push_back({
            { "id",        call.id        },
            { "name",      call.name      },
            { "arguments", call.arguments },
        });
    }
    common_json out = common_json::object();
    out["content"]    = content;
    out["reasoning"]  = msg.reasoning_content;
    out["tool_calls"] = calls;
    return out;
}

} // namespace

// The templates of a model, or, for tests, of a text with these tokens at a prompt's begin and end.
extern "C" mz_templates * mz_templates_new(const llama_model * model, mz_in source, mz_in bos, mz_in eos, mz_text * why) {
    mz_templates * out = nullptr;
    mz::guarded(why, [&] {
        auto templates = std::make_unique<mz_templates>();
        templates->inner = common_chat_templates_init(model, mz::text(source), mz::text(bos), mz::text(eos));
        out = templates.release();
    });
    return out;
}

extern "C" void mz_templates_free(mz_templates * templates) {
    delete templates;
}

// Both variants' source, to see which tokens it uses.
extern "C" bool mz_templates_source(const mz_templates * templates, mz_text * out) {
    return mz::guarded(out, [&] {
        mz::give(out, common_chat_templates_source(templates->inner.get()) +
                          common_chat_templates_source(templates->inner.get(), "tool_use"));
    });
}

extern "C" bool mz_templates_apply(const mz_templates * templates, mz_in request, mz_text * out) {
    return mz::guarded(out, [&] {
        const auto in = inputs(common_json::parse(mz::text(request)));
        mz::give(out, outcome(common_chat_templates_apply(templates->inner.get(), in)).dump_safe());
    });
}

// JSON schema to rules in llama.cpp's notation.
extern "C" bool mz_schema_rules(mz_in schema, mz_text * out) {
    return mz::guarded(out, [&] { mz::give(out, json_schema_to_grammar(common_json::parse(mz::text(schema)), true)); });
}

extern "C" mz_parser * mz_parser_new(mz_in syntax, mz_text * why) {
    mz_parser * out = nullptr;
    mz::guarded(why, [&] { out = parser(common_json::parse(mz::text(syntax))).release(); });
    return out;
}

extern "C" void mz_parser_free(mz_parser * parser) {
    delete parser;
}

extern "C" bool mz_parser_read(const mz_parser * parser, mz_in text, bool partial, mz_text * out) {
    return mz::guarded(out, [&] {
        auto msg = common_chat_parse(mz::text(text), partial, parser->params);
        mz::give(out, message(std::move(msg), parser->before).dump_safe());
    });
}
