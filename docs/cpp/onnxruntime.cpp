// Copyright (C) 2026 The anomalib-hgad authors
// SPDX-License-Identifier: Apache-2.0

// Inspects an image by onnxruntime: prints good, bad or unknown, score, novelty and class, and writes the mask.
// The model is an .onnx file that has novelty and inferred_class among its outputs.
#include <onnxruntime_cxx_api.h>

#include "image.hpp"

int main(int count, char* arguments[]) try {
    if (count != 4) fail("usage: inspect_onnxruntime model.onnx image.png mask.png");
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "inspect");
    Ort::Session session(environment, arguments[1], Ort::SessionOptions{});
    Ort::AllocatorWithDefaultOptions allocator;
    const auto metadata = session.GetModelMetadata();
    const auto said = [&](const char* name) {
        const auto text = metadata.LookupCustomMetadataMapAllocated(name, allocator);
        if (!text) fail(std::string("the model does not say its ") + name);
        return std::string(text.get());
    };
    const auto names = strings_in(said("class_names"));
    check_threshold(said("image_threshold"));
    const bool marks_pixels = said("pixel_threshold") != "null";
    const bool tells_class = said("class_tensor") != "null";
    std::vector<const char*> outputs{"pred_label", "pred_score", "novelty", "pred_mask"};
    if (tells_class) outputs.push_back("inferred_class");

    Image image = read_image(arguments[2]);
    const int64_t size[] = {1, 3, static_cast<int64_t>(image.height), static_cast<int64_t>(image.width)};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input = Ort::Value::CreateTensor(memory, image.values.data(), image.values.size(), size, 4);
    const char* inputs[] = {"input"};
    const auto results = session.Run(Ort::RunOptions{}, inputs, &input, 1, outputs.data(), outputs.size());

    const auto shape = results[3].GetTensorTypeAndShapeInfo().GetShape();
    if (marks_pixels)
        write_mask(arguments[3], results[3].GetTensorData<bool>(), shape[shape.size() - 2], shape[shape.size() - 1]);
    else
        std::cerr << NO_MASK << std::endl;
    const size_t index = tells_class ? results[4].GetTensorData<int64_t>()[0] : 0;
    print(results[0].GetTensorData<bool>()[0],
          results[1].GetTensorData<float>()[0],
          results[2].GetTensorData<float>()[0],
          std::stof(said("novelty_limit")),
          tells_class || names.size() == 1 ? names.at(index) : "-");
} catch (const std::exception& error) {
    fail(error.what());
}
