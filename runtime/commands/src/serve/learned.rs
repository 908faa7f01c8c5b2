//! What was learned beside the model: the class bank, which is taught while the server runs, and the anomaly detector.

use std::path::{Path, PathBuf};
use std::slice;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use smalti_runtime::anomaly::AnomalyDetector;
use smalti_runtime::bank::ClassBank;
use smalti_runtime::files::Staged;
use smalti_runtime::trust::Trust;
use smalti_runtime::{Error, Model, Output};

use super::lock;
use super::route::Route;
use crate::learn;

/// What stands beside a model.
#[derive(Default)]
pub(super) struct Learned {
    pub(super) bank: Option<Lessons>,
    pub(super) detector: Option<AnomalyDetector>,
}

impl Learned {
    /// Why a route is not offered, if it is not.
    pub(super) fn lacks(&self, route: Route) -> Option<&'static str> {
        let bank = self.bank.as_ref();
        match route {
            Route::Learn if bank.is_none() => Some("no class bank: start the server with --bank FILE"),
            Route::Learn if bank.is_some_and(Lessons::is_signed) => {
                Some("a class bank that has to be signed (--pubkey) is not taught here")
            }
            Route::Anomaly | Route::AnomalyMap if self.detector.is_none() => {
                Some("no anomaly detector: start the server with --anomaly FILE")
            }
            _ => None,
        }
    }
}

/// A class bank and what it was taught since the server started.
pub(super) struct Lessons {
    place: PathBuf,
    trust: Trust,
    /// Held from reading the file until it is written.
    file: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    bank: Arc<ClassBank>,
    /// The class of each image that was added, the last one last.
    added: Vec<String>,
}

impl Lessons {
    /// The bank in a file, or a new one for that place.
    ///
    /// # Errors
    /// What reading a bank gives; [`Error::Io`] where there is none and none can be written.
    pub(super) fn open(place: &Path, model: &Model, trust: Trust) -> Result<Lessons, Error> {
        if !place.exists() {
            Staged::probe(place)?;
        }
        let bank = Arc::new(learn::open_or_new(place, model, &trust)?);
        let state = Mutex::new(State { bank, added: Vec::new() });
        Ok(Lessons { place: place.to_owned(), trust, file: Mutex::new(()), state })
    }

    /// The bank as it is now.
    pub(super) fn bank(&self) -> Arc<ClassBank> {
        Arc::clone(&lock(&self.state).bank)
    }

    /// Adds an image, given by the model's answer to it, and saves the bank.
    ///
    /// # Errors
    /// Those of adding and of saving. The bank is then what it was, in memory as in the file.
    pub(super) fn teach(&self, class: &str, model: &Model, output: &Output) -> Result<Value, Error> {
        self.change(model, |bank, added| {
            let count = bank.add(class, model, slice::from_ref(output))?;
            if count > 0 {
                added.push(class.to_owned());
            }
            Ok(json!({ "class": class, "added": count, "failed": 0 }))
        })
    }

    /// Takes back the image that was taught last since the server started; none if there is none.
    ///
    /// # Errors
    /// As [`Lessons::teach`].
    pub(super) fn undo(&self, model: &Model) -> Result<Option<Value>, Error> {
        self.change(model, |bank, added| {
            let Some(class) = added.pop() else { return Ok(None) };
            // Another program may have removed the class.
            let removed = usize::from(bank.is_learned(&class));
            if removed > 0 {
                bank.remove_last(&class)?;
            }
            Ok(Some(json!({ "class": class, "removed": removed })))
        })
    }

    /// The bank as `learn list --json` shows it, and whether there is something to take back.
    pub(super) fn as_json(&self, more: Value) -> Value {
        let state = lock(&self.state);
        let mut object = learn::as_json(&state.bank, more);
        if let Value::Object(object) = &mut object {
            object.insert("can_undo".into(), (!state.added.is_empty()).into());
        }
        object
    }

    fn is_signed(&self) -> bool {
        self.trust.key.is_some()
    }

    /// Reads the bank, which other programs may have changed, changes it, saves it, and lets it answer from then on.
    fn change<T>(
        &self,
        model: &Model,
        change: impl FnOnce(&mut ClassBank, &mut Vec<String>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _alone = lock(&self.file);
        let mut bank = learn::open_or_new(&self.place, model, &self.trust)?;
        let mut added = lock(&self.state).added.clone();
        let before = added.len();
        let done = change(&mut bank, &mut added)?;
        if added.len() != before {
            bank.save(&self.place)?;
        }
        *lock(&self.state) = State { bank: Arc::new(bank), added };
        Ok(done)
    }
}
