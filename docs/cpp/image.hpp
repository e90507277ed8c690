// Copyright (C) 2026 The anomalib-hgad authors
// SPDX-License-Identifier: Apache-2.0

// Images for a model, and what it says of one: what the programs have in common.
#pragma once

#include <cstdint>
#include <cstdio>  // before jpeglib.h, which takes FILE from it
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include <jpeglib.h>
#include <png.h>

[[noreturn]] inline void fail(const std::string& message) {
    std::cerr << message << std::endl;
    std::exit(2);
}

struct Pixels {
    size_t height, width;
    std::vector<unsigned char> values;  // height x width x RGB
};

struct Image {
    size_t height, width;
    std::vector<float> values;  // RGB x height x width, from 0 to 1
};

inline Pixels read_png(std::FILE* file) {
    const auto refuse = [](png_structp, png_const_charp message) { fail(message); };
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, refuse, nullptr);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, file);
    png_read_png(png, info, PNG_TRANSFORM_EXPAND | PNG_TRANSFORM_STRIP_ALPHA | PNG_TRANSFORM_GRAY_TO_RGB, nullptr);
    if (png_get_bit_depth(png, info) != 8) fail("the image has more than 8 bits: convert it");
    Pixels pixels{png_get_image_height(png, info), png_get_image_width(png, info), {}};
    png_bytepp rows = png_get_rows(png, info);
    for (size_t row = 0; row < pixels.height; ++row)
        pixels.values.insert(pixels.values.end(), rows[row], rows[row] + 3 * pixels.width);
    png_destroy_read_struct(&png, &info, nullptr);
    return pixels;
}

inline Pixels read_jpeg(std::FILE* file) {
    jpeg_decompress_struct jpeg;
    jpeg_error_mgr errors;
    jpeg.err = jpeg_std_error(&errors);  // says what is wrong, and ends the program
    jpeg_create_decompress(&jpeg);
    jpeg_stdio_src(&jpeg, file);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    Pixels pixels{jpeg.output_height, jpeg.output_width, {}};
    pixels.values.resize(3 * pixels.width * pixels.height);
    while (jpeg.output_scanline < jpeg.output_height) {
        unsigned char* row = pixels.values.data() + 3 * pixels.width * jpeg.output_scanline;
        jpeg_read_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    if (errors.num_warnings > 0) fail("the image is damaged, or was cut short");  // the rest would be grey
    return pixels;
}

inline Image read_image(const char* path) {
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) fail(std::string("no image at ") + path);
    const int first = std::getc(file);
    std::rewind(file);
    if (first != 0x89 && first != 0xFF) fail(std::string(path) + " is neither PNG nor JPEG");
    const Pixels pixels = first == 0x89 ? read_png(file) : read_jpeg(file);
    std::fclose(file);
    const size_t count = pixels.height * pixels.width;
    Image image{pixels.height, pixels.width, std::vector<float>(3 * count)};
    for (size_t channel = 0; channel < 3; ++channel)
        for (size_t pixel = 0; pixel < count; ++pixel)
            image.values[channel * count + pixel] = pixels.values[3 * pixel + channel] / 255.0f;
    return image;
}

inline void write_mask(const char* path, const bool* mask, size_t height, size_t width) {
    std::vector<unsigned char> pixels(mask, mask + height * width);
    for (auto& pixel : pixels) pixel *= 255;
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.height = height;
    image.width = width;
    image.format = PNG_FORMAT_GRAY;
    if (!png_image_write_to_file(&image, path, 0, pixels.data(), 0, nullptr)) fail(image.message);
}

// Strings of a JSON list, in UTF-8. Letters beyond ASCII are \uXXXX there, in UTF-16.
inline std::vector<std::string> strings_in(const std::string& json) {
    std::vector<std::string> found;
    bool inside = false;
    uint32_t high = 0;
    for (size_t at = 0; at < json.size(); ++at) {
        if (json[at] == '"') {
            if (!inside) found.emplace_back();
            inside = !inside;
        } else if (inside && json[at] != '\\') {
            found.back() += json[at];
        } else if (inside && json[++at] != 'u') {
            found.back() += json[at];
        } else if (inside) {
            uint32_t code = std::stoul(json.substr(at + 1, 4), nullptr, 16);
            at += 4;
            if (code >= 0xD800 && code < 0xDC00) {
                high = code;
                continue;
            }
            if (code >= 0xDC00 && code < 0xE000) code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00);
            const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
            const uint32_t starts[] = {0, 0xC0, 0xE0, 0xF0};
            found.back() += static_cast<char>(starts[more] | code >> 6 * more);
            for (int part = more - 1; part >= 0; --part)
                found.back() += static_cast<char>(0x80 | (code >> 6 * part & 0x3F));
        }
    }
    return found;
}

// Without a threshold the graph compares raw values with 0.5: neither label nor mask mean anything.
inline void check_threshold(const std::string& image_threshold) {
    if (image_threshold == "null")
        fail("the model has no threshold between good and bad: train it with validation images, and export it again");
}

constexpr auto NO_MASK = "no mask is written: the model has no threshold of pixels";

// Of an unknown product the label says nothing.
inline void print(bool anomalous, float score, float novelty, float limit, const std::string& name) {
    const bool unknown = novelty > limit;
    std::cout << (unknown ? "unknown" : anomalous ? "bad" : "good") << ' ' << score << ' ' << novelty << ' '
              << (unknown ? "unknown" : name) << std::endl;
}
