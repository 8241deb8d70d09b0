// A step in C: the CRC-32 checksum of what stands in `event.data.text`.
//
//   pip install ziglang
//   python -m ziglang cc -target wasm32-wasi -Oz -s -o main.wasm main.c
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static char input[640 * 1024 + 1]; // the largest input of a step

static uint32_t crc32(const char *text, size_t size) {
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < size; i++) {
        crc ^= (uint8_t)text[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

int main(void) {
    input[fread(input, 1, sizeof input - 1, stdin)] = 0;
    // A real step uses a JSON parser. This one takes the first "text", without escapes.
    const char *mark = "\"text\":\"";
    const char *text = strstr(input, mark);
    size_t size = 0;
    if (text != NULL) {
        text += strlen(mark);
        size = strcspn(text, "\"");
    }
    fprintf(stderr, "a text of %u bytes\n", (unsigned)size);
    printf("{\"crc32\": \"%08x\", \"bytes\": %u}\n", crc32(text, size), (unsigned)size);
    return 0;
}
