/*
 * Media types. The table here has what the web is made of and wins over the system's, which has
 * long been wrong about some of it (a JavaScript module with another type is refused by browsers,
 * WebAssembly is compiled only while it is received if its type is right); the system's table
 * (serve/static_mime.c) knows everything else.
 *
 * XML names its own encoding, so it gets no charset.
 */
#include "wire/mime.h"

#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

struct mime_row {
    const char *ending;
    stk_span type;
};

#define ROW(ending, type)          \
    {                              \
        ending,                    \
        {                          \
            type, sizeof(type) - 1 \
        }                          \
    }

/* In order of the endings. */
static const struct mime_row mime_rows[] = {
    ROW("3gp", "video/3gpp"),
    ROW("7z", "application/x-7z-compressed"),
    ROW("aac", "audio/aac"),
    ROW("apng", "image/apng"),
    ROW("atom", "application/atom+xml"),
    ROW("avi", "video/x-msvideo"),
    ROW("avif", "image/avif"),
    ROW("bin", "application/octet-stream"),
    ROW("bmp", "image/bmp"),
    ROW("bz2", "application/x-bzip2"),
    ROW("cjs", "text/javascript; charset=utf-8"),
    ROW("css", "text/css; charset=utf-8"),
    ROW("csv", "text/csv; charset=utf-8"),
    ROW("doc", "application/msword"),
    ROW("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ROW("eot", "application/vnd.ms-fontobject"),
    ROW("epub", "application/epub+zip"),
    ROW("flac", "audio/flac"),
    ROW("geojson", "application/geo+json"),
    ROW("gif", "image/gif"),
    ROW("glb", "model/gltf-binary"),
    ROW("gltf", "model/gltf+json"),
    ROW("gz", "application/gzip"),
    ROW("heic", "image/heic"),
    ROW("htm", "text/html; charset=utf-8"),
    ROW("html", "text/html; charset=utf-8"),
    ROW("ico", "image/x-icon"),
    ROW("ics", "text/calendar; charset=utf-8"),
    ROW("iso", "application/octet-stream"),
    ROW("jar", "application/java-archive"),
    ROW("jpeg", "image/jpeg"),
    ROW("jpg", "image/jpeg"),
    ROW("js", "text/javascript; charset=utf-8"),
    ROW("json", "application/json"),
    ROW("jsonld", "application/ld+json"),
    ROW("jxl", "image/jxl"),
    ROW("m3u8", "application/vnd.apple.mpegurl"),
    ROW("m4a", "audio/mp4"),
    ROW("m4v", "video/mp4"),
    ROW("map", "application/json"),
    ROW("markdown", "text/markdown; charset=utf-8"),
    ROW("md", "text/markdown; charset=utf-8"),
    ROW("mid", "audio/midi"),
    ROW("mjs", "text/javascript; charset=utf-8"),
    ROW("mkv", "video/x-matroska"),
    ROW("mov", "video/quicktime"),
    ROW("mp3", "audio/mpeg"),
    ROW("mp4", "video/mp4"),
    ROW("mpd", "application/dash+xml"),
    ROW("mpeg", "video/mpeg"),
    ROW("oga", "audio/ogg"),
    ROW("ogg", "audio/ogg"),
    ROW("ogv", "video/ogg"),
    ROW("opus", "audio/ogg"),
    ROW("otf", "font/otf"),
    ROW("pdf", "application/pdf"),
    ROW("png", "image/png"),
    ROW("ppt", "application/vnd.ms-powerpoint"),
    ROW("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ROW("rss", "application/rss+xml"),
    ROW("rtf", "application/rtf"),
    ROW("svg", "image/svg+xml"),
    ROW("tar", "application/x-tar"),
    ROW("tgz", "application/gzip"),
    ROW("tif", "image/tiff"),
    ROW("tiff", "image/tiff"),
    ROW("toml", "application/toml"),
    ROW("ts", "video/mp2t"),
    ROW("ttc", "font/collection"),
    ROW("ttf", "font/ttf"),
    ROW("txt", "text/plain; charset=utf-8"),
    ROW("vtt", "text/vtt; charset=utf-8"),
    ROW("wasm", "application/wasm"),
    ROW("wav", "audio/wav"),
    ROW("weba", "audio/webm"),
    ROW("webm", "video/webm"),
    ROW("webmanifest", "application/manifest+json"),
    ROW("webp", "image/webp"),
    ROW("woff", "font/woff"),
    ROW("woff2", "font/woff2"),
    ROW("xhtml", "application/xhtml+xml"),
    ROW("xls", "application/vnd.ms-excel"),
    ROW("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ROW("xml", "text/xml"),
    ROW("xz", "application/x-xz"),
    ROW("yaml", "application/yaml"),
    ROW("yml", "application/yaml"),
    ROW("zip", "application/zip"),
    ROW("zst", "application/zstd"),
};

stk_span stk_mime_ending(stk_span name)
{
    size_t at = name.len;

    while (at > 0 && name.ptr[at - 1] != '.' && name.ptr[at - 1] != '/')
        at--;
    if (at < 2 || name.ptr[at - 1] != '.' || name.ptr[at - 2] == '/' ||
        name.len - at > STK_MIME_EXT_MAX)
        return stk_span_make(name.ptr + name.len, 0);
    return stk_span_make(name.ptr + at, name.len - at);
}

static int mime_compare(const void *key, const void *row)
{
    return strcmp(key, ((const struct mime_row *)row)->ending);
}

stk_span stk_mime_builtin(stk_span ending)
{
    char lower[STK_MIME_EXT_MAX + 1];
    const struct mime_row *row;

    if (ending.len == 0 || ending.len > STK_MIME_EXT_MAX)
        return stk_span_make(NULL, 0);
    for (size_t i = 0; i < ending.len; i++) {
        char c = ending.ptr[i];

        lower[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    lower[ending.len] = '\0';
    row = bsearch(lower, mime_rows, STK_ARRAY_LEN(mime_rows), sizeof mime_rows[0], mime_compare);
    return row != NULL ? row->type : stk_span_make(NULL, 0);
}

bool stk_mime_is_text(stk_span type)
{
    static const stk_span others[] = {
        STK_SPAN_LIT("application/javascript"),
        STK_SPAN_LIT("application/ecmascript"),
        STK_SPAN_LIT("application/x-javascript"),
    };

    if (memchr(type.ptr, ';', type.len) != NULL || stk_span_ieq(type, STK_SPAN_LIT("text/xml")))
        return false;
    if (type.len > 5 && stk_span_ieq(stk_span_make(type.ptr, 5), STK_SPAN_LIT("text/")))
        return true;
    for (size_t i = 0; i < STK_ARRAY_LEN(others); i++)
        if (stk_span_ieq(type, others[i]))
            return true;
    return false;
}

/* A character of a token (RFC 9110 5.6.2). */
static bool mime_is_token(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

bool stk_mime_is_type(stk_span type)
{
    size_t i = 0, slash;

    while (i < type.len && mime_is_token(type.ptr[i]))
        i++;
    slash = i;
    if (slash == 0 || slash == type.len || type.ptr[slash] != '/')
        return false;
    for (i++; i < type.len && mime_is_token(type.ptr[i]);)
        i++;
    if (i == slash + 1)
        return false;
    if (i < type.len && type.ptr[i] != ';' && type.ptr[i] != ' ')
        return false;
    for (; i < type.len; i++)
        if ((unsigned char)type.ptr[i] < 0x20 || (unsigned char)type.ptr[i] >= 0x7f)
            return false;
    return true;
}

static bool mime_is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

stk_span stk_mime_next_word(stk_span *pos)
{
    const char *p = pos->ptr, *end = p + pos->len, *start;

    while (p < end && mime_is_blank(*p))
        p++;
    for (start = p; p < end && !mime_is_blank(*p);)
        p++;
    *pos = stk_span_make(p, (size_t)(end - p));
    while (p > start && p[-1] == ';')
        p--; /* as nginx writes such tables */
    return stk_span_make(start, (size_t)(p - start));
}

bool stk_mime_next_line(stk_span *pos, stk_span *ret_type, stk_span *ret_endings)
{
    while (pos->len > 0) {
        const char *p = pos->ptr, *newline = memchr(p, '\n', pos->len);
        size_t len = newline ? (size_t)(newline - p) : pos->len;
        const char *comment = memchr(p, '#', len);
        stk_span line = stk_span_make(p, comment ? (size_t)(comment - p) : len), type, rest;

        *pos = newline ? stk_span_make(newline + 1, pos->len - len - 1) : stk_span_make(p + len, 0);
        type = stk_mime_next_word(&line);
        rest = line;
        if (!stk_mime_is_type(type) || stk_mime_next_word(&line).len == 0)
            continue;
        *ret_type = type;
        *ret_endings = rest;
        return true;
    }
    return false;
}
