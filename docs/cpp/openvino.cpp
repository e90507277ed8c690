// Copyright (C) 2026 The anomalib-hgad authors
// SPDX-License-Identifier: Apache-2.0

// Inspects an image by OpenVINO: prints good, bad or unknown, score, novelty and class, and writes the mask.
#include <openvino/openvino.hpp>

#include "image.hpp"

int main(int count, char* arguments[]) try {
    if (count != 4) fail("usage: inspect_openvino model.xml image.png mask.png");
    ov::Core core;
    auto graph = core.read_model(arguments[1]);
    const auto said = [&](const char* name) {
        if (!graph->has_rt_info("model_info", name)) fail(std::string("the model does not say its ") + name);
        return graph->get_rt_info<std::string>("model_info", name);
    };
    const auto names = strings_in(said("class_names"));
    check_threshold(said("image_threshold"));
    const bool marks_pixels = said("pixel_threshold") != "null";
    const bool tells_class = said("class_tensor") != "null";
    graph->add_output("novelty");
    if (tells_class) graph->add_output("inferred_class");
    auto model = core.compile_model(graph, "CPU");

    Image image = read_image(arguments[2]);
    auto request = model.create_infer_request();
    request.set_input_tensor(ov::Tensor(ov::element::f32, {1, 3, image.height, image.width}, image.values.data()));
    request.infer();

    const auto mask = request.get_tensor("pred_mask");
    const auto shape = mask.get_shape();
    if (marks_pixels)
        write_mask(arguments[3], mask.data<bool>(), shape[shape.size() - 2], shape[shape.size() - 1]);
    else
        std::cerr << NO_MASK << std::endl;
    const size_t index = tells_class ? request.get_tensor("inferred_class").data<int64_t>()[0] : 0;
    print(request.get_tensor("pred_label").data<bool>()[0],
          request.get_tensor("pred_score").data<float>()[0],
          request.get_tensor("novelty").data<float>()[0],
          std::stof(said("novelty_limit")),
          tells_class || names.size() == 1 ? names.at(index) : "-");
} catch (const std::exception& error) {
    fail(error.what());
}
