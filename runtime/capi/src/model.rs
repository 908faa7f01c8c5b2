//! Models: opening, what they are, checking them.

use std::ffi::{CString, OsStr, c_char, c_int};
use std::path::Path;
use std::sync::Arc;

use smalti_runtime::gate::{Form, Limits};
use smalti_runtime::models::Preprocess;
use smalti_runtime::models::preprocess::FitMode;
use smalti_runtime::models::resize::Interpolation;
use smalti_runtime::tokens::TokenSource;
use smalti_runtime::trust::{PublicKey, Trust, Version};
use smalti_runtime::{Model, OpenOptions, memory, selftest};

use crate::border::{self, Failure, Prefixed, Result, entry, usage};
use crate::handles::Table;

/// A model. Any number of threads may use one at the same time.
pub struct smalti_model {
    _opaque: (),
}

/// As the file says.
pub const SMALTI_FIT_OF_FILE: i32 = 0;
/// The short side becomes the input's, then the centre is cut out.
pub const SMALTI_FIT_CROP: i32 = 1;
/// Both sides become the input's, whatever the shape was.
pub const SMALTI_FIT_SQUASH: i32 = 2;

/// Cubic filter, as Pillow's BICUBIC.
pub const SMALTI_BICUBIC: i32 = 0;
/// Triangle filter, as Pillow's BILINEAR.
pub const SMALTI_BILINEAR: i32 = 1;

/// uint8 [1, height, width, channels]: pixels as they are.
pub const SMALTI_U8_NHWC: i32 = 1;
/// float32 [1, channels, height, width]: pixels less mean, by standard deviation, on the scale 0 to 1.
pub const SMALTI_F32_NCHW: i32 = 2;

/// How to open a model. Fill it with zeros and set the size: what is zero is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct smalti_options {
    /// sizeof(smalti_options).
    pub size: usize,
    /// Most bytes of the file; default 2 GiB.
    pub max_file_bytes: u64,
    /// Most weights; default 512 Mi.
    pub max_weights: u64,
    /// Most values between layers at one time; default 256 Mi.
    pub max_activations: u64,
    /// Most multiply-adds of a run; default 250 G, some ten seconds.
    pub max_work: u64,
    /// SMALTI_FIT_...: other than zero where the file does not say how to prepare images, or says it wrong. Then the
    /// three below are read.
    pub fit: i32,
    /// SMALTI_BICUBIC or SMALTI_BILINEAR.
    pub interpolation: i32,
    /// Mean of each channel on the scale 0 to 1; of grey images the first alone.
    pub mean: [f32; 3],
    /// Standard deviation of each channel on the scale 0 to 1.
    pub std: [f32; 3],
    /// Open only what this key signed with minisign: the key as `minisign -G` prints it, or the name of its file; null
    /// for no check. smalti_open reads the signature from the file of the model's name with .minisig behind it. A model
    /// without a signature, or with another, is SMALTI_REFUSED.
    pub pubkey: *const c_char,
    /// For smalti_open_bytes with a key: the text of the signature file.
    pub signature: *const c_char,
    /// Open no model of a lower version ("1", "2.10"); null for any.
    pub min_version: *const c_char,
    /// For smalti_anomaly: the value of the graph whose tokens runs keep, by its name; "" for the usual one, null for none.
    pub tokens: *const c_char,
}

// SAFETY: as asked: the size first, and integers, floats and raw pointers behind it, without gaps at the end.
unsafe impl Prefixed for smalti_options {}

/// The image that a model takes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct smalti_input {
    /// sizeof(smalti_input); set it before the call.
    pub size: usize,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// SMALTI_U8_NHWC or SMALTI_F32_NCHW.
    pub form: i32,
    /// 1 where it is known how to prepare images of any size (smalti_run_pixels), else 0.
    pub prepares: i32,
}

// SAFETY: as asked: the size first, and integers behind it.
unsafe impl Prefixed for smalti_input {}

/// A model that C holds.
pub(crate) struct Opened {
    pub(crate) model: Model,
    pub(crate) labels: Vec<CString>,
}

static MODELS: Table<Opened> = Table::new("model", 1);

/// The model of a handle.
pub(crate) fn find(model: *const smalti_model) -> Result<Arc<Opened>> {
    MODELS.get(model)
}

impl smalti_options {
    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        let set = |limit: &mut u64, value: u64| *limit = if value == 0 { *limit } else { value };
        set(&mut limits.file_bytes, self.max_file_bytes);
        set(&mut limits.weights, self.max_weights);
        set(&mut limits.live, self.max_activations);
        set(&mut limits.work, self.max_work);
        limits
    }

    fn preprocess(&self, model: &Model) -> Result<Option<Preprocess>> {
        let fit = match self.fit {
            SMALTI_FIT_OF_FILE => return Ok(None),
            SMALTI_FIT_CROP => FitMode::Crop,
            SMALTI_FIT_SQUASH => FitMode::Squash,
            other => {
                return Err(usage(format!("fit {other}: expected SMALTI_FIT_CROP or SMALTI_FIT_SQUASH")));
            }
        };
        let interpolation = match self.interpolation {
            SMALTI_BICUBIC => Interpolation::Bicubic,
            SMALTI_BILINEAR => Interpolation::Bilinear,
            other => {
                let expected = "SMALTI_BICUBIC or SMALTI_BILINEAR";
                return Err(usage(format!("interpolation {other}: expected {expected}")));
            }
        };
        let channels = model.input().channels;
        let [mean, std] = [self.mean, self.std].map(|values| values.into_iter().take(channels).collect());
        let img_size = model.input().width.max(model.input().height);
        Ok(Some(Preprocess { img_size, channels, fit, resize: None, interpolation, mean, std }))
    }

    /// What a model must show.
    ///
    /// # Safety
    /// Unless null, `pubkey` and `min_version` point to text with a zero at its end.
    unsafe fn trust(&self) -> Result<Trust> {
        // SAFETY: the caller's promise.
        let (key, version) = unsafe {
            (optional(self.pubkey, "options.pubkey")?, optional(self.min_version, "options.min_version")?)
        };
        let version = version.map(|text| {
            Version::parse(text)
                .ok_or_else(|| usage(format!("`options.min_version` is `{text}`: expected numbers and dots")))
        });
        Ok(Trust { key: key.map(PublicKey::named).transpose()?, min_version: version.transpose()? })
    }

    /// All that opening goes by.
    ///
    /// # Safety
    /// As for [`smalti_options::trust`], and `tokens` alike.
    unsafe fn how(&self) -> Result<OpenOptions> {
        // SAFETY: the caller's promise.
        let (trust, tokens) = unsafe { (self.trust()?, optional(self.tokens, "options.tokens")?) };
        let tokens = tokens.map(|name| match name {
            "" => TokenSource::Default,
            name => TokenSource::Value(name.into()),
        });
        Ok(OpenOptions { limits: self.limits(), trust, tokens, ..OpenOptions::default() })
    }
}

/// C's text, which may be null.
///
/// # Safety
/// As for [`border::text`].
pub(crate) unsafe fn optional<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { border::text(pointer, name) }?;
    text.to_str().map(Some).map_err(|_| usage(format!("`{name}` is not UTF-8")))
}

/// Options as C gives them, or the defaults for null.
///
/// # Safety
/// As for [`border::read`], but null is allowed.
unsafe fn options(options: *const smalti_options) -> Result<Option<smalti_options>> {
    // SAFETY: the caller's promise.
    (!options.is_null()).then(|| unsafe { border::read(options, "options") }).transpose()
}

/// Labels as C reads them.
pub(crate) fn c_texts(labels: &[String]) -> Vec<CString> {
    labels.iter().map(|label| CString::new(label.replace('\0', " ")).unwrap_or_default()).collect()
}

/// Takes a model in; its handle.
fn keep(options: Option<&smalti_options>, model: Model) -> Result<*mut smalti_model> {
    let model = match options.map(|options| options.preprocess(&model)).transpose()?.flatten() {
        Some(preprocess) => model.with_preprocess(preprocess)?,
        None => model,
    };
    let labels = c_texts(model.labels());
    MODELS.insert(Opened { model, labels })
}

/// Reads, checks and prepares a model file. The file is not used afterwards.
///
/// `options` may be null. On success `*model` is the model, to be closed with smalti_close; else it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_open(
    path: *const c_char,
    options: *const smalti_options,
    model: *mut *mut smalti_model,
) -> c_int {
    entry("smalti_open", || {
        // SAFETY: what the header asks of callers.
        let (room, path, options) = unsafe {
            let room = border::room(model, "model")?.write(std::ptr::null_mut());
            (room, border::text(path, "path")?, self::options(options)?)
        };
        // SAFETY: what the header asks of callers.
        let how = options.map(|options| unsafe { options.how() }).transpose()?.unwrap_or_default();
        *room = keep(options.as_ref(), Model::open_with(file(path)?, &how)?)?;
        Ok(())
    })
}

/// A path as the system has it.
#[cfg(unix)]
pub(crate) fn file(path: &std::ffi::CStr) -> Result<&Path> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Path::new(OsStr::from_bytes(path.to_bytes())))
}

/// A path in UTF-8.
#[cfg(not(unix))]
pub(crate) fn file(path: &std::ffi::CStr) -> Result<&Path> {
    let text = path.to_str().map_err(|_| usage("`path` is not UTF-8"))?;
    Ok(Path::new(OsStr::new(text)))
}

/// As smalti_open, of `length` bytes in memory. They are not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_open_bytes(
    bytes: *const u8,
    length: usize,
    options: *const smalti_options,
    model: *mut *mut smalti_model,
) -> c_int {
    entry("smalti_open_bytes", || {
        // SAFETY: what the header asks of callers.
        let (room, bytes, options) = unsafe {
            let room = border::room(model, "model")?.write(std::ptr::null_mut());
            (room, border::slice(bytes, length, "bytes")?, self::options(options)?)
        };
        // SAFETY: what the header asks of callers.
        let (how, signature) = unsafe {
            let how = options.map(|options| options.how()).transpose()?.unwrap_or_default();
            let signature = options.map(|options| optional(options.signature, "options.signature"));
            (how, signature.transpose()?.flatten())
        };
        how.trust.check(bytes, signature)?;
        let trust = Trust { key: None, ..how.trust };
        let model = Model::from_bytes_with(bytes, &OpenOptions { trust, ..how })?;
        *room = keep(options.as_ref(), model)?;
        Ok(())
    })
}

/// Closes a model; null is fine. Its sessions live on, and so do its labels as long as one of them does.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_close(model: *mut smalti_model) -> c_int {
    entry("smalti_close", || {
        if !model.is_null() {
            MODELS.remove(model)?;
        }
        Ok(())
    })
}

/// The image that a model takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_input_info(model: *const smalti_model, input: *mut smalti_input) -> c_int {
    entry("smalti_input_info", || {
        let opened = find(model)?;
        let of = opened.model.input();
        let form = match of.form {
            Form::U8Nhwc => SMALTI_U8_NHWC,
            Form::F32Nchw => SMALTI_F32_NCHW,
        };
        let (width, height, channels) = (of.width, of.height, of.channels);
        let prepares = opened.model.preprocess().is_some().into();
        let info = smalti_input { size: 0, width, height, channels, form, prepares };
        // SAFETY: what the header asks of callers.
        unsafe { border::write(input, &info, "input") }
    })
}

/// Number of classes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_class_count(model: *const smalti_model, count: *mut usize) -> c_int {
    entry("smalti_class_count", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(count, "count") }?;
        room.write(find(model)?.labels.len());
        Ok(())
    })
}

/// A class's label in UTF-8: the file's, or the class's number in digits. It stays where it is until the model and all
/// its sessions are closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_label(
    model: *const smalti_model,
    index: usize,
    label: *mut *const c_char,
) -> c_int {
    entry("smalti_label", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(label, "label") }?.write(std::ptr::null());
        let opened = find(model)?;
        let count = opened.labels.len();
        let label = opened.labels.get(index).ok_or_else(|| usage(format!("class {index} of {count}")))?;
        *room = label.as_ptr();
        Ok(())
    })
}

/// Values of the embedding, the vector in front of the classifier; 0 where the model does not give it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_embedding_length(model: *const smalti_model, length: *mut usize) -> c_int {
    entry("smalti_embedding_length", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(length, "length") }?;
        room.write(find(model)?.model.embedding_len());
        Ok(())
    })
}

/// Bytes of heap that opening the model and running one session on that many threads (0 counts as 1) take at most, all
/// together. Each further session takes less. The program's own code, stacks and what the system keeps for threads come
/// on top.
///
/// `width`, `height`, `channels` are those of the largest image for smalti_run_pixels, or all 0 where there are only
/// tensors. For a model that our own kernels do not run (`smalti-run inspect` says so) it is a rough estimate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_memory_bound(
    model: *const smalti_model,
    threads: usize,
    width: usize,
    height: usize,
    channels: usize,
    bytes: *mut usize,
) -> c_int {
    entry("smalti_memory_bound", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(bytes, "bytes") }?;
        let opened = find(model)?;
        let image = [width, height, channels];
        let image = (image != [0; 3]).then_some(image);
        let bound = memory::bound(&opened.model, threads.max(1), image)?;
        room.write(usize::try_from(bound).unwrap_or(usize::MAX));
        Ok(())
    })
}

/// Runs the test vectors in the model file: does the model compute here what it computed where it was made? Takes a
/// session's memory while it runs. SMALTI_FAILED if not, or if there are none.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_selftest(model: *const smalti_model) -> c_int {
    entry("smalti_selftest", || {
        let vectors = selftest::run(&find(model)?.model)?;
        selftest::judge(&vectors).map_err(Failure::from)
    })
}
