/* Smalti: runs vision transformers from ONNX files. How to use it: docs/embedding-in-c.md.
 *
 * Written from the library's source by `cargo test -p smalti-capi --test header -- --ignored`.
 *
 * - Entries return SMALTI_OK or another code; smalti_last_error says in words what was wrong. An entry that fails
 *   changes nothing but its outputs.
 * - Handles are checked: a closed or wrong one is SMALTI_HANDLE. Pointers must be null or point to what is said here.
 * - Every entry may be called on any thread. A model is for all threads at once; a session, a class bank and an anomaly
 *   detector are for one at a time: while an entry is at work, they return SMALTI_BUSY on other threads.
 * - No thread is started unless smalti_session_new is asked for more than one. Nothing is written, and nothing read but
 *   the files that are opened by name, and with a key their signatures' and the key's; a caught bug leaves a line on
 *   standard error.
 * - After fork, the child may go on with what was opened before: its sessions run on the calling thread alone. A session that
 *   another thread ran at that moment stays SMALTI_BUSY there. The shared library stays in memory after dlclose.
 * - Structs begin with their size, so that programs run with later versions of the library.
 */


#ifndef SMALTI_H
#define SMALTI_H

#include <stddef.h>
#include <stdint.h>

#define SMALTI_VERSION "0.1.0"

// All went well.
#define SMALTI_OK 0

// A call that does not fit: a wrong size, a result before the first run, a model without preprocessing.
#define SMALTI_USAGE 2

// The model file was refused.
#define SMALTI_REFUSED 3

// The self-test failed.
#define SMALTI_FAILED 4

// An image or a tensor that cannot be used.
#define SMALTI_DATA 5

// The file system said no.
#define SMALTI_IO 6

// A null pointer where there must be none.
#define SMALTI_NULL 16

// A handle that is closed, or of another kind, or never was one.
#define SMALTI_HANDLE 17

// Another thread runs this session.
#define SMALTI_BUSY 18

// A bug in the library, caught. The process is well; please report the message with the model.
#define SMALTI_INTERNAL 70

// As the file says.
#define SMALTI_FIT_OF_FILE 0

// The short side becomes the input's, then the centre is cut out.
#define SMALTI_FIT_CROP 1

// Both sides become the input's, whatever the shape was.
#define SMALTI_FIT_SQUASH 2

// Cubic filter, as Pillow's BICUBIC.
#define SMALTI_BICUBIC 0

// Triangle filter, as Pillow's BILINEAR.
#define SMALTI_BILINEAR 1

// uint8 [1, height, width, channels]: pixels as they are.
#define SMALTI_U8_NHWC 1

// float32 [1, channels, height, width]: pixels less mean, by standard deviation, on the scale 0 to 1.
#define SMALTI_F32_NCHW 2

// Red, green, blue.
#define SMALTI_RGB8 1

// Blue, green, red.
#define SMALTI_BGR8 2

// Grey.
#define SMALTI_GREY8 3

// 16 bits, the lower byte first: 5 of red (the upper ones), 6 of green, 5 of blue.
#define SMALTI_RGB565 4

// Y, U, Y, V for two pixels of a row; the width is even.
#define SMALTI_YUYV 5

// U, Y, V, Y for two pixels of a row; the width is even.
#define SMALTI_UYVY 6

// All Y, then U and V in turn, one of each for 2 x 2 pixels; both sides are even.
#define SMALTI_NV12 7

// As SMALTI_NV12, V before U.
#define SMALTI_NV21 8

// All Y, then all U, then all V, one of each for 2 x 2 pixels; both sides are even.
#define SMALTI_I420 9

// One colour a pixel, rows of red and green and rows of green and blue in turn; both sides are even.
#define SMALTI_BAYER_RGGB8 10

// As SMALTI_BAYER_RGGB8, blue and green above green and red.
#define SMALTI_BAYER_BGGR8 11

// As SMALTI_BAYER_RGGB8, green and blue above red and green.
#define SMALTI_BAYER_GBRG8 12

// As SMALTI_BAYER_RGGB8, green and red above blue and green.
#define SMALTI_BAYER_GRBG8 13

// An anomaly detector that `smalti-run anomaly fit` wrote, of one model. One thread at a time uses it; on others it is
// SMALTI_BUSY.
typedef struct smalti_anomaly smalti_anomaly;

// A class bank that `smalti-run learn` wrote, of one model. One thread at a time uses it; on others it is SMALTI_BUSY.
typedef struct smalti_bank smalti_bank;

// A model. Any number of threads may use one at the same time.
typedef struct smalti_model smalti_model;

// A session: the memory of one run at a time. Each thread has its own; one that is in use elsewhere is SMALTI_BUSY.
typedef struct smalti_session smalti_session;

// How to open a model. Fill it with zeros and set the size: what is zero is the default.
typedef struct smalti_options {
  // sizeof(smalti_options).
  size_t size;
  // Most bytes of the file; default 2 GiB.
  uint64_t max_file_bytes;
  // Most weights; default 512 Mi.
  uint64_t max_weights;
  // Most values between layers at one time; default 256 Mi.
  uint64_t max_activations;
  // Most multiply-adds of a run; default 250 G, some ten seconds.
  uint64_t max_work;
  // SMALTI_FIT_...: other than zero where the file does not say how to prepare images, or says it wrong. Then the
  // three below are read.
  int32_t fit;
  // SMALTI_BICUBIC or SMALTI_BILINEAR.
  int32_t interpolation;
  // Mean of each channel on the scale 0 to 1; of grey images the first alone.
  float mean[3];
  // Standard deviation of each channel on the scale 0 to 1.
  float std[3];
  // Open only what this key signed with minisign: the key as `minisign -G` prints it, or the name of its file; null
  // for no check. smalti_open reads the signature from the file of the model's name with .minisig behind it. A model
  // without a signature, or with another, is SMALTI_REFUSED.
  const char *pubkey;
  // For smalti_open_bytes with a key: the text of the signature file.
  const char *signature;
  // Open no model of a lower version ("1", "2.10"); null for any.
  const char *min_version;
  // For smalti_anomaly: the value of the graph whose tokens runs keep, by its name; "" for the usual one, null for none.
  const char *tokens;
} smalti_options;

// The image that a model takes.
typedef struct smalti_input {
  // sizeof(smalti_input); set it before the call.
  size_t size;
  // Pixels.
  size_t width;
  // Pixels.
  size_t height;
  // 1 (grey) or 3 (RGB).
  size_t channels;
  // SMALTI_U8_NHWC or SMALTI_F32_NCHW.
  int32_t form;
  // 1 where it is known how to prepare images of any size (smalti_run_pixels), else 0.
  int32_t prepares;
} smalti_input;

// A class and its probability.
typedef struct smalti_ranked {
  // The class's number.
  size_t index;
  // Its probability (softmax of the logits).
  float probability;
  // Its label, as from smalti_label.
  const char *label;
} smalti_ranked;

// How to open a class bank or an anomaly detector. Fill it with zeros and set the size.
typedef struct smalti_learned_options {
  // sizeof(smalti_learned_options).
  size_t size;
  // Open only what this key signed with minisign, as for models; null for no check.
  const char *pubkey;
  // For bytes with a key: the text of the signature file.
  const char *signature;
} smalti_learned_options;

// How unlike good images an image is.
typedef struct smalti_score {
  // sizeof(smalti_score); set it before the call.
  size_t size;
  // Above 1 is unusual.
  float score;
  // The largest value of the map: how unusual the most unusual place is.
  float tokens;
  // How unusual the whole image is, on the same scale.
  float embedding;
  // Zero.
  float reserved;
} smalti_score;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Reads, checks and prepares a model file. The file is not used afterwards.
//
// `options` may be null. On success `*model` is the model, to be closed with smalti_close; else it is null.
int smalti_open(const char *path, const struct smalti_options *options, struct smalti_model **model);

// As smalti_open, of `length` bytes in memory. They are not used afterwards.
int smalti_open_bytes(const uint8_t *bytes,
                      size_t length,
                      const struct smalti_options *options,
                      struct smalti_model **model);

// Closes a model; null is fine. Its sessions live on, and so do its labels as long as one of them does.
int smalti_close(struct smalti_model *model);

// The image that a model takes.
int smalti_input_info(const struct smalti_model *model, struct smalti_input *input);

// Number of classes.
int smalti_class_count(const struct smalti_model *model, size_t *count);

// A class's label in UTF-8: the file's, or the class's number in digits. It stays where it is until the model and all
// its sessions are closed.
int smalti_label(const struct smalti_model *model,
                 size_t index,
                 const char **label);

// Values of the embedding, the vector in front of the classifier; 0 where the model does not give it.
int smalti_embedding_length(const struct smalti_model *model, size_t *length);

// Bytes of heap that opening the model and running one session on that many threads (0 counts as 1) take at most, all
// together. Each further session takes less. The program's own code, stacks and what the system keeps for threads come
// on top.
//
// `width`, `height`, `channels` are those of the largest image for smalti_run_pixels, or all 0 where there are only
// tensors. For a model that our own kernels do not run (`smalti-run inspect` says so) it is a rough estimate.
int smalti_memory_bound(const struct smalti_model *model,
                        size_t threads,
                        size_t width,
                        size_t height,
                        size_t channels,
                        size_t *bytes);

// Runs the test vectors in the model file: does the model compute here what it computed where it was made? Takes a
// session's memory while it runs. SMALTI_FAILED if not, or if there are none.
int smalti_selftest(const struct smalti_model *model);

// Makes a session. The calling thread alone computes where `threads` is 0 or 1; otherwise `threads` - 1 helpers, at
// most 255, live as long as the session. The results are the same, to the last bit.
//
// On success `*session` is the session, to be freed with smalti_session_free; else it is null.
int smalti_session_new(const struct smalti_model *model,
                       size_t threads,
                       struct smalti_session **session);

// Frees a session; null is fine. A run of it on another thread goes on to its end.
int smalti_session_free(struct smalti_session *session);

// Runs the model on an image of any size: `height` rows of `width` pixels of `channels` bytes, 1 (grey) or 3 (RGB).
// Each row begins `stride` bytes after the one before; 0 stands for rows without gaps. `length` is the number of bytes
// at `pixels`. The image is resized and cropped as in training, and is not used after the call.
//
// Allocates where an image has another size than the one before, else nothing.
int smalti_run_pixels(struct smalti_session *session,
                      const uint8_t *pixels,
                      size_t length,
                      size_t width,
                      size_t height,
                      size_t channels,
                      size_t stride);

// Runs the model on a camera's frame of `width` x `height` pixels in a format from SMALTI_RGB8 to SMALTI_BAYER_GRBG8: rows
// from top to bottom, without gaps. `length` is exactly the number of bytes of such a frame. Y, U and V are those of ITU-R
// BT.601 in limited range. The frame is resized and cropped as in training, and is not used after the call.
//
// Allocates as smalti_run_pixels. Frames in formats other than SMALTI_RGB8 and SMALTI_GREY8 become RGB first: they have at
// most 64 Mi pixels, and take 3 x width x height bytes besides what smalti_memory_bound says of an RGB image.
int smalti_run_frame(struct smalti_session *session,
                     const uint8_t *bytes,
                     size_t length,
                     int32_t format,
                     size_t width,
                     size_t height);

// Runs the model on `length` bytes: an image of the input's very size, height x width x channels. A model that takes
// floats gets them normalised. Allocates nothing.
int smalti_run_u8(struct smalti_session *session,
                  const uint8_t *values,
                  size_t length);

// Runs a model of form SMALTI_F32_NCHW on `length` finite floats, channels x height x width, normalised. Allocates
// nothing.
int smalti_run_f32(struct smalti_session *session,
                   const float *values,
                   size_t length);

// The last run's scores, one a class, not normalised. `length` is the number of classes.
int smalti_logits(struct smalti_session *session, float *logits, size_t length);

// The last run's embedding. `length` is that of smalti_embedding_length.
int smalti_embedding(struct smalti_session *session, float *embedding, size_t length);

// The last run's `k` most probable classes, most probable first; of equal ones the lower class first. `k` is at most the
// number of classes.
int smalti_top_k(struct smalti_session *session,
                 struct smalti_ranked *ranked,
                 size_t k);

// Reads the class bank of a model. The file is not used afterwards, and the model need not stay open.
//
// `options` may be null. A damaged file, or one of another model, is SMALTI_REFUSED. On success `*bank` is the bank, to be
// closed with smalti_bank_close; else it is null.
int smalti_bank_open(const struct smalti_model *model,
                     const char *path,
                     const struct smalti_learned_options *options,
                     struct smalti_bank **bank);

// As smalti_bank_open, of `length` bytes in memory. They are not used afterwards.
int smalti_bank_open_bytes(const struct smalti_model *model,
                           const uint8_t *bytes,
                           size_t length,
                           const struct smalti_learned_options *options,
                           struct smalti_bank **bank);

// Closes a bank; null is fine.
int smalti_bank_close(struct smalti_bank *bank);

// Number of classes: the model's own, or one ("unknown") where it gives nothing but an embedding, and the learned ones.
int smalti_bank_class_count(const struct smalti_bank *bank,
                            size_t *count);

// A class's label in UTF-8: first the model's own, in its order, then the learned ones. It stays where it is until the bank
// is closed.
int smalti_bank_label(const struct smalti_bank *bank,
                      size_t index,
                      const char **label);

// Bytes of heap that opening the bank and its answers take at most.
int smalti_bank_memory_bound(const struct smalti_bank *bank, size_t *bytes);

// The `k` most probable classes of the session's last run among all of the bank's, as smalti_top_k. Allocates nothing.
int smalti_bank_top_k(struct smalti_bank *bank,
                      struct smalti_session *session,
                      struct smalti_ranked *ranked,
                      size_t k);

// Reads the anomaly detector of a model, which need not stay open. Sessions whose images are scored are those of a model
// that was opened with `tokens` in its options.
//
// `options` may be null. A damaged file, or one of another model, is SMALTI_REFUSED. On success `*anomaly` is the
// detector, to be closed with smalti_anomaly_close; else it is null.
int smalti_anomaly_open(const struct smalti_model *model,
                        const char *path,
                        const struct smalti_learned_options *options,
                        struct smalti_anomaly **anomaly);

// As smalti_anomaly_open, of `length` bytes in memory. They are not used afterwards.
int smalti_anomaly_open_bytes(const struct smalti_model *model,
                              const uint8_t *bytes,
                              size_t length,
                              const struct smalti_learned_options *options,
                              struct smalti_anomaly **anomaly);

// Closes a detector; null is fine.
int smalti_anomaly_close(struct smalti_anomaly *anomaly);

// Rows and columns of the map.
int smalti_anomaly_grid(const struct smalti_anomaly *anomaly, size_t *rows, size_t *columns);

// Scores the image of the session's last run. `map` gets a value for each place of the image, row by row, above 1 where it
// is unusual; `length` is rows times columns, or 0 with a null `map` where none is wanted. Allocates nothing.
int smalti_anomaly_score(struct smalti_anomaly *anomaly,
                         struct smalti_session *session,
                         struct smalti_score *score,
                         float *map,
                         size_t length);

// Bytes of heap that opening the detector and its scores take at most.
int smalti_anomaly_memory_bound(const struct smalti_anomaly *anomaly, size_t *bytes);

// The library's version, as "0.1.0".
const char *smalti_version(void);

// What went wrong in the last call on this thread that did not return SMALTI_OK, in one line: what was found, what was
// expected. Empty before the first. Valid until the next such call on this thread.
const char *smalti_last_error(void);

// A code's name, as "SMALTI_BUSY"; "unknown code" for others. Valid for ever.
const char *smalti_code_name(int code);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SMALTI_H */
