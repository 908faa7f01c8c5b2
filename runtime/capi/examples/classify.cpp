// The library behind C++ objects that free themselves, on four threads: what is a picture of one colour?
//
//     classify_cpp MODEL.onnx RED GREEN BLUE
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <smalti.h>

namespace smalti {

struct Error : std::runtime_error {
    explicit Error(int code) : std::runtime_error(smalti_last_error()), code(code) {}
    int code;
};

inline void check(int code) {
    if (code != SMALTI_OK) throw Error(code);
}

struct Free {
    void operator()(smalti_model *model) const { smalti_close(model); }
    void operator()(smalti_session *session) const { smalti_session_free(session); }
};

class Model;

struct Label {
    std::string text;
    float probability;
};

/// One thread's.
class Session {
  public:
    std::vector<Label> classify(const std::uint8_t *rgb, std::size_t width, std::size_t height, std::size_t k) {
        check(smalti_run_pixels(session.get(), rgb, width * height * 3, width, height, 3, 0));
        std::vector<smalti_ranked> ranked(k);
        check(smalti_top_k(session.get(), ranked.data(), k));
        std::vector<Label> labels;
        for (const auto &best : ranked) labels.push_back({best.label, best.probability});
        return labels;
    }

  private:
    friend class Model;
    explicit Session(smalti_session *session) : session(session) {}
    std::unique_ptr<smalti_session, Free> session;
};

/// All threads'.
class Model {
  public:
    explicit Model(const std::string &path) {
        smalti_model *opened = nullptr;
        check(smalti_open(path.c_str(), nullptr, &opened));
        model.reset(opened);
    }

    Session session(std::size_t threads = 1) const {
        smalti_session *made = nullptr;
        check(smalti_session_new(model.get(), threads, &made));
        return Session(made);
    }

  private:
    std::unique_ptr<smalti_model, Free> model;
};

} // namespace smalti

int main(int count, char **arguments) try {
    if (count != 5) {
        std::cerr << "usage: " << arguments[0] << " MODEL.onnx RED GREEN BLUE\n";
        return SMALTI_USAGE;
    }
    const std::size_t width = 64, height = 48;
    std::vector<std::uint8_t> pixels;
    for (std::size_t i = 0; i < width * height * 3; i++)
        pixels.push_back(static_cast<std::uint8_t>(std::atoi(arguments[2 + i % 3])));

    const smalti::Model model(arguments[1]);
    std::vector<std::string> answers(4);
    std::vector<std::thread> threads;
    for (auto &answer : answers)
        threads.emplace_back([&model, &answer, &pixels, width, height] {
            try {
                answer = model.session().classify(pixels.data(), width, height, 1).front().text;
            } catch (const smalti::Error &error) {
                answer = error.what();
            }
        });
    for (auto &thread : threads) thread.join();
    for (const auto &answer : answers) std::cout << answer << '\n';
    return 0;
} catch (const smalti::Error &error) {
    std::cerr << smalti_code_name(error.code) << ": " << error.what() << '\n';
    return error.code;
}
