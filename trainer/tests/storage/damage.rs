//! A checkpoint with one bit changed is found out, and the one before is used. The long form:
//! `SMALTI_DAMAGES=10000 cargo test -p smalti-trainer --test storage damage -- --nocapture`.

use smalti_trainer::run::{RunDir, state};

use crate::support::{Runs, STATE, rng, setting};

#[test]
fn a_checkpoint_with_one_bit_changed_gives_way_to_the_one_before() {
    let runs = Runs::new("pretrain", 3);
    let (whole, path) = (runs.whole(), runs.path("whole"));
    let run = RunDir::open(&path).unwrap();
    let (last, previous) = (run.state(), run.previous_state());
    let [good, before] = [&last, &previous].map(|path| state::load(path).unwrap());
    assert_eq!((good.about.step, before.about.step), (12, 11));

    let (mut bytes, mut rng) = (std::fs::read(&last).unwrap(), rng());
    let (damages, bits) = (setting("SMALTI_DAMAGES", 200), bytes.len() as u64 * 8);
    for _ in 0..damages {
        let bit = rng.u64(..bits) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&last, &bytes).unwrap();
        let (used, state) = run.load_state().unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        assert_eq!((&used, state.about.step), (&previous, 11), "bit {bit} is not noticed");
        assert!(state == before, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    println!("{damages} of {damages} damaged checkpoints found out, of {} bytes", bytes.len());

    // And the program goes on from there, to the same end.
    bytes[bits as usize / 16] ^= 1;
    std::fs::write(&last, &bytes).unwrap();
    std::fs::remove_file(path.join("checkpoints/last.safetensors")).unwrap();
    assert!(runs.ended(&path) == whole);
    let again = state::load(&path.join(STATE)).unwrap();
    assert!(again.about.step == 12 && again.vectors == good.vectors);
}
