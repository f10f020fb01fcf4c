// What crosses the border between Rust and llama.cpp's C++: bytes with their length in, bytes or an error text out.
// Nothing is thrown over it: every entry point runs inside guarded().

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>

// Bytes of the caller's.
struct mz_in {
    const char * bytes;
    size_t       length;
};

// Bytes for the caller, who gives them back with mz_text_free.
struct mz_text {
    char * bytes;
    size_t length;
};

namespace mz {

inline std::string text(mz_in in) {
    return in.length == 0 ? std::string() : std::string(in.bytes, in.length);
}

// Leaves the text empty when there is no memory for it.
inline void give(mz_text * out, const char * bytes, size_t length) {
    out->length = 0;
    out->bytes  = static_cast<char *>(std::malloc(length == 0 ? 1 : length));
    if (out->bytes != nullptr) {
        std::memcpy(out->bytes, bytes, length);
        out->length = length;
    }
}

inline void give(mz_text * out, const std::string & text) {
    give(out, text.data(), text.size());
}

// Runs `body`; true when nothing was thrown, else `out` says what.
template <typename Body> bool guarded(mz_text * out, Body body) {
    try {
        body();
        return true;
    } catch (const std::bad_alloc &) {
        give(out, std::string("it needs more memory than there is"));
    } catch (const std::exception & error) {
        give(out, error.what(), std::strlen(error.what()));
    } catch (...) {
        give(out, std::string("it failed without a reason"));
    }
    return false;
}

} // namespace mz
