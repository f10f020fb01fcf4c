// Memory that a context and its model take, as llama.cpp itself counts it.

#include "shim.h"

#include "llama-ext.h"

// Sums over all kinds of memory: weights, caches, steps. False when counting failed.
extern "C" bool mz_memory(const llama_context * context, uint64_t * bytes) {
    try {
        bytes[0] = bytes[1] = bytes[2] = 0;
        for (const auto & [kind, part] : llama_get_memory_breakdown(context)) {
            bytes[0] += part.model;
            bytes[1] += part.context;
            bytes[2] += part.compute;
        }
        return true;
    } catch (...) {
        return false;
    }
}
