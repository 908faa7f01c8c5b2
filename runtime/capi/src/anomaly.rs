//! Anomaly detectors: what looks unlike good images.

use std::ffi::{c_char, c_int};
use std::sync::Mutex;

use smalti_runtime::anomaly::{AnomalyDetector, Finding};

use crate::border::{self, Prefixed, Result, entry, usage};
use crate::handles::Table;
use crate::learned::{self, smalti_learned_options};
use crate::model::{self, file, smalti_model};
use crate::session::{copy, smalti_session, with_result};

/// An anomaly detector that `smalti-run anomaly fit` wrote, of one model. One thread at a time uses it; on others it is
/// SMALTI_BUSY.
pub struct smalti_anomaly {
    _opaque: (),
}

/// How unlike good images an image is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct smalti_score {
    /// sizeof(smalti_score); set it before the call.
    pub size: usize,
    /// Above 1 is unusual.
    pub score: f32,
    /// The largest value of the map: how unusual the most unusual place is.
    pub tokens: f32,
    /// How unusual the whole image is, on the same scale.
    pub embedding: f32,
    /// Zero.
    pub reserved: f32,
}

// SAFETY: as asked: the size first, and floats behind it, without gaps at the end.
unsafe impl Prefixed for smalti_score {}

/// A detector that C holds.
struct Held {
    detector: AnomalyDetector,
    finding: Mutex<Finding>,
}

static DETECTORS: Table<Held> = Table::new("anomaly detector", 3);

/// Takes a detector in; its handle.
fn keep(detector: AnomalyDetector) -> Result<*mut smalti_anomaly> {
    let finding = Mutex::new(detector.finding());
    DETECTORS.insert(Held { detector, finding })
}

/// Reads the anomaly detector of a model, which need not stay open. Sessions whose images are scored are those of a model
/// that was opened with `tokens` in its options.
///
/// `options` may be null. A damaged file, or one of another model, is SMALTI_REFUSED. On success `*anomaly` is the
/// detector, to be closed with smalti_anomaly_close; else it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_anomaly_open(
    model: *const smalti_model,
    path: *const c_char,
    options: *const smalti_learned_options,
    anomaly: *mut *mut smalti_anomaly,
) -> c_int {
    entry("smalti_anomaly_open", || {
        // SAFETY: what the header asks of callers.
        let (room, path, (trust, _)) = unsafe {
            let room = border::room(anomaly, "anomaly")?.write(std::ptr::null_mut());
            (room, border::text(path, "path")?, learned::trust(options)?)
        };
        *room = keep(AnomalyDetector::open(file(path)?, &model::find(model)?.model, &trust)?)?;
        Ok(())
    })
}

/// As smalti_anomaly_open, of `length` bytes in memory. They are not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_anomaly_open_bytes(
    model: *const smalti_model,
    bytes: *const u8,
    length: usize,
    options: *const smalti_learned_options,
    anomaly: *mut *mut smalti_anomaly,
) -> c_int {
    entry("smalti_anomaly_open_bytes", || {
        // SAFETY: what the header asks of callers.
        let (room, bytes, (trust, signature)) = unsafe {
            let room = border::room(anomaly, "anomaly")?.write(std::ptr::null_mut());
            (room, border::slice(bytes, length, "bytes")?, learned::trust(options)?)
        };
        trust.check(bytes, signature)?;
        *room = keep(AnomalyDetector::from_bytes(bytes, &model::find(model)?.model)?)?;
        Ok(())
    })
}

/// Closes a detector; null is fine.
#[unsafe(no_mangle)]
pub extern "C" fn smalti_anomaly_close(anomaly: *mut smalti_anomaly) -> c_int {
    entry("smalti_anomaly_close", || {
        if !anomaly.is_null() {
            DETECTORS.remove(anomaly)?;
        }
        Ok(())
    })
}

/// Rows and columns of the map.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_anomaly_grid(
    anomaly: *const smalti_anomaly,
    rows: *mut usize,
    columns: *mut usize,
) -> c_int {
    entry("smalti_anomaly_grid", || {
        // SAFETY: what the header asks of callers.
        let (rows, columns) = unsafe { (border::room(rows, "rows")?, border::room(columns, "columns")?) };
        let [high, wide] = DETECTORS.get(anomaly)?.detector.grid();
        rows.write(high);
        columns.write(wide);
        Ok(())
    })
}

/// Scores the image of the session's last run. `map` gets a value for each place of the image, row by row, above 1 where it
/// is unusual; `length` is rows times columns, or 0 with a null `map` where none is wanted. Allocates nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_anomaly_score(
    anomaly: *mut smalti_anomaly,
    session: *mut smalti_session,
    score: *mut smalti_score,
    map: *mut f32,
    length: usize,
) -> c_int {
    entry("smalti_anomaly_score", || {
        let held = DETECTORS.get(anomaly)?;
        if map.is_null() && length > 0 {
            return Err(usage("`map` is null and its length is not 0"));
        }
        let mut finding = learned::buffers(&held.finding, "anomaly detector")?;
        with_result(session, |model, output| Ok(held.detector.score_into(model, output, &mut finding)?))?;
        let Finding { score: found, tokens, embedding, .. } = *finding;
        let found = smalti_score { size: 0, score: found, tokens, embedding, reserved: 0.0 };
        // SAFETY: what the header asks of callers.
        unsafe {
            if !map.is_null() {
                copy(&finding.map, border::slice_mut(map, length, "map")?)?;
            }
            border::write(score, &found, "score")
        }
    })
}

/// Bytes of heap that opening the detector and its scores take at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalti_anomaly_memory_bound(
    anomaly: *const smalti_anomaly,
    bytes: *mut usize,
) -> c_int {
    entry("smalti_anomaly_memory_bound", || {
        // SAFETY: what the header asks of callers.
        let room = unsafe { border::room(bytes, "bytes") }?;
        let held = DETECTORS.get(anomaly)?;
        room.write(held.detector.memory_bound() + learned::handle_bytes::<Held>(&[]));
        Ok(())
    })
}
