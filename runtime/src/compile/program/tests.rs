use super::*;
use crate::compile::compile;
use crate::gate::{self, Limits};

/// Twice the constants 1, 2, 3, 4 in two rows; and something that nobody reads.
fn doubled(budget: u64) -> Result<Program, Unknown> {
    let steps = vec![
        Step::StoreConstant { values: vec![1.0, 2.0, 3.0, 4.0], out: 1, at: 0 },
        Step::StoreConstant { values: vec![9.0; 4], out: 3, at: 0 },
        Step::Pointwise { x: 1, function: Pointwise::Scale(2.0), out: 2 },
    ];
    // The last row alone.
    let outputs = vec![Span { buffer: 2, offset: 2, rows: 1, cols: 2 }];
    let buffers = vec![[1, 4], [2, 2], [2, 2], [2, 2]];
    Unpacked::new(Lowered { steps, buffers, outputs, taps: vec![] }, budget)?.pack()
}

#[test]
fn a_program_runs_what_is_needed() {
    let program = doubled(1 << 20).unwrap();
    assert_eq!(program.steps().map(|(_, kind, _)| kind).collect::<Vec<_>>(), ["copy", "pointwise"]);
    let mut arena = program.arena(2);
    for _ in 0..2 {
        program.run(&mut arena, ImageView::F32(&[0.0; 4]), |_, _| ());
        assert_eq!(program.output(&arena, 0), Some(&[6.0, 8.0][..]));
    }
    assert_eq!(program.output(&arena, 1), None);
    // Two slots, and two buffers of each thread.
    assert_eq!(program.arena_bytes(2), 2 * 4 * size_of::<f32>() + 6 * 64);
}

#[test]
fn each_step_has_a_time() {
    let program = doubled(1 << 20).unwrap();
    let mut times = vec![Duration::from_secs(7); 2];
    program.time(&mut program.arena(1), ImageView::F32(&[0.0; 4]), &mut times);
    assert!(times.iter().all(|time| *time >= Duration::from_secs(7)));
}

#[test]
fn memory_is_refused_before_it_is_taken() {
    // 16 bytes of constants, two slots of 16.
    let why = doubled(47).unwrap_err();
    assert!(why.contains("48 bytes for its steps, 47 are allowed"), "{why}");
    assert!(doubled(48).is_ok());
}

#[test]
fn a_fault_of_the_lowering_is_reported() {
    let steps = vec![Step::StoreConstant { values: vec![1.0; 3], out: 1, at: 2 }];
    let outputs = vec![Span { buffer: 1, offset: 0, rows: 2, cols: 2 }];
    let lowered = Lowered { steps, buffers: vec![[1, 4], [2, 2]], outputs, taps: vec![] };
    let why = Unpacked::new(lowered, 1 << 20).unwrap_err();
    assert!(why.contains("please report it") && why.contains("step 0, copy"), "{why}");
}

#[test]
fn the_files_weights_are_given_up_as_they_are_packed() {
    let file = include_bytes!("../../../tests/models/colours_qdq.onnx");
    let [held, alone] = [true, false].map(|hold| {
        let (proto, summary) = gate::open(file, &Limits::default()).unwrap();
        let unpacked = compile(proto.graph.as_ref().unwrap(), &summary.facts, u64::MAX, &[]).unwrap();
        let _held = hold.then_some(proto);
        unpacked.pack().unwrap()
    });
    assert_eq!((held.packing_bytes(), alone.bytes()), (held.bytes(), held.bytes()));
    assert!(alone.packing_bytes() < alone.bytes(), "{} of {}", alone.packing_bytes(), alone.bytes());
}
