//! Sessions: one thread's buffers around a model, and the results of its last run.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use smalti_runtime::models::image::{PixelFormat, View};
use smalti_runtime::{Error, Model, Output, Session};

use crate::border::{self, Failure, Result, entry, usage};
use crate::codes::{SMALTI_BUSY, SMALTI_DATA};
use crate::handles::Table;
use crate::model::{self, Opened, smalti_model};

/// Red, green, blue.
pub const SMALTI_RGB8: i32 = 1;
/// Blue, green, red.
pub const SMALTI_BGR8: i32 = 2;
/// Grey.
pub const SMALTI_GREY8: i32 = 3;
/// 16 bits, the lower byte first: 5 of red (the upper ones), 6 of green, 5 of blue.
pub const SMALTI_RGB565: i32 = 4;
/// Y, U, Y, V for two pixels of a row; the width is even.
pub const SMALTI_YUYV: i32 = 5;
/// U, Y, V, Y for two pixels of a row; the width is even.
pub const SMALTI_UYVY: i32 = 6;
/// All Y, then U and V in turn, one of each for 2 x 2 pixels; both sides are even.
pub const SMALTI_NV12: i32 = 7;
/// As SMALTI_NV12, V before U.
pub const SMALTI_NV21: i32 = 8;
/// All Y, then all U, then all V, one of each for 2 x 2 pixels; both sides are even.
pub const SMALTI_I420: i32 = 9;
/// One colour a pixel, rows of red and green and rows of green and blue in turn; both sides are even.
pub const SMALTI_BAYER_RGGB8: i32 = 10;
/// As SMALTI_BAYER_RGGB8, blue and green above green and red.
pub const SMALTI_BAYER_BGGR8: i32 = 11;
/// As SMALTI_BAYER_RGGB8, green and blue above red and green.
pub const SMALTI_BAYER_GBRG8: i32 = 12;
/// As SMALTI_BAYER_RGGB8, green and red above blue and green.
pub const SMALTI_BAYER_GRBG8: i32 = 13;

/// A session: the memory of one run at a time. Each thread has its own; one that is in use elsewhere is SMALTI_BUSY.
pub struct smalti_session {
    _opaque: (),
}

/// A class and its probability.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct smalti_ranked {
    /// The class's number.
    pub index: usize,
    /// Its probability (softmax of the logits).
    pub probability: f32,
    /// Its label, as from smalti_label.
    pub label: *const c_char,
}

/// A session that C holds.
struct Held {
    opened: Arc<Opened>,
    state: Mutex<State>,
}

struct State {
    session: Session,
    output: Output,
    /// The classes of `output` by probability.
    ranked: Vec<(usize, f32)>,
    /// Whether `output` is that of a whole run.
    is_done: bool,
}

static SESSIONS: Table<Held> = Table::new("session", 0);

impl Held {
    /// The state, unless a thread is at it.
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            // A panic has passed; every run starts with all that it needs.
            Err(TryLockError::Poisoned(state)) => Ok(state.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(Failure { code: SMALTI_BUSY, message: "another thread runs this session".into() })
            }
        }
    }

    /// The state with the results of a run.
    fn done(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state()?;
        if !state.is_done {
            return Err(usage("no result: the session's last run failed, or there was none"));
        }
        Ok(state)
    }

    /// Runs the model and ranks the classes.
    fn run(&self, run: impl FnOnce(&mut Session, &mut Output) -> Result<(), Error>) -> Result<()> {
        let mut state = self.state()?;
        let State { session, output, ranked, is_done } = &mut *state;
        *is_done = false;
        #[cfg(feature = "panic-injection")]
        crate::injection::panic_if_asked("run");
        run(session, output)?;
        session.model().rank_into(&output.logits, ranked);
        *is_done = true;
        Ok(())
    }
}

/// Gives the model and the result of a session's last run to `work`.
pub(crate) fn with_result<T>(
    session: *mut smalti_session,
    work: impl FnOnce(&Model, &Output) -> Result<T>,
) -> Result<T> {
    let held = SESSIONS.get(session)?;
    let state = held.done()?;
    work(&held.opened.model, &state.output)
}

/// Makes a session. The calling thread alone computes where `threads` is 0 or 1; otherwise `threads` - 1 helpers, at
/// most 255, live as long as the session. The results are the same, to the last bit.
///
/// On success `*session` is the session, to be freed with smalti_session_free; else it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_session_new(
    model: *const smalti_model,
    threads: usize,
    session: *mut *mut smalti_session,
) -> c_int {
    entry("smalti_session_new", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(session, "session") }?.write(std::ptr::null_mut());
        let opened = model::find(model)?;
        let output = opened.model.output();
        let ranked = Vec::with_capacity(opened.labels.len());
        let session = opened.model.session_with_threads(threads.max(1))?;
        let state = Mutex::new(State { session, output, ranked, is_done: false });
        *room = SESSIONS.insert(Held { opened, state })?;
        Ok(())
    })
}

/// Frees a session; null is fine. A run of it on another thread goes on to its end.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_session_free(session: *mut smalti_session) -> c_int {
    entry("smalti_session_free", || {
        if !session.is_null() {
            SESSIONS.remove(session)?;
        }
        Ok(())
    })
}

/// Runs the model on an image of any size: `height` rows of `width` pixels of `channels` bytes, 1 (grey) or 3 (RGB).
/// Each row begins `stride` bytes after the one before; 0 stands for rows without gaps. `length` is the number of bytes
/// at `pixels`. The image is resized and cropped as in training, and is not used after the call.
///
/// Allocates where an image has another size than the one before, else nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_run_pixels(
    session: *mut smalti_session,
    pixels: *const u8,
    length: usize,
    width: usize,
    height: usize,
    channels: usize,
    stride: usize,
) -> c_int {
    entry("smalti_run_pixels", || {
        let held = SESSIONS.get(session)?;
        // SAFETY: what the header asks of callers.
        let pixels = unsafe { border::slice(pixels, length, "pixels") }?;
        let stride = if stride == 0 { width.saturating_mul(channels) } else { stride };
        let view = View::new(width, height, channels, stride, pixels)
            .map_err(|error| Failure { code: SMALTI_DATA, message: error.to_string() })?;
        held.run(|session, output| session.run_image_into(view, output))
    })
}

/// Runs the model on a camera's frame of `width` x `height` pixels in a format from SMALTI_RGB8 to SMALTI_BAYER_GRBG8: rows
/// from top to bottom, without gaps. `length` is exactly the number of bytes of such a frame. Y, U and V are those of ITU-R
/// BT.601 in limited range. The frame is resized and cropped as in training, and is not used after the call.
///
/// Allocates as smalti_run_pixels. Frames in formats other than SMALTI_RGB8 and SMALTI_GREY8 become RGB first: they have at
/// most 64 Mi pixels, and take 3 x width x height bytes besides what smalti_memory_bound says of an RGB image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_run_frame(
    session: *mut smalti_session,
    bytes: *const u8,
    length: usize,
    format: i32,
    width: usize,
    height: usize,
) -> c_int {
    entry("smalti_run_frame", || {
        let held = SESSIONS.get(session)?;
        // SAFETY: what the header asks of callers.
        let bytes = unsafe { border::slice(bytes, length, "bytes") }?;
        let format = pixel_format(format)?;
        held.run(|session, output| session.run_frame_into(format, width, height, bytes, output))
    })
}

/// The format of a number.
fn pixel_format(number: i32) -> Result<PixelFormat> {
    Ok(match number {
        SMALTI_RGB8 => PixelFormat::Rgb8,
        SMALTI_BGR8 => PixelFormat::Bgr8,
        SMALTI_GREY8 => PixelFormat::Grey8,
        SMALTI_RGB565 => PixelFormat::Rgb565,
        SMALTI_YUYV => PixelFormat::Yuyv,
        SMALTI_UYVY => PixelFormat::Uyvy,
        SMALTI_NV12 => PixelFormat::Nv12,
        SMALTI_NV21 => PixelFormat::Nv21,
        SMALTI_I420 => PixelFormat::I420,
        SMALTI_BAYER_RGGB8 => PixelFormat::BayerRggb8,
        SMALTI_BAYER_BGGR8 => PixelFormat::BayerBggr8,
        SMALTI_BAYER_GBRG8 => PixelFormat::BayerGbrg8,
        SMALTI_BAYER_GRBG8 => PixelFormat::BayerGrbg8,
        other => return Err(usage(format!("format {other}: expected SMALTI_RGB8 to SMALTI_BAYER_GRBG8"))),
    })
}

/// Runs the model on `length` bytes: an image of the input's very size, height x width x channels. A model that takes
/// floats gets them normalised. Allocates nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_run_u8(
    session: *mut smalti_session,
    values: *const u8,
    length: usize,
) -> c_int {
    entry("smalti_run_u8", || {
        let held = SESSIONS.get(session)?;
        // SAFETY: what the header asks of callers.
        let values = unsafe { border::slice(values, length, "values") }?;
        held.run(|session, output| session.run_pixels_into(values, output))
    })
}

/// Runs a model of form SMALTI_F32_NCHW on `length` finite floats, channels x height x width, normalised. Allocates
/// nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_run_f32(
    session: *mut smalti_session,
    values: *const f32,
    length: usize,
) -> c_int {
    entry("smalti_run_f32", || {
        let held = SESSIONS.get(session)?;
        // SAFETY: what the header asks of callers.
        let values = unsafe { border::slice(values, length, "values") }?;
        held.run(|session, output| session.run_floats_into(values, output))
    })
}

/// The last run's scores, one a class, not normalised. `length` is the number of classes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_logits(
    session: *mut smalti_session,
    logits: *mut f32,
    length: usize,
) -> c_int {
    entry("smalti_logits", || {
        let held = SESSIONS.get(session)?;
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::slice_mut(logits, length, "logits") }?;
        copy(&held.done()?.output.logits, room)
    })
}

/// The last run's embedding. `length` is that of smalti_embedding_length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_embedding(
    session: *mut smalti_session,
    embedding: *mut f32,
    length: usize,
) -> c_int {
    entry("smalti_embedding", || {
        let held = SESSIONS.get(session)?;
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::slice_mut(embedding, length, "embedding") }?;
        let state = held.done()?;
        let embedding =
            state.output.embedding.as_deref().ok_or_else(|| usage("the model gives no embedding"))?;
        copy(embedding, room)
    })
}

/// The last run's `k` most probable classes, most probable first; of equal ones the lower class first. `k` is at most the
/// number of classes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_top_k(
    session: *mut smalti_session,
    ranked: *mut smalti_ranked,
    k: usize,
) -> c_int {
    entry("smalti_top_k", || {
        let held = SESSIONS.get(session)?;
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::slice_mut(ranked, k, "ranked") }?;
        let (state, labels) = (held.done()?, &held.opened.labels);
        if k > labels.len() {
            return Err(usage(format!("the best {k} of {} classes", labels.len())));
        }
        for (room, &(index, probability)) in room.iter_mut().zip(&state.ranked) {
            let label = labels.get(index).map_or(c"".as_ptr(), |label| label.as_ptr());
            room.write(smalti_ranked { index, probability, label });
        }
        Ok(())
    })
}

/// Copies values into room for as many.
pub(crate) fn copy(values: &[f32], room: &mut [MaybeUninit<f32>]) -> Result<()> {
    if values.len() != room.len() {
        return Err(usage(format!("room for {} values where there are {}", room.len(), values.len())));
    }
    room.iter_mut().zip(values).for_each(|(room, &value)| {
        room.write(value);
    });
    Ok(())
}
