// Two clips through an exported model in C++, without Python.
//
//   asycmst export --checkpoint run/best.ckpt --format aoti --out model/
//   ffmpeg -i bus.mp4 -vf scale=224:224 -pix_fmt rgb24 -f rawvideo bus.rgb   (ceus likewise)
//   TORCH=$(python -c "import torch; print(torch.__path__[0])")
//   g++ -std=c++20 -O2 aoti_clip.cpp -o aoti_clip -I$TORCH/include -L$TORCH/lib \
//       -Wl,-rpath,$TORCH/lib -ltorch -ltorch_cpu -lc10
//   ./aoti_clip model/model.aoti.pt2 bus.rgb ceus.rgb 16 224 224
//
// The last three numbers are frames, height and width of the "preprocessing" in model.json, which
// also lists the outputs in their order.

#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

// Raw frames, 8-bit RGB, of which `frames` are taken evenly: (1, 3, T, height, width) in [0, 1].
at::Tensor read_clip(const std::string& path, int64_t frames, int64_t height, int64_t width) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("cannot open " + path);
  const int64_t frame = height * width * 3, bytes = file.tellg();
  if (bytes == 0 || bytes % frame != 0)
    throw std::runtime_error(path + " does not hold whole frames of this size");
  const int64_t last = bytes / frame - 1;
  at::Tensor clip = at::empty({frames, height, width, 3}, at::kByte);
  for (int64_t j = 0; j < frames; ++j) {
    file.seekg((frames > 1 ? j * last / (frames - 1) : 0) * frame);
    file.read(reinterpret_cast<char*>(clip.data_ptr<uint8_t>()) + j * frame, frame);
  }
  return clip.permute({3, 0, 1, 2}).to(at::kFloat).div(255).unsqueeze(0).contiguous();
}

int main(int count, char** arguments) {
  if (count != 7) {
    std::fprintf(stderr, "usage: aoti_clip PACKAGE BUS CEUS FRAMES HEIGHT WIDTH\n");
    return 2;
  }
  try {
    const int64_t frames = std::stoll(arguments[4]);
    const int64_t height = std::stoll(arguments[5]), width = std::stoll(arguments[6]);
    torch::inductor::AOTIModelPackageLoader model(arguments[1]);
    std::vector<at::Tensor> clips = {read_clip(arguments[2], frames, height, width),
                                     read_clip(arguments[3], frames, height, width)};
    const std::vector<at::Tensor> outputs = model.run(clips);
    std::printf("probability_malignant %.6f\n", outputs[1].item<float>());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "aoti_clip: %s\n", error.what());
    return 1;
  }
  return 0;
}
