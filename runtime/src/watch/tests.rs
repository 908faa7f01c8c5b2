//! Good and bad models in the place of a running one.

use std::fs;

use prost::Message;
use smalti_models::ModelRecord;
use smalti_models::contract::Golden;
use smalti_models::onnx::{ModelProto, StringStringEntryProto};

use super::*;
use crate::trust::PublicKey;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn colours() -> Vec<u8> {
    fs::read(fixture("models/colours_u8.onnx")).unwrap()
}

/// The test model with other weights and another version, and a record that fits them.
fn variant(factor: f32, version: &str) -> Vec<u8> {
    let mut proto = ModelProto::decode(&colours()[..]).unwrap();
    for weight in &mut proto.graph.as_mut().unwrap().initializer {
        if weight.name == "head.weight" {
            weight.edit_raw(|raw| {
                for bytes in raw.as_chunks_mut::<4>().0 {
                    *bytes = (f32::from_le_bytes(*bytes) * factor).to_le_bytes();
                }
            });
        }
    }
    let model = Model::from_bytes(&proto.encode_to_vec()).unwrap();
    let mut session = model.session().unwrap();
    let mut record = model.record().unwrap().clone();
    for golden in &mut record.golden {
        let image = golden.image(model.input().width, model.input().channels).unwrap();
        let output = session.run_pixels(image.data()).unwrap();
        *golden = Golden::new(golden.pattern, &image, output.logits);
    }
    record.version = version.into();
    record.weights_sha256 = inspect::weights_sha256(&proto);
    with_record(proto, &record)
}

fn with_record(mut proto: ModelProto, record: &ModelRecord) -> Vec<u8> {
    let entry = |(key, value)| StringStringEntryProto { key, value };
    proto.metadata_props = record.to_metadata().into_iter().map(entry).collect();
    proto.encode_to_vec()
}

/// A variant whose record is changed.
fn edited(edit: impl Fn(&mut ModelRecord)) -> Vec<u8> {
    let bytes = variant(0.5, "9");
    let mut record = Model::from_bytes(&bytes).unwrap().record().unwrap().clone();
    edit(&mut record);
    with_record(ModelProto::decode(&bytes[..]).unwrap(), &record)
}

/// A folder with a model in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new(model: &[u8]) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.put(model);
        place
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("model.onnx")
    }

    /// Replaces the model in one step.
    fn put(&self, model: &[u8]) {
        let new = self.0.path().join("new");
        fs::write(&new, model).unwrap();
        fs::rename(new, self.model()).unwrap();
    }

    fn watcher(&self, trust: Trust) -> ModelWatcher {
        ModelWatcher::open(
            self.model(),
            WatchOptions { open: OpenOptions { trust, ..OpenOptions::default() }, ..WatchOptions::default() },
        )
        .unwrap()
        .0
    }
}

/// What the model says of an image in one colour.
fn logits(session: &mut Session) -> Vec<f32> {
    session.run_pixels(&[200; 192]).unwrap().logits
}

fn logits_of(bytes: &[u8]) -> Vec<f32> {
    logits(&mut Model::from_bytes(bytes).unwrap().session().unwrap())
}

/// Looks until something is found, at least as often as settles any change.
fn look_well(watcher: &mut ModelWatcher) -> Option<Result<Session>> {
    let found = watcher.poll();
    std::thread::sleep(STEP);
    found.or_else(|| watcher.poll()).or_else(|| watcher.poll())
}

#[test]
fn a_new_model_takes_over_once() {
    let (old, new) = (variant(1.0, "1"), variant(0.5, "1.1"));
    let place = Place::new(&old);
    let mut watcher = place.watcher(Trust::default());
    assert!(look_well(&mut watcher).is_none());
    place.put(&new);
    let mut session = look_well(&mut watcher).unwrap().unwrap();
    assert_eq!(logits(&mut session), logits_of(&new));
    assert_ne!(logits_of(&new), logits_of(&old));
    assert!(look_well(&mut watcher).is_none());
    // The same content in another file is no news.
    place.put(&new);
    assert!(look_well(&mut watcher).is_none());
    // Nor is no file at all.
    fs::remove_file(place.model()).unwrap();
    assert!(look_well(&mut watcher).is_none());
}

#[test]
fn what_is_worse_is_refused_once_and_a_better_one_still_comes() {
    let running = variant(1.0, "2");
    let place = Place::new(&running);
    let mut watcher = place.watcher(Trust::default());
    let mut weights = ModelProto::decode(&variant(0.5, "9")[..]).unwrap();
    for weight in &mut weights.graph.as_mut().unwrap().initializer {
        if weight.name == "head.bias" {
            weight.edit_raw(|raw| raw[3] ^= 0x80);
        }
    }
    let torn = variant(0.5, "9");
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty", Vec::new(), "model refused"),
        ("half a file", torn[..torn.len() / 2].to_vec(), "model refused"),
        ("an older version", variant(0.5, "1.9"), "version"),
        ("no version to compare", variant(0.5, "later"), "version"),
        ("other weights than recorded", weights.encode_to_vec(), "weights"),
        ("a self-test that fails", edited(|r| r.golden[0].logits[0] += 1.0), "selftest"),
        ("no self-test", edited(|r| r.golden.clear()), "selftest"),
        ("other shapes", fs::read(fixture("models/colours_f32.onnx")).unwrap(), "metadata"),
        ("a foreign model", fs::read(fixture("models/timm_vit.onnx")).unwrap(), "version"),
    ];
    for (name, bytes, word) in cases {
        place.put(&bytes);
        let error = look_well(&mut watcher).unwrap().unwrap_err();
        assert!(error.to_string().contains(word), "{name}: {error}");
        assert!(look_well(&mut watcher).is_none(), "{name}: told twice");
    }
    let better = variant(0.25, "2");
    place.put(&better);
    assert_eq!(logits(&mut look_well(&mut watcher).unwrap().unwrap()), logits_of(&better));
}

#[test]
fn other_shapes_are_refused_whatever_the_version() {
    let place = Place::new(&fs::read(fixture("models/timm_vit.onnx")).unwrap());
    let mut watcher = place.watcher(Trust::default());
    for model in ["colours_u8", "colours_f32", "timm_tanh"] {
        let bytes = fs::read(fixture(&format!("models/{model}.onnx"))).unwrap();
        let same = shapes(&Model::from_bytes(&bytes).unwrap()) == watcher.running.shapes;
        place.put(&bytes);
        match look_well(&mut watcher).unwrap() {
            Ok(_) => assert!(same, "{model}"),
            Err(error) => assert!(!same && error.to_string().contains("shapes"), "{model}: {error}"),
        }
    }
}

#[test]
fn an_unsigned_model_is_refused_and_a_signed_one_runs_on() {
    let signed = colours();
    let place = Place::new(&signed);
    let key = PublicKey::named(fixture("signed/test.pub").to_str().unwrap()).unwrap();
    let trust = Trust { key: Some(key), min_version: None };
    let open = |trust: &Trust| {
        ModelWatcher::open(
            place.model(),
            WatchOptions {
                open: OpenOptions { trust: trust.clone(), ..OpenOptions::default() },
                ..WatchOptions::default()
            },
        )
    };
    assert_eq!(open(&trust).err().unwrap().exit_code(), 3);
    fs::copy(fixture("signed/colours_u8.onnx.minisig"), beside(&place.model())).unwrap();
    let mut watcher = open(&trust).unwrap().0;
    place.put(&variant(0.5, "9"));
    let error = look_well(&mut watcher).unwrap().unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().contains("signature"), "{error}");
    assert!(look_well(&mut watcher).is_none());
    // A signature that comes late is looked at; one that is gone is told of.
    fs::write(beside(&place.model()), "no signature").unwrap();
    assert!(look_well(&mut watcher).unwrap().is_err());
    fs::remove_file(beside(&place.model())).unwrap();
    assert!(look_well(&mut watcher).unwrap().unwrap_err().to_string().contains("minisig"));
    assert!(look_well(&mut watcher).is_none());
    // What runs already is there again: no news.
    fs::copy(fixture("signed/colours_u8.onnx.minisig"), beside(&place.model())).unwrap();
    place.put(&signed);
    assert!(look_well(&mut watcher).is_none());
}

#[test]
fn a_signature_in_front_of_its_model_is_no_news() {
    let place = Place::new(&colours());
    fs::copy(fixture("signed/colours_u8.onnx.minisig"), beside(&place.model())).unwrap();
    let key = PublicKey::named(fixture("signed/test.pub").to_str().unwrap()).unwrap();
    let mut watcher = place.watcher(Trust { key: Some(key), min_version: None });
    fs::copy(fixture("signed/message.txt.minisig"), beside(&place.model())).unwrap();
    assert!(look_well(&mut watcher).is_none());
}

/// Replaces the model so often, each time once the one before has taken over, with bad ones in between.
fn swap(times: usize) {
    let good: Vec<Vec<u8>> = (0..3).map(|i| variant(1.0 - 0.25 * i as f32, "1")).collect();
    let answers: Vec<Vec<f32>> = good.iter().map(|bytes| logits_of(bytes)).collect();
    let place = Place::new(&good[0]);
    let mut watch = place.watcher(Trust::default()).start(Duration::from_micros(100)).unwrap();
    let mut news = || {
        let start = Instant::now();
        loop {
            if let Some(news) = watch.news() {
                return news;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the new model was not seen");
            std::thread::yield_now();
        }
    };
    for i in 1..=times {
        let (model, answer) = (&good[i % 3], &answers[i % 3]);
        if i % 5 == 0 {
            place.put(&model[..i % model.len()]);
            news().unwrap_err();
        }
        place.put(model);
        assert_eq!(&logits(&mut news().unwrap()), answer, "swap {i}");
    }
}

#[test]
fn two_hundred_swaps_never_give_a_torn_model() {
    swap(200);
}

#[test]
#[ignore = "takes a minute"]
fn ten_thousand_swaps_never_give_a_torn_model() {
    swap(10_000);
}

#[test]
fn an_accepted_model_is_not_lost_to_a_refused_one() {
    let (old, new) = (variant(1.0, "1"), variant(0.5, "2"));
    let place = Place::new(&old);
    let mut watch = place.watcher(Trust::default()).start(Duration::from_micros(100)).unwrap();
    // Neither is fetched before both have been found.
    let found = |what: fn(&State) -> bool| {
        let start = Instant::now();
        while !what(&watch.shared.lock()) {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    place.put(&new);
    found(|state| state.accepted.is_some());
    place.put(b"no model");
    found(|state| state.refused.is_some());
    assert_eq!(logits(&mut watch.news().unwrap().unwrap()), logits_of(&new));
    assert_eq!(watch.news().unwrap().unwrap_err().exit_code(), 3);
    assert!(watch.news().is_none());
}
