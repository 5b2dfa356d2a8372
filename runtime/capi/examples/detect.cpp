// Finds what a group of photos shares, and finds it again in others, from C++ 17.
//
//     c++ -std=c++17 detect.cpp -o detect $(pkg-config --cflags --libs gconet)
//     ./detect build/gconet.gconet maps a.ppm b.ppm c.ppm -- room.ppm
//
// The maps of the photos before `--` are those of one group. The photos after it are searched one by one for the
// consensus of that group. Photos are binary PPM; maps are written as detect.c does, NAME.pfm and NAME.pgm.
#include <gconet.h>

#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace fs = std::filesystem;

// What a function of gconet.h says went wrong.
struct Error : std::runtime_error {
    explicit Error(gconet_status why) : std::runtime_error(gconet_last_error()), status(why) {}
    gconet_status status;
};

struct Photo {
    std::size_t height = 0, width = 0;
    std::vector<std::uint8_t> rgb;
};

struct Map {
    std::size_t height = 0, width = 0;
    std::vector<float> values;
};

// Owns a gconet_detector. May be moved, and used by many threads.
class Detector {
public:
    explicit Detector(const std::string& bundle, const gconet_options& options = GCONET_OPTIONS_INIT) {
        gconet_detector* loaded = nullptr;
        check(gconet_load(bundle.c_str(), &options, &loaded));
        detector_.reset(loaded);
    }

    std::vector<Map> detect(const std::vector<Photo>& photos) const {
        const auto views = views_of(photos);
        auto maps = maps_for(photos);
        check(gconet_detect(detector_.get(), views.data(), views.size(), pointers_to(maps).data()));
        return maps;
    }

    std::vector<float> consensus(const std::vector<Photo>& photos) const {
        gconet_info info = GCONET_INFO_INIT;
        check(gconet_describe(detector_.get(), &info));
        std::vector<float> shared(static_cast<std::size_t>(info.consensus_length));
        const auto views = views_of(photos);
        check(gconet_consensus(detector_.get(), views.data(), views.size(), shared.data(), shared.size()));
        return shared;
    }

    std::vector<Map> segment(const std::vector<Photo>& photos, const std::vector<float>& shared) const {
        const auto views = views_of(photos);
        auto maps = maps_for(photos);
        check(gconet_segment(detector_.get(), views.data(), views.size(), shared.data(), shared.size(),
                             pointers_to(maps).data()));
        return maps;
    }

private:
    static void check(gconet_status status) {
        if (status != GCONET_OK) throw Error(status);
    }

    static std::vector<gconet_photo> views_of(const std::vector<Photo>& photos) {
        std::vector<gconet_photo> views;
        for (const auto& photo : photos) views.push_back({photo.rgb.data(), photo.height, photo.width, 0});
        return views;
    }

    static std::vector<Map> maps_for(const std::vector<Photo>& photos) {
        std::vector<Map> maps;
        for (const auto& photo : photos)
            maps.push_back({photo.height, photo.width, std::vector<float>(photo.height * photo.width)});
        return maps;
    }

    static std::vector<float*> pointers_to(std::vector<Map>& maps) {
        std::vector<float*> pointers;
        for (auto& map : maps) pointers.push_back(map.values.data());
        return pointers;
    }

    struct Free {
        void operator()(gconet_detector* detector) const { gconet_free(detector); }
    };
    std::unique_ptr<gconet_detector, Free> detector_;
};

static Photo read_photo(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    const auto number = [&file] {
        while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
        std::size_t value = 0;
        file >> value;
        return value;
    };
    char kind[2] = {};
    file.read(kind, 2);
    Photo photo;
    photo.width = number();
    photo.height = number();
    const bool known = kind[0] == 'P' && kind[1] == '6' && number() == 255 && photo.width - 1 < 99999 &&
                       photo.height - 1 < 99999;
    if (!file || !known) throw std::runtime_error(path.string() + " is no binary PPM of 8 bits");
    file.get();  // the one white space before the pixels
    photo.rgb.resize(photo.width * photo.height * 3);
    if (!file.read(reinterpret_cast<char*>(photo.rgb.data()), static_cast<std::streamsize>(photo.rgb.size())))
        throw std::runtime_error(path.string() + " ends too early");
    return photo;
}

static void write_map(const Map& map, fs::path path) {
    const auto size = std::to_string(map.width) + " " + std::to_string(map.height) + "\n";
    const std::uint16_t one = 1;
    const bool little = *reinterpret_cast<const std::uint8_t*>(&one) == 1;
    std::ofstream floats(path.replace_extension(".pfm"), std::ios::binary);
    floats << "Pf\n" << size << (little ? "-1.0\n" : "1.0\n");
    for (std::size_t row = map.height; row-- > 0;)
        floats.write(reinterpret_cast<const char*>(map.values.data() + row * map.width),
                     static_cast<std::streamsize>(map.width * sizeof(float)));
    std::ofstream bytes(path.replace_extension(".pgm"), std::ios::binary);
    bytes << "P5\n" << size << "255\n";
    for (const float value : map.values) bytes.put(static_cast<char>(static_cast<std::uint8_t>(value * 255)));
    if (!floats.flush() || !bytes.flush()) throw std::runtime_error("cannot write " + path.string());
}

static void write_maps(const std::vector<Map>& maps, const std::vector<fs::path>& photos, const fs::path& folder) {
    for (std::size_t index = 0; index < maps.size(); ++index) write_map(maps[index], folder / photos[index].filename());
}

int main(int argc, char** argv) try {
    if (argc < 4) throw std::runtime_error("usage: detect BUNDLE FOLDER PHOTO.ppm... [-- PHOTO.ppm...]");
    const fs::path folder(argv[2]);
    std::vector<fs::path> group, others;
    for (int index = 3, found = 0; index < argc; ++index) {
        if (std::string(argv[index]) == "--")
            found = 1;
        else
            (found ? others : group).emplace_back(argv[index]);
    }
    std::vector<Photo> photos, rest;
    for (const auto& path : group) photos.push_back(read_photo(path));
    for (const auto& path : others) rest.push_back(read_photo(path));

    const Detector detector(argv[1]);
    write_maps(detector.detect(photos), group, folder);
    if (!rest.empty()) write_maps(detector.segment(rest, detector.consensus(photos)), others, folder);
    return 0;
} catch (const std::exception& error) {
    std::cerr << "detect: " << error.what() << "\n";
    return 2;
}
